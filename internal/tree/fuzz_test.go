package tree_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/internal/tree"
)

var fuzzLimits = tree.Limits{Entries: 20, Bytes: 1 << 20}

// addStreams adds streams of GNU tar in its formats, and one of ours.
func addStreams(f *testing.F) {
	names, err := filepath.Glob("testdata/*.tar")
	if err != nil || len(names) == 0 {
		f.Fatalf("no streams in testdata: %v", err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	var buffer bytes.Buffer
	if err := tree.WriteTar(&buffer, tree.Of(tree.Directory("d", 0o755), tree.Literal("d/.wh.f", 0o644, []byte("content")), tree.Entry{Path: "l", Kind: tree.Symlink, Link: "/etc"},
		tree.Entry{Path: "x", Kind: tree.File, Xattrs: map[string][]byte{"user.a": {1}}}, tree.Entry{Path: "n", Kind: tree.CharDevice, Major: 1, Minor: 3})); err != nil {
		f.Fatal(err)
	}
	f.Add(buffer.Bytes())
}

// reseal gives whatever looks like a header its right checksum: without it hardly a change gets any further.
func reseal(stream []byte) []byte {
	stream = bytes.Clone(stream)
	for at := 0; at+512 <= len(stream); at += 512 {
		block := stream[at : at+512]
		if !bytes.HasPrefix(block[257:], []byte("ustar")) {
			continue
		}
		copy(block[148:156], "        ")
		sum := 0
		for _, b := range block {
			sum += int(b)
		}
		copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
	}
	return stream
}

// gather checks every entry, reads its content, and gives those that came before the first fault.
func gather(t *testing.T, src tree.Source) (list []tree.Entry, fault error) {
	t.Helper()
	count, total := 0, int64(0)
	for e, err := range src {
		if err != nil {
			if !errors.Is(err, banger.ErrCorrupt) && !errors.Is(err, banger.ErrInvalid) {
				t.Errorf("an error of another kind: %v", err)
			}
			return list, err
		}
		checkInside(t, e.Path)
		if e.Kind == tree.HardLink {
			checkInside(t, e.Link)
		}
		if e.Kind != tree.Layer {
			count++
		}
		if total += e.Size; count > fuzzLimits.Entries || total > fuzzLimits.Bytes || e.Size < 0 || e.Size > 0 && (e.Kind != tree.File || e.Content == nil) {
			t.Errorf("%q of %d bytes: %d entries, %d bytes", e.Path, e.Size, count, total)
		}
		if e.Content != nil {
			b, err := io.ReadAll(e.Content)
			if err != nil && !errors.Is(err, banger.ErrCorrupt) || int64(len(b)) > e.Size || err == nil && int64(len(b)) < e.Size {
				t.Errorf("%q: %d of %d bytes: %v", e.Path, len(b), e.Size, err)
			}
			if err != nil {
				return list, err
			}
			e.Content = bytes.NewReader(b)
		}
		list = append(list, e)
	}
	return list, nil
}

func checkInside(t *testing.T, p string) {
	t.Helper()
	if p == "" || p != path.Clean(p) || path.IsAbs(p) || p == ".." || strings.HasPrefix(p, "../") || strings.ContainsRune(p, 0) {
		t.Errorf("path %q", p)
	}
	for part := range strings.SplitSeq(p, "/") {
		if len(part) > 255 {
			t.Errorf("a name of %d bytes", len(part))
		}
	}
}

// Whatever a stream says, paths are clean and inside, limits hold, and what was read is written and read as the same.
func FuzzFromTar(f *testing.F) {
	addStreams(f)
	f.Fuzz(func(t *testing.T, stream []byte) {
		want, err := gather(t, tree.FromTar(bytes.NewReader(reseal(stream)), fuzzLimits))
		if err != nil || t.Failed() {
			return
		}
		var buffer bytes.Buffer
		if err := tree.WriteTar(&buffer, tree.Of(want...)); err != nil {
			t.Fatal(err)
		}
		got, err := gather(t, tree.FromTar(&buffer, fuzzLimits))
		if err != nil {
			t.Fatal(err)
		}
		ignore := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Content" }, cmp.Ignore())
		if diff := cmp.Diff(want, got, ignore); diff != "" {
			t.Error(diff)
		}
	})
}

// No white-out of a layer becomes a file.
func FuzzFromLayer(f *testing.F) {
	addStreams(f)
	f.Fuzz(func(t *testing.T, stream []byte) {
		list, _ := gather(t, tree.FromLayer(bytes.NewReader(reseal(stream)), fuzzLimits))
		if len(list) == 0 || list[0].Kind != tree.Layer {
			t.Fatalf("begins with %v", list)
		}
		for _, e := range list[1:] {
			switch {
			case e.Kind == tree.Layer:
				t.Error("a second layer")
			case e.Kind == tree.Delete && (e.Path == "." || e.Content != nil):
				t.Errorf("a white-out of %q", e.Path)
			case e.Kind != tree.Delete && e.Kind != tree.Opaque && strings.HasPrefix(path.Base(e.Path), ".wh."):
				t.Errorf("%q is no white-out", e.Path)
			}
		}
	})
}
