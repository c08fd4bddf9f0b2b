package write_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/ext4"
	"banger/internal/ext4/read"
	"banger/internal/ext4/write"
	"banger/internal/testenv"
	"banger/internal/tree"
)

// acl is u::rw, u:1000:r, g::r, m::r, o::- as system calls have it.
const acl = "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"

// everything is a tree with one of each thing that an image can hold. Its contents can be read once.
func everything() []tree.Entry {
	list := []tree.Entry{{Path: ".", Kind: tree.Dir, Mode: 0o1755, UID: 7, GID: 8, ModTime: epoch.Add(time.Hour)}}
	for _, size := range []int{0, 1, 4095, 4096, 4097, 1 << 20, 4<<20 + 1, 13 << 20} {
		list = append(list, file(fmt.Sprintf("sizes/%d", size), pattern(size)))
	}
	for _, n := range []int{1, 58, 59, 60, 61, 255, 1000, 4095} {
		list = append(list, symlink(fmt.Sprintf("links/%d", n), strings.Repeat("x", n)))
	}
	list = append(list, symlink("links/newline", "a\nb"), symlink("links/absolute", "/sizes/../sizes/1"))
	for _, name := range []string{"space and\ttab", "new\nline", "quote\"'\\", "-dash", "#hash", "<2>", "bad\xff\xfeutf8", strings.Repeat("n", 255), "ünï"} {
		list = append(list, file("names/"+name, name))
	}
	list = append(list, file(strings.Repeat("d/", 200)+"deep", "deep"))
	for i, mode := range []uint32{0, 0o4755, 0o2755, 0o1777, 0o7777, 0o400} {
		e := file(fmt.Sprintf("modes/%d", i), "x")
		e.Mode, e.UID, e.GID = mode, 100_000, 4_000_000_000
		list = append(list, e)
	}
	for i, at := range []time.Time{time.Unix(-1<<31, 0), time.Date(1969, 6, 1, 0, 0, 0, 1, time.UTC), time.Unix(0, 0), time.Unix(1<<31-1, 999_999_999), time.Unix(1<<31, 1),
		time.Date(2106, 2, 7, 6, 28, 16, 5, time.UTC), time.Date(2400, 1, 1, 0, 0, 0, 123456789, time.UTC), time.Unix(1<<34-1<<31-1, 999_999_999)} {
		e := file(fmt.Sprintf("times/%d", i), "x")
		e.ModTime, e.AccessTime, e.ChangeTime = at, at.Add(-time.Duration(i&1)), at.Add(-time.Duration(i&2))
		if i == 0 {
			e.AccessTime, e.ChangeTime = at, at
		}
		list = append(list, e)
	}
	list = append(list,
		tree.Entry{Path: "special/char", Kind: tree.CharDevice, Mode: 0o666, Major: 1, Minor: 3},
		tree.Entry{Path: "special/block", Kind: tree.BlockDevice, Mode: 0o600, Major: 300, Minor: 70_000},
		tree.Entry{Path: "special/highest", Kind: tree.CharDevice, Mode: 0o600, Major: 4095, Minor: 1<<20 - 1},
		tree.Entry{Path: "special/fifo", Kind: tree.FIFO, Mode: 0o620},
		tree.Entry{Path: "special/socket", Kind: tree.Socket, Mode: 0o700})
	list = append(list, link("hard/file", "sizes/4097"), link("hard/symlink", "links/60"), link("hard/short", "links/1"), link("hard/device", "special/block"), link("again", "hard/file"))
	return append(append(list, attributes()...), holes()...)
}

func attributes() []tree.Entry {
	with := func(name string, attrs map[string][]byte) tree.Entry {
		e := file("attributes/"+name, "x")
		e.Mode, e.Xattrs = 0o640, attrs
		return e
	}
	many := map[string][]byte{}
	for i := range 30 {
		many[fmt.Sprintf("user.name%d", i)] = bytes.Repeat([]byte{byte(i)}, i)
	}
	list := []tree.Entry{
		with("one", map[string][]byte{"user.short": []byte("v")}),
		with("empty value", map[string][]byte{"user.empty": {}}),
		with("all in the inode", map[string][]byte{"user.a": []byte("1"), "trusted.overlay.opaque": []byte("y"), "security.x": []byte("3")}),
		with("in a block", map[string][]byte{"user.long": bytes.Repeat([]byte("y"), 700)}),
		with("a full block", map[string][]byte{"user.most": bytes.Repeat([]byte("z"), 4096-32-4-20)}),
		with("many", many),
		with("a long name", map[string][]byte{"user." + strings.Repeat("n", 250): []byte("v")}),
		with("capability", map[string][]byte{"security.capability": []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")}),
		with("acl", map[string][]byte{"system.posix_acl_access": []byte(acl), "user.beside": []byte("it")}),
	}
	d := dir("attributes/directory")
	d.Xattrs = map[string][]byte{"system.posix_acl_default": []byte(acl), "user.dir": []byte("x")}
	return append(list, d)
}

func holes() []tree.Entry {
	with := func(name string, p *pieces) tree.Entry {
		return tree.Entry{Path: "holes/" + name, Kind: tree.File, Mode: 0o644, Size: p.size, Content: p}
	}
	var every []int64
	for at := int64(0); at < 2000*8192; at += 8192 {
		every = append(every, at)
	}
	return []tree.Entry{
		with("only", newPieces(1<<20, 1)),
		with("none", newPieces(10_000, 10_000, 0)),
		with("at the start", newPieces(1<<20, 100, 1<<20-100)),
		with("at the end", newPieces(1<<20+5, 100, 0)),
		with("between", newPieces(9<<20, 5000, 0, 1<<20, 8<<20)),
		with("2000 pieces", newPieces(2000*8192, 4096, every...)),
		file("holes/zeros", strings.Repeat("\x00", 3<<20)),
		file("holes/two blocks of zeros", strings.Repeat("\x00", 8192)),
		file("holes/part of a block of zeros", strings.Repeat("\x00", 100)),
		file("holes/zeros between", pattern(4096)+strings.Repeat("\x00", 1<<20)+pattern(100)),
		file("holes/few zeros", pattern(4096)+strings.Repeat("\x00", 4096)+pattern(100)),
	}
}

// implied are the directories that everything has without naming them.
func implied() []tree.Entry {
	var list []tree.Entry
	for _, name := range []string{"sizes", "links", "names", "modes", "times", "special", "hard", "attributes", "holes"} {
		list = append(list, dir(name))
	}
	for n := 1; n <= 200; n++ {
		list = append(list, dir(strings.Repeat("d/", n)[:2*n-1]))
	}
	return list
}

func TestKeepsEverything(t *testing.T) {
	want := testenv.TreeLines(t, dated(tree.Of(append(implied(), everything()...)...)), true)
	for _, size := range []int64{128 << 20, 8 << 30} {
		image, _ := create(t, options(size), tree.Of(everything()...))
		t.Run(fmt.Sprintf("%d read", size), func(t *testing.T) { testenv.SameLines(t, content(t, image), want) })
		t.Run(fmt.Sprintf("%d mounted", size), func(t *testing.T) { testenv.SameLines(t, mounted(t, image), want) })
	}
}

func TestHolesStayHoles(t *testing.T) {
	large := newPieces(5<<30, 4096, 0, 3<<30, 5<<30-4096)
	image, _ := create(t, options(8<<30), tree.Of(append(holes(), tree.Entry{Path: "holes/large", Kind: tree.File, Size: large.size, Content: large})...))
	fsys := openFS(t, image)
	for path, most := range map[string]int64{"only": 0, "none": 3, "at the start": 1, "at the end": 1, "between": 6, "large": 3, "2000 pieces": 2000 + 8, "zeros": 0, "two blocks of zeros": 0, "part of a block of zeros": 0, "zeros between": 2,
		"few zeros": 3} {
		n, err := fsys.Lookup("holes/"+path, false)
		if err != nil {
			t.Fatal(err)
		}
		if path == "large" {
			got, want := make([]byte, 8192), make([]byte, 8192)
			for _, off := range []int64{0, 3<<30 - 4096, 3 << 30, 5<<30 - 8192} {
				if _, err := read.NewContent(n).ReadAt(got, off); err != nil && err != io.EOF {
					t.Fatal(err)
				}
				if _, err := large.ReadAt(want, off); err != nil || !bytes.Equal(got, want) {
					t.Errorf("other bytes at %d, %v", off, err)
				}
			}
		}
		if got := blocksOf(t, n); got > most || got < most-8 {
			t.Errorf("%s takes %d blocks, want %d", path, got, most)
		}
	}
	if got := allocated(t, image); got > 16<<20 {
		t.Errorf("the image takes %d bytes of the host", got)
	}
}

func blocksOf(t *testing.T, n *read.Node) (blocks int64) {
	t.Helper()
	c := read.NewContent(n)
	for off := int64(0); ; {
		start, end, err := c.NextData(off)
		if err != nil {
			return blocks
		}
		blocks += (end+4095)/4096 - start/4096
		off = end
	}
}

// Trees of several depths: the inode holds 4 extents, a block 340.
func TestExtentTrees(t *testing.T) {
	for _, tc := range []struct{ extents, depth int }{{1, 0}, {4, 0}, {5, 1}, {340, 1}, {341, 1}, {1360, 1}, {1361, 2}, {4000, 2}} {
		var offsets []int64
		for i := range tc.extents {
			offsets = append(offsets, int64(i)*8192)
		}
		entry := func() tree.Entry {
			p := newPieces(int64(tc.extents)*8192, 4096, offsets...)
			return tree.Entry{Path: "file", Kind: tree.File, Mode: 0o600, Size: p.size, Content: p}
		}
		image, _ := create(t, options(256<<20), tree.Of(entry()))
		testenv.SameLines(t, content(t, image), testenv.TreeLines(t, dated(tree.Of(root(), entry())), true))
		n, err := openFS(t, image).Lookup("file", false)
		if err != nil {
			t.Fatal(err)
		}
		if node, err := ext4.DecodeExtents(n.Raw().Block()); err != nil || node.Depth != tc.depth {
			t.Errorf("%d extents: depth %d, %v, want %d", tc.extents, node.Depth, err, tc.depth)
		}
	}
}

// An extent maps 32,768 blocks at most: a run of more is several.
func TestLongRuns(t *testing.T) {
	opts, text := options(1<<30), pattern(300<<20)
	entry := func() tree.Entry { return file("file", text) }
	image, _ := create(t, opts, tree.Of(entry()))
	testenv.SameLines(t, content(t, image), testenv.TreeLines(t, dated(tree.Of(root(), entry())), true))
	n, err := openFS(t, image).Lookup("file", false)
	if err != nil {
		t.Fatal(err)
	}
	node, err := ext4.DecodeExtents(n.Raw().Block())
	if err != nil || node.Depth != 0 {
		t.Fatalf("depth %d, %v", node.Depth, err)
	}
	split := false
	for i := range node.Entries - 1 {
		e, next := node.Extent(i), node.Extent(i+1)
		split = split || e.Len == 32768 && e.Physical+32768 == next.Physical
	}
	if !split {
		t.Error("no run is longer than an extent")
	}
}

// Names on the way that together are longer than any path the kernel takes at once.
func TestPathsLongerThanPathMax(t *testing.T) {
	var list []tree.Entry
	path := ""
	for range 20 {
		path += strings.Repeat("p", 255)
		list = append(list, dir(path))
		path += "/"
	}
	list = append(list, file(path+"end", "deep"), link("near", path+"end"), symlink(path+"link", "/near"))
	image, _ := create(t, options(16<<20), tree.Of(list[len(list)-3], list[len(list)-2], list[len(list)-1]))
	list[len(list)-3].Content = strings.NewReader("deep")
	want := testenv.TreeLines(t, dated(tree.Of(append([]tree.Entry{root()}, list...)...)), true)
	testenv.SameLines(t, content(t, image), want)
	testenv.SameLines(t, mounted(t, image), want)
}

func TestTimesOutsideAreTheNearest(t *testing.T) {
	early, late := file("early", "x"), file("late", "x")
	early.ModTime, late.ModTime = time.Date(1800, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2900, 1, 1, 0, 0, 0, 0, time.UTC)
	image, _ := create(t, options(16<<20), tree.Of(early, late))
	early, late = file("early", "x"), file("late", "x")
	early.ModTime, late.ModTime = time.Unix(-1<<31, 0), time.Unix(1<<34-1<<31-1, 999_999_999)
	testenv.SameLines(t, content(t, image), testenv.TreeLines(t, dated(tree.Of(root(), early, late)), true))
}

func TestSameInputSameBytes(t *testing.T) {
	for _, change := range []func(*write.Options){func(*write.Options) {}, func(o *write.Options) { o.Fit = true }, func(o *write.Options) { o.ReservedGDT = 128 }} {
		opts := options(300 << 20)
		change(&opts)
		first, _ := create(t, opts, tree.Of(everything()...))
		second, _ := create(t, opts, tree.Of(everything()...))
		if out, err := exec.Command(testenv.RequireTool(t, "cmp"), first, second).CombinedOutput(); err != nil {
			t.Errorf("two images of the same tree with %+v: %v\n%s", opts, err, out)
		}
	}
}

func TestReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	there, pointer := filepath.Join(dir, "there"), filepath.Join(dir, "pointer")
	if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(there, pointer); err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{there, pointer, "/dev/null", dir, filepath.Join(dir, "none", "x"), there + "/x"} {
		if _, err := write.CreateFile(t.Context(), out, options(16<<20), tree.Of()); err == nil {
			t.Errorf("made %s", out)
		}
	}
	if b, err := os.ReadFile(there); string(b) != "mine" || err != nil {
		t.Errorf("what was there is now %q, %v", b, err)
	}
	if info, err := os.Lstat("/dev/null"); err != nil || info.Mode().Type()&os.ModeCharDevice == 0 {
		t.Fatalf("/dev/null is now %v, %v", info, err)
	}
}
