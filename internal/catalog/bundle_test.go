package catalog

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"banger"
)

// entry is one of a tar that Pack would not make.
type entry struct {
	header  tar.Header
	content string
}

func regular(name, content string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}, content}
}

func other(kind byte, name string) entry {
	return entry{tar.Header{Typeflag: kind, Name: name, Linkname: "/etc/passwd", Mode: 0o644}, ""}
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&e.header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func packed(t testing.TB, raw []byte) []byte {
	t.Helper()
	z, err := encoder()
	if err != nil {
		t.Fatal(err)
	}
	return z.EncodeAll(raw, nil)
}

var encoder = sync.OnceValues(func() (*zstd.Encoder, error) { return zstd.NewWriter(nil) })

func TestUnpackRefuses(t *testing.T) {
	t.Setenv("TMPDIR", "/dev/shm") // a disk would be asked to sync
	good := []entry{regular("image.json", "{}"), regular("rootfs.ext4", "base")}
	with := func(more ...entry) []byte { return packed(t, tarOf(t, append(slices.Clone(good), more...)...)) }
	whole := with()
	for _, tc := range []struct {
		name   string
		bundle []byte
		say    string
	}{
		{"traversal", with(regular("../evil", "x")), "no place"},
		{"absolute", with(regular("/tmp/evil", "x")), "no place"},
		{"traversal below a part", with(regular("boot-modules/../../evil.ko", "x")), "no place"},
		{"a name that is not clean", with(regular("boot-modules//x.ko", "x")), "no place"},
		{"a name with a line feed", with(regular("boot-modules/a\nb.ko", "x")), "no place"},
		{"deeper", with(regular("boot-modules/a/b.ko", "x")), "no place"},
		{"extra", with(regular("seed.tar", "x")), "no place"},
		{"directory", with(entry{tar.Header{Typeflag: tar.TypeDir, Name: "boot-modules/", Mode: 0o755}, ""}), "no place"},
		{"symlink", packed(t, tarOf(t, regular("image.json", "{}"), other(tar.TypeSymlink, "rootfs.ext4"))), "no ordinary file"},
		{"hard link", packed(t, tarOf(t, regular("image.json", "{}"), other(tar.TypeLink, "rootfs.ext4"))), "no ordinary file"},
		{"device", packed(t, tarOf(t, regular("image.json", "{}"), other(tar.TypeBlock, "rootfs.ext4"))), "no ordinary file"},
		{"fifo", packed(t, tarOf(t, regular("image.json", "{}"), other(tar.TypeFifo, "rootfs.ext4"))), "no ordinary file"},
		{"missing", packed(t, tarOf(t, good[0])), "no rootfs.ext4"},
		{"duplicate", with(good[0]), "twice"},
		{"too large", packed(t, tarOf(t, regular("image.json", strings.Repeat("x", 1<<20+1)), good[1])), "more than 1 MiB"},
		{"empty", nil, "no image.json"},
		{"no zstd", []byte("hello"), "can't be read"},
		{"no tar", packed(t, bytes.Repeat([]byte("x"), 4096)), "can't be read"},
		{"cut", whole[:len(whole)-8], "can't be read"},
		{"bomb behind the end", packed(t, append(tarOf(t, good...), make([]byte, 64<<20)...)), "follows"},
		{"bomb in a file", packed(t, append(withoutEnd(tarOf(t, good[0])), bomb(t)...)), "more than 64 MiB"},
		{"many files", with(manyModules()...), "more than 10000 files"},
	} {
		dir := t.TempDir()
		if err := Unpack(t.Context(), bytes.NewReader(tc.bundle), dir, testParts); !errors.Is(err, banger.ErrCorrupt) || !strings.Contains(err.Error(), tc.say) {
			t.Errorf("%s: %v, want corrupt with %q", tc.name, err, tc.say)
		}
		if _, err := os.Lstat(filepath.Join(filepath.Dir(dir), "evil")); err == nil {
			t.Errorf("%s: it was written elsewhere", tc.name)
		}
	}
}

func withoutEnd(archive []byte) []byte { return archive[:len(archive)-1024] }

// bomb is the header of a file that unpacks to more than may be.
func bomb(t *testing.T) []byte {
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "rootfs.ext4", Size: 1 << 50}); err != nil {
		t.Fatal(err)
	}
	return append(b.Bytes(), make([]byte, 1<<20)...)
}

func manyModules() []entry {
	var all []entry
	for i := range maxParts {
		all = append(all, regular("boot-modules/m"+strings.Repeat("x", i%100)+string(rune('a'+i/100%26))+string(rune('a'+i/2600))+".ko", ""))
	}
	return all
}

func TestUnpackKeepsHoles(t *testing.T) {
	content := filepath.Join(t.TempDir(), "base")
	f, err := os.Create(content)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(random(1<<20), 20<<20); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(40<<20+5), f.Close()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b, err := Pack(t.Context(), dir, "x", []File{{Name: "image.json", Data: []byte("{}")}, {Name: "rootfs.ext4", Path: content}}, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := os.Open(filepath.Join(dir, b.URL))
	if err != nil {
		t.Fatal(err)
	}
	defer bundle.Close()
	out := t.TempDir()
	if err := Unpack(t.Context(), bundle, out, testParts); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(out, "rootfs.ext4"), &st); err != nil || st.Size != 40<<20+5 || st.Blocks*512 > 2<<20 {
		t.Errorf("size %d in %d bytes of disk, %v", st.Size, st.Blocks*512, err)
	}
	want, _ := os.ReadFile(content)
	if got, err := os.ReadFile(filepath.Join(out, "rootfs.ext4")); err != nil || !bytes.Equal(want, got) {
		t.Errorf("content differs, %v", err)
	}
}

func TestUnpackIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Unpack(ctx, bytes.NewReader(packed(t, tarOf(t, regular("image.json", "{}")))), t.TempDir(), testParts); !errors.Is(err, context.Canceled) {
		t.Errorf("Unpack = %v", err)
	}
}

// What parses is what a publisher could have written.
func FuzzParseIndex(f *testing.F) {
	key := newKey(1)
	dir, _ := published(f, key)
	text, err := os.ReadFile(filepath.Join(dir, indexName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"version":1,"serial":1,"created":"2026-01-01T00:00:00Z","expires":"2026-01-02T00:00:00Z","images":[],"kernels":[]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		index, err := parseIndex(text)
		if err != nil {
			if !errors.Is(err, banger.ErrCorrupt) && !errors.Is(err, banger.ErrUnsupported) {
				t.Fatalf("%v has no kind", err)
			}
			return
		}
		again, err := encodeIndex(index)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := parseIndex(again); err != nil || !second.Created.Equal(index.Created) || len(second.Images) != len(index.Images) {
			t.Fatalf("%v: %s", err, again)
		}
		for _, b := range bundles(index) {
			for _, url := range []string{"/srv/catalog", "https://c.example/a"} {
				web, local, err := New(Config{URL: url}).place(b.URL)
				if err != nil || web == nil && !strings.HasPrefix(local, "/srv/catalog/") && local != "/srv/catalog" {
					t.Fatalf("url %q is at %v, %q, %v", b.URL, web, local, err)
				}
			}
		}
	})
}

func FuzzParseSignatures(f *testing.F) {
	f.Add(formatSignatures(sign([]byte("x"), []ed25519.PrivateKey{newKey(1), newKey(2)})))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		signatures, err := parseSignatures(text)
		if err != nil {
			if !errors.Is(err, banger.ErrCorrupt) {
				t.Fatalf("%v has no kind", err)
			}
			return
		}
		if again := formatSignatures(signatures); !bytes.Equal(again, text) {
			t.Fatalf("%q became %q", text, again)
		}
	})
}

// Whatever a bundle holds, nothing but its parts is written, and no more than these may have.
func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, regular("image.json", "{}"), regular("rootfs.ext4", "base"), regular("boot-modules/a.ko", "x")))
	f.Add(tarOf(f, regular("image.json", "{}"), other(tar.TypeSymlink, "rootfs.ext4"), regular("../x", "")))
	f.Setenv("TMPDIR", "/dev/shm") // a disk would be asked to sync
	parts := []Part{{"image.json", 100}, {"rootfs.ext4", 4096}, {"boot-modules/*.ko", 100}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		outer := t.TempDir()
		dir := filepath.Join(outer, "in")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := unpack(ctx, bytes.NewReader(raw), dir, parts)
		if err != nil && !errors.Is(err, banger.ErrCorrupt) {
			t.Fatalf("unpack: %v has no kind", err)
		}
		if entries, _ := os.ReadDir(outer); len(entries) != 1 {
			t.Fatalf("written elsewhere: %v", entries)
		}
		filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
			if err != nil || info.IsDir() {
				return err
			}
			rel, _ := filepath.Rel(dir, path)
			if part, ok := find(parts, rel); !ok || info.Size() > part.MaxBytes || !info.Mode().IsRegular() {
				t.Errorf("wrote %s, %v, %d bytes", rel, info.Mode(), info.Size())
			}
			return nil
		})
	})
}
