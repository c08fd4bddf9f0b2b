package write_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"banger"
	"banger/internal/ext4/write"
	"banger/internal/testenv"
	"banger/internal/tree"
)

func layer() tree.Entry             { return tree.Entry{Path: ".", Kind: tree.Layer} }
func remove(path string) tree.Entry { return tree.Entry{Path: path, Kind: tree.Delete} }
func opaque(path string) tree.Entry { return tree.Entry{Path: path, Kind: tree.Opaque} }

func TestLaterEntriesReplace(t *testing.T) {
	with := func(e tree.Entry, mode uint32) tree.Entry {
		e.Mode = mode
		return e
	}
	attributed := func(e tree.Entry, value string) tree.Entry {
		e.Xattrs = map[string][]byte{"user.x": []byte(value)}
		return e
	}
	for _, tc := range []struct {
		name       string
		have, want []tree.Entry
	}{
		{"file", []tree.Entry{file("f", "old"), file("f", "new")}, []tree.Entry{file("f", "new")}},
		{"file by a directory", []tree.Entry{file("f", pattern(9000)), dir("f"), file("f/g", "x")}, []tree.Entry{dir("f"), file("f/g", "x")}},
		{"directory by a file", []tree.Entry{file("d/a", pattern(9000)), file("d/b/c", "x"), file("d", "now a file")}, []tree.Entry{file("d", "now a file")}},
		{"a directory that is told again keeps what it has", []tree.Entry{file("d/a", "x"), with(dir("d"), 0o700)}, []tree.Entry{with(dir("d"), 0o700), file("d/a", "x")}},
		{"attributes", []tree.Entry{attributed(dir("d"), pattern(700)), attributed(dir("d"), "small")}, []tree.Entry{attributed(dir("d"), "small")}},
		{"one of two links", []tree.Entry{file("a", "old"), link("b", "a"), file("a", "new")}, []tree.Entry{file("a", "new"), file("b", "old")}},
		{"a link by itself", []tree.Entry{file("a", "x"), link("b", "a"), link("b", "a")}, []tree.Entry{file("a", "x"), link("b", "a")}},
		{"deleted file", []tree.Entry{file("a", pattern(9000)), remove("a")}, nil},
		{"deleted tree", []tree.Entry{file("a/b/c", "x"), file("a/d", pattern(9000)), remove("a/b")}, []tree.Entry{dir("a"), file("a/d", pattern(9000))}},
		{"deleted and made again", []tree.Entry{file("a/b", "old"), remove("a"), file("a/c", "new")}, []tree.Entry{dir("a"), file("a/c", "new")}},
		{"what is not there is deleted", []tree.Entry{remove("a"), remove("b/c"), file("f", "x"), remove("f/g")}, []tree.Entry{file("f", "x")}},
		{"lost+found stays", []tree.Entry{remove("lost+found"), layer(), opaque(".")}, nil},
		{"a deleted link leaves the other", []tree.Entry{file("a", "x"), link("b", "a"), remove("a")}, []tree.Entry{file("b", "x")}},
		{"opaque hides earlier layers", []tree.Entry{file("d/old", "x"), layer(), file("d/new", "y"), opaque("d"), file("d/later", "z")},
			[]tree.Entry{dir("d"), file("d/new", "y"), file("d/later", "z")}},
		{"opaque hides below", []tree.Entry{file("d/a/old", "x"), file("d/b/old", "x"), layer(), file("d/a/new", "y"), opaque("d")}, []tree.Entry{dir("d"), dir("d/a"), file("d/a/new", "y")}},
		{"a directory that is told again is of that layer", []tree.Entry{dir("d"), dir("d/e"), dir("d/f"), layer(), dir("d/e"), opaque("d")}, []tree.Entry{dir("d"), dir("d/e")}},
		{"a linked file is of that layer", []tree.Entry{dir("d"), file("d/f", "x"), layer(), link("d/g", "d/f"), opaque("d")}, []tree.Entry{dir("d"), file("d/f", "x"), link("d/g", "d/f")}},
		{"opaque where nothing is", []tree.Entry{opaque("none/at/all"), file("f", "x"), opaque("f")}, []tree.Entry{file("f", "x")}},
		{"a parent that is a symlink", []tree.Entry{dir("usr/bin"), symlink("bin", "usr/bin"), layer(), file("bin/sh", "x")},
			[]tree.Entry{dir("usr"), dir("usr/bin"), file("usr/bin/sh", "x"), symlink("bin", "usr/bin")}},
		{"symlinks stay inside", []tree.Entry{dir("etc"), symlink("a/up", "../../../../etc"), symlink("root", "/"), file("a/up/passwd", "x"), file("root/root/etc/hosts", "y")},
			[]tree.Entry{dir("etc"), dir("a"), symlink("a/up", "../../../../etc"), symlink("root", "/"), file("etc/passwd", "x"), file("etc/hosts", "y")}},
		{"a symlink is deleted, not what it leads to", []tree.Entry{file("d/f", "x"), symlink("l", "d"), remove("l")}, []tree.Entry{dir("d"), file("d/f", "x")}},
		{"below a symlink", []tree.Entry{file("d/f", "x"), file("d/g", "y"), symlink("l", "d"), layer(), remove("l/f")}, []tree.Entry{dir("d"), file("d/g", "y"), symlink("l", "d")}},
		{"a link through a symlink", []tree.Entry{file("d/f", "x"), symlink("l", "d"), link("g", "l/f")}, []tree.Entry{dir("d"), file("d/f", "x"), symlink("l", "d"), link("g", "d/f")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			image, _ := create(t, options(16<<20), tree.Of(tc.have...))
			testenv.SameLines(t, content(t, image), testenv.TreeLines(t, dated(tree.Of(append([]tree.Entry{root()}, tc.want...)...)), true))
		})
	}
}

// Layers as registries have them: a white-out deletes, an opaque mark spares what its own layer has, wherever it stands,
// and what lies below a symlink goes to where that leads inside the root.
func TestLayersFromTars(t *testing.T) {
	layers := [][]tree.Entry{
		{dir("usr"), dir("usr/bin"), file("usr/bin/old", "old"), symlink("bin", "usr/bin"), file("etc/a", "a"), file("etc/b", "b"), file("opt/one/f", "1"), file("opt/two/f", "2")},
		{file("bin/sh", "sh"), file("etc/.wh.a", ""), file("etc/c", "c"), file("opt/three", "3"), file("opt/.wh..wh..opq", ""), file("opt/four", "4")},
		{file("bin/.wh.old", ""), file("etc/b", "new b"), link("etc/d", "etc/b"), file(".wh.gone", ""), dir("opt/three"), file("opt/three/f", "dir now")},
	}
	var list []tree.Source
	for _, entries := range layers {
		var buffer bytes.Buffer
		if err := tree.WriteTar(&buffer, dated(tree.Of(entries...))); err != nil {
			t.Fatal(err)
		}
		list = append(list, tree.FromLayer(&buffer, tree.Limits{}))
	}
	image, _ := create(t, options(16<<20), tree.Concat(list...))
	testenv.SameLines(t, content(t, image), testenv.TreeLines(t, dated(tree.Of(root(), dir("usr"), dir("usr/bin"), file("usr/bin/sh", "sh"), symlink("bin", "usr/bin"), dir("etc"),
		file("etc/b", "new b"), link("etc/d", "etc/b"), file("etc/c", "c"), dir("opt"), dir("opt/three"), file("opt/three/f", "dir now"), file("opt/four", "4"))), true))
}

// As many symlinks as kernels follow.
func TestSymlinksOnTheWay(t *testing.T) {
	chain := func(n int) []tree.Entry {
		list := []tree.Entry{dir("l0")}
		for i := range n {
			list = append(list, symlink(fmt.Sprint("l", i+1), fmt.Sprint("l", i)))
		}
		return append(list, file(fmt.Sprintf("l%d/f", n), "x"))
	}
	image, _ := create(t, options(16<<20), tree.Of(chain(40)...))
	if b, err := openFS(t, image).ReadFile("l0/f"); string(b) != "x" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	_, err := write.CreateFile(t.Context(), filepath.Join(t.TempDir(), "image"), options(16<<20), tree.Of(chain(41)...))
	if !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("one more: %v", err)
	}
}

// What was replaced is free again, in the image and on the host.
func TestReplacedBlocksAreFree(t *testing.T) {
	large := pattern(1 << 20)
	_, once := create(t, options(256<<20), tree.Of(file("f", large)))
	var list []tree.Entry
	for i := range 100 {
		e := file("f", large)
		e.Xattrs = map[string][]byte{"user.long": []byte(pattern(1000))}
		list = append(list, layer(), file(fmt.Sprint("other", i%2), large), e)
	}
	image, often := create(t, options(256<<20), tree.Of(append(list, remove("other0"), remove("other1"), file("f", large))...))
	if often.Blocks != once.Blocks || often.Inodes != once.Inodes {
		t.Errorf("%d blocks and %d inodes, made at once %d and %d", often.Blocks, often.Inodes, once.Blocks, once.Inodes)
	}
	if got := allocated(t, image); got > 4<<20 {
		t.Errorf("it takes %d bytes of the host", got)
	}
}
