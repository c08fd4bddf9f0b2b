package workspace

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// deflated is a loose object's file.
func deflated(text string) []byte {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	z.Write([]byte(text))
	z.Close()
	return b.Bytes()
}

func idOf(text string) string {
	sum := sha1.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}

func loosePackIn(t *testing.T) (*loosePack, git) {
	t.Helper()
	dir := t.TempDir()
	gitIn(t, "/", "init", "-q", "--bare", dir)
	p, err := newLoosePack(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.file.Close() })
	return p, git{env: []string{"GIT_DIR=" + dir}}
}

// TestLoosePack mixes whole objects with damaged ones: git reads the whole ones from the pack, and nothing else is in it.
func TestLoosePack(t *testing.T) {
	p, g := loosePackIn(t)
	want := map[string]string{}
	for n, size := range []int{0, 1, 15, 16, 17, 2047, 2048, 300_000} {
		text := strings.Repeat(fmt.Sprint(n), size)
		whole := fmt.Sprintf("blob %d\x00%s", size, text)
		want[idOf(whole)] = text
		content := deflated(whole)
		if err := p.add(idOf(whole), bytes.NewReader(append(content, "more"...)), 1<<20); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		bits := slices.Clone(content)
		bits[len(bits)/2] ^= 0x10
		for what, bad := range map[string][]byte{
			"another object":   deflated("blob 5\x00other"),
			"a short one":      deflated(fmt.Sprintf("blob %d\x00%s", size+1, text)),
			"a long one":       deflated(fmt.Sprintf("blob %d\x00%sx", size, text)),
			"no kind":          deflated(fmt.Sprintf("blub %d\x00%s", size, text)),
			"no head":          deflated(text),
			"a head of digits": deflated(strings.Repeat("1", 1<<20)),
			"over the limit":   deflated(fmt.Sprintf("blob %d\x00", 1<<20+1)),
			"negative":         deflated("blob -1\x00"),
			"cut off":          content[:len(content)/2],
			"no zlib":          []byte(text),
			"a bit":            bits,
			"nothing":          nil,
		} {
			if err := p.add(idOf(whole), bytes.NewReader(bad), 1<<20); !errors.Is(err, errDamaged) {
				t.Errorf("%s: add() = %v", what, err)
			}
		}
	}
	if err := p.end(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	text, err := g.output(t.Context(), "cat-file", "--batch-all-objects", "--batch-check=%(objectname)")
	if ids := strings.Fields(text); err != nil || len(ids) != len(want) {
		t.Errorf("%d objects %v, want %d", len(ids), err, len(want))
	}
	for id, text := range want {
		if got, err := g.output(t.Context(), "cat-file", "blob", id); err != nil || got != text {
			t.Errorf("object of %d bytes: %d bytes, %v", len(text), len(got), err)
		}
	}
}

// TestLoosePackOfAnErr has the source fail: that is no damage.
func TestLoosePackOfAnErr(t *testing.T) {
	p, _ := loosePackIn(t)
	broken := errors.New("broken")
	if err := p.add(idOf("x"), &brokenReader{deflated("blob 1\x00x")[:5], broken}, 1<<20); !errors.Is(err, broken) || errors.Is(err, errDamaged) {
		t.Errorf("add() = %v", err)
	}
}

type brokenReader struct {
	text []byte
	err  error
}

func (b *brokenReader) Read(p []byte) (int, error) {
	if len(b.text) == 0 {
		return 0, b.err
	}
	n := copy(p, b.text)
	b.text = b.text[n:]
	return n, nil
}

// FuzzLoosePack: what add takes git finds in the pack, under the name that was asked for; what it does not take leaves no trace.
func FuzzLoosePack(f *testing.F) {
	f.Add(deflated("blob 3\x00abc"), deflated("tree 0\x00"))
	f.Add(deflated("blob 4\x00abc"), []byte("x"))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "objects", "pack"), 0o700); err != nil {
			t.Fatal(err)
		}
		p, err := newLoosePack(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer p.file.Close()
		for _, object := range [][]byte{one, two} {
			at, count := p.at, p.count
			err := p.add(idOf(inflatedText(object)), bytes.NewReader(object), 1<<16)
			if err != nil && (!errors.Is(err, errDamaged) || p.at != at || p.count != count) {
				t.Fatalf("add() = %v at %d, was %d", err, p.at, at)
			}
			if err := p.w.Flush(); err != nil {
				t.Fatal(err)
			}
			if info, err := p.file.Stat(); err != nil || info.Size() != p.at {
				t.Fatalf("%d bytes, %v, want %d", info.Size(), err, p.at)
			}
		}
	})
}

// inflatedText is what the standard library makes of a loose object, as far as it goes.
func inflatedText(object []byte) string {
	z, err := zlib.NewReader(bytes.NewReader(object))
	if err != nil {
		return ""
	}
	var b bytes.Buffer
	b.ReadFrom(z)
	return b.String()
}

// TestObjectsThatTheHostHas are not read again, and what comes without them is whole.
func TestObjectsThatTheHostHas(t *testing.T) {
	host := newRepo(t)
	writeFile(t, filepath.Join(host, "a"), "1")
	commit(t, host, "c")
	guest, record := sent(t, host, Options{})
	writeFile(t, filepath.Join(guest, "a"), "2")
	commit(t, guest, "work")
	if _, err := fetch(t, guest, record.Origin()).Save(t.Context(), host, "refs/banger/devbox/0123456789ab/now"); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(guest, "b"), "3")
	commit(t, guest, "more work")

	var read []string
	c, err := Fetch(t.Context(), local(&read), guest, t.TempDir(), record.Origin())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	read = slices.DeleteFunc(read, func(name string) bool { return !looseFile().MatchString(name) })
	if len(read) != 3 { // a commit, its tree and a file
		t.Errorf("read %q", read)
	}
	saved, err := c.Save(t.Context(), host, "refs/banger/devbox/0123456789ab/later")
	if err != nil {
		t.Fatal(err)
	}
	gitIn(t, host, "fsck", "--strict")
	if got := gitIn(t, host, "show", saved["refs/banger/devbox/0123456789ab/later/head"]+":b"); got != "3" {
		t.Errorf("b = %q", got)
	}
}
