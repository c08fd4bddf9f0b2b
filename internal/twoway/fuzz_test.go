package twoway

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
)

// conversation is what an engine asks a guest in one round.
func conversation(f *testing.F) []byte {
	var asked bytes.Buffer
	for _, o := range []op{
		{List: [][]byte{[]byte("."), []byte("d")}},
		{Look: [][]byte{[]byte("a"), []byte("d/b"), []byte("../outside")}, Blobs: true},
		{Read: []byte("a")},
		{Write: &change{Path: []byte("n/new"), Keep: []byte("n/new.kept"), Item: Item{Kind: File, Mode: 0o4755}}},
		{Write: &change{Path: []byte("a"), Keep: []byte("a.kept"), Always: true, Expect: State{Kind: File, Size: 1, Sum: sha256.Sum256([]byte("a"))}, Item: Item{Kind: Link, Link: []byte("../outside")}}},
		{Aside: &change{Path: []byte("d/b"), Keep: []byte("d/c")}},
		{Remove: &change{Path: []byte("d/c"), Keep: []byte("d/kept"), Expect: State{Kind: File, Size: 1, Sum: sha256.Sum256([]byte("b"))}}},
	} {
		if err := writeMessage(&asked, frameOp, o); err != nil {
			f.Fatal(err)
		}
		if o.Write != nil {
			if err := sendContent(&asked, strings.NewReader("text")); err != nil {
				f.Fatal(err)
			}
		}
	}
	return asked.Bytes()
}

// Whatever the host asks, nothing outside of the directory changes or is told.
func FuzzServe(f *testing.F) {
	f.Add(conversation(f), uint16(0), []byte{})
	f.Add(conversation(f), uint16(30), []byte("../"))
	f.Fuzz(func(t *testing.T, stream []byte, at uint16, over []byte) {
		if len(stream) > 0 {
			stream = bytes.Clone(stream)
			copy(stream[int(at)%len(stream):], over)
		}
		parent := quickDir(t)
		dir := filepath.Join(parent, "dir")
		for name, text := range map[string]string{"dir/a": "a", "dir/d/b": "b", "outside": "secret of the outside"} {
			full := filepath.Join(parent, name)
			if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		l, err := openLocal(dir, GuestSide, nil, untracked{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var said bytes.Buffer
		if err := Serve(&said, bufio.NewReader(bytes.NewReader(stream)), l); err == nil || banger.KindName(err) == "internal" {
			t.Errorf("Serve = %v, want an error of a kind", err)
		}
		if bytes.Contains(said.Bytes(), []byte("secret of")) {
			t.Error("it gave what is outside")
		}
		list, err := os.ReadDir(parent)
		text, readErr := os.ReadFile(filepath.Join(parent, "outside"))
		if err != nil || readErr != nil || len(list) != 2 || string(text) != "secret of the outside" {
			t.Errorf("outside: %v, %q", list, text)
		}
	})
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) Close() error                { return nil }

// Whatever the guest says, who asks gets valid paths and as many states as were asked for, or an error of a kind, and an end.
func FuzzRemote(f *testing.F) {
	var said bytes.Buffer
	for _, a := range []answer{
		{Children: []child{{[]byte("a"), true}, {[]byte("../b"), false}}, More: true}, {Children: []child{{[]byte("/c"), false}}},
		{Found: []Found{{State: State{Kind: File, Size: 3}}, {}}},
		{Item: &Item{Kind: File, Mode: 0o7777}},
	} {
		if err := writeMessage(&said, frameAnswer, a); err != nil {
			f.Fatal(err)
		}
	}
	if err := writeMessage(&said, frameChange, news{Paths: [][]byte{[]byte("x"), []byte("../y")}, All: true}); err != nil {
		f.Fatal(err)
	}
	if err := sendContent(&said, strings.NewReader("content")); err != nil {
		f.Fatal(err)
	}
	for _, a := range []answer{{Result: &Result{Outcome: Done}, Kept: []byte("k")}, {Result: &Result{Outcome: Stale}}, {Kept: []byte("../k")}} {
		if err := writeMessage(&said, frameAnswer, a); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(said.Bytes(), uint16(0), []byte{})
	f.Add(said.Bytes(), uint16(70), []byte(`"k":9`))
	f.Fuzz(func(t *testing.T, stream []byte, at uint16, over []byte) {
		if len(stream) > 0 {
			stream = bytes.Clone(stream)
			copy(stream[int(at)%len(stream):], over)
		}
		s := NewRemote(nowhere{}, bufio.NewReader(bytes.NewReader(stream)))
		defer s.Close()
		ctx := t.Context()
		fine := func(err error) bool {
			if err != nil && banger.KindName(err) == "internal" && !told(stream) {
				t.Errorf("%v has no kind", err)
			}
			return err == nil
		}
		children, err := s.List(ctx, []string{"."})
		fine(err)
		for _, c := range children {
			if !valid(c.Path) {
				t.Errorf("child %q", c.Path)
			}
		}
		if found, err := s.Look(ctx, []string{"a", "b"}, false); fine(err) && (len(found) != 2 || found[0].Kind > Other) {
			t.Errorf("found %v", found)
		}
		if item, content, err := s.Read(ctx, "a"); fine(err) {
			if item.Kind > Link {
				t.Errorf("item %v", item)
			}
			_, err := io.Copy(io.Discard, content)
			fine(err)
			fine(content.Close())
		}
		for _, do := range []func() (Result, error){
			func() (Result, error) {
				return s.Write(ctx, Put{Path: "a", Keep: "b"}, Item{Kind: File}, strings.NewReader("x"))
			},
			func() (Result, error) { return s.Remove(ctx, Put{Path: "a", Keep: "b"}) },
		} {
			if r, err := do(); fine(err) && (r.Outcome < Done || r.Outcome > Clash || r.Kept != "" && !valid(r.Kept)) {
				t.Errorf("result %v", r)
			}
		}
		if kept, err := s.Aside(ctx, "a", "b"); fine(err) && kept != "" && !valid(kept) {
			t.Errorf("kept %q", kept)
		}
		paths, _, err := s.Take()
		fine(err)
		for _, at := range paths {
			if !valid(at) {
				t.Errorf("changed %q", at)
			}
		}
	})
}

// told tells that the guest may have sent an error of its own, whose kind is its word.
func told(stream []byte) bool { return bytes.Contains(bytes.ToLower(stream), []byte("error")) }

// The name of what gives way is valid, beside the first one, and another one for each number; a staged file's name tells what it is.
func FuzzNames(f *testing.F) {
	f.Add("src/main.c", 2)
	f.Add(strings.Repeat("é", 127), 12)
	f.Add("d/"+strings.Repeat("x", 255), 999)
	f.Fuzz(func(t *testing.T, at string, n int) {
		if !valid(at) || len(at) > maxPath-100 || n < 1 || n > 1000 {
			return
		}
		name := conflictName(at, GuestSide, time.Unix(0, 0))
		other := numbered(name, n)
		for _, s := range []string{name, other} {
			if !valid(s) || path.Dir(s) != path.Dir(at) || s == at {
				t.Errorf("%q for %q", s, at)
			}
		}
		if name == other {
			t.Errorf("%q twice", name)
		}
		put := Put{Path: at, Expect: State{Kind: File, Sum: Sum{1}}}
		fresh := State{Kind: File, Sum: Sum{2}}
		staged := outName(put, fresh)
		old, next, base, ok := parseOut(staged)
		if !ok || len(staged) > maxName || old != put.Expect.Sum.short() || next != fresh.Sum.short() || !strings.HasPrefix(path.Base(at), base) {
			t.Errorf("%q is %q, %q, %q, %v", staged, old, next, base, ok)
		}
	})
}
