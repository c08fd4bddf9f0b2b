package write_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/ext4/write"
	"banger/internal/testenv"
	"banger/internal/tree"
)

func wantGone(t testing.TB, image string) {
	t.Helper()
	if _, err := os.Lstat(image); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left (%v)", image, err)
	}
}

// failing yields entries, then an error.
func failing(err error, entries ...tree.Entry) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
		yield(tree.Entry{}, err)
	}
}

func attributed(name string, size int) tree.Entry {
	e := file("attributed", "x")
	e.Xattrs = map[string][]byte{name: make([]byte, size)}
	return e
}

func TestBadEntries(t *testing.T) {
	unread := &untouched{t: t, pieces: newPieces(100<<20, 50<<20, 1<<20)}
	for _, tc := range []struct {
		name    string
		entries []tree.Entry
		say     string
	}{
		{"empty name", []tree.Entry{file("", "x")}, `""`},
		{"dot", []tree.Entry{file("a/.", "x")}, `"."`},
		{"dot dot", []tree.Entry{file("a/..", "x")}, `".."`},
		{"trailing slash", []tree.Entry{file("a/", "x")}, `"a/"`},
		{"zero byte", []tree.Entry{file("a\x00b", "x")}, "zero byte"},
		{"zero byte on the way", []tree.Entry{file("a\x00b/c", "x")}, `a\x00b`},
		{"long name", []tree.Entry{file(strings.Repeat("n", 256), "x")}, "256 bytes"},
		{"long name on the way", []tree.Entry{file(strings.Repeat("n", 256)+"/x", "x")}, "nnn"},
		{"a file on the way", []tree.Entry{file("a", "x"), file("a/b", "x")}, "no directory"},
		{"the root is a file", []tree.Entry{file(".", "x")}, "root"},
		{"lost+found is a file", []tree.Entry{file("lost+found", "x")}, "lost+found"},
		{"link to nothing", []tree.Entry{link("a", "b")}, `"b"`},
		{"link before its target", []tree.Entry{link("a", "b"), file("b", "x")}, `"b"`},
		{"link to a directory", []tree.Entry{dir("d"), link("a", "d")}, "directory"},
		{"link to what was deleted", []tree.Entry{file("b", "x"), {Path: "b", Kind: tree.Delete}, link("a", "b")}, `"b"`},
		{"symlinks in a circle", []tree.Entry{symlink("a", "b"), symlink("b", "a"), file("a/x", "x")}, "symbolic links"},
		{"empty symlink", []tree.Entry{symlink("a", "")}, "symbolic link"},
		{"long symlink", []tree.Entry{symlink("a", strings.Repeat("x", 4096))}, "4096"},
		{"zero byte in a symlink", []tree.Entry{symlink("a", "x\x00y")}, "zero"},
		{"device", []tree.Entry{{Path: "d", Kind: tree.CharDevice, Major: 4096}}, "4096"},
		{"device minor", []tree.Entry{{Path: "d", Kind: tree.BlockDevice, Minor: 1 << 20}}, "1048576"},
		{"no kind", []tree.Entry{{Path: "d"}}, "kind"},
		{"unknown kind", []tree.Entry{{Path: "d", Kind: 200}}, "kind 200"},
		{"content ends early", []tree.Entry{{Path: "short", Kind: tree.File, Size: 10, Content: strings.NewReader("123")}}, `entry "short": content ends after 3 of 10`},
		{"content of holes ends early", []tree.Entry{{Path: "short", Kind: tree.File, Size: 20_000, Content: &cutOff{newPieces(20_000, 20_000, 0), 9000}}}, `entry "short": content ends after 9000 of 20000`},
		{"negative size", []tree.Entry{{Path: "f", Kind: tree.File, Size: -1}}, "-1"},
		{"larger than files can be", []tree.Entry{{Path: "f", Kind: tree.File, Size: 16 << 40, Content: unread}}, "size"},
		{"more data than there is room, known before", []tree.Entry{{Path: "f", Kind: tree.File, Size: 100 << 20, Content: unread}}, "blocks"},
		{"attribute without a name", []tree.Entry{attributed("user.", 1)}, "user."},
		{"attribute of no known kind", []tree.Entry{attributed("os2.x", 1)}, "os2.x"},
		{"attribute with a long name", []tree.Entry{attributed("user."+strings.Repeat("n", 256), 1)}, "nnn"},
		{"large attribute", []tree.Entry{attributed("user.x", 4096)}, "at most"},
		{"acl that is none", []tree.Entry{attributed("system.posix_acl_access", 7)}, "ACL"},
		{"more inodes than there are", tooMany(), "inodes"},
		{"hole reader that goes back", []tree.Entry{{Path: "f", Kind: tree.File, Size: 1 << 20, Content: &lying{newPieces(1<<20, 1, 0)}}}, "data after"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "image")
			_, err := write.CreateFile(t.Context(), image, options(16<<20), tree.Of(tc.entries...))
			if !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), tc.say) {
				t.Errorf("%v, want one that is invalid with %q", err, tc.say)
			}
			wantGone(t, image)
		})
	}
}

func tooMany() (list []tree.Entry) {
	for i := range 1024 {
		list = append(list, file(fmt.Sprint("f", i), ""))
	}
	return list
}

// untouched must not be read.
type untouched struct {
	*pieces
	t *testing.T
}

func (u *untouched) ReadAt([]byte, int64) (int, error) {
	u.t.Error("data is read that has no room")
	return 0, io.EOF
}

// cutOff ends where it said that data is, as a file does that shrinks meanwhile.
type cutOff struct {
	*pieces
	at int64
}

func (c *cutOff) ReadAt(b []byte, off int64) (int, error) {
	return io.NewSectionReader(c.pieces, 0, c.at).ReadAt(b, off)
}

// lying says that its data begins before where it was asked from.
type lying struct{ *pieces }

func (l *lying) NextData(off int64) (start, end int64, err error) {
	if off > 0 {
		return off - 1, off, nil
	}
	return 0, 4096, nil
}

// A file that grows while it is read is as large as it was said to be.
func TestContentBeyondItsSizeIsLeft(t *testing.T) {
	rest := strings.NewReader("1234567890")
	image, _ := create(t, options(16<<20), tree.Of(tree.Entry{Path: "plain", Kind: tree.File, Size: 4, Content: rest},
		tree.Entry{Path: "with holes", Kind: tree.File, Size: 5000, Content: newPieces(1<<20, 1<<20, 0)}))
	if rest.Len() != 6 {
		t.Errorf("%d bytes are left of the content", rest.Len())
	}
	fsys := openFS(t, image)
	for path, size := range map[string]int64{"plain": 4, "with holes": 5000} {
		if n, err := fsys.Lookup(path, false); err != nil || n.Size() != size {
			t.Errorf("%s: %v, %v", path, n, err)
		}
	}
}

func TestNoRoomSaysWhatHelps(t *testing.T) {
	for _, tc := range []struct {
		entries []tree.Entry
		say     string
	}{{[]tree.Entry{file("big/file", pattern(20<<20))}, `entry "big/file"`}, {[]tree.Entry{attributed("user.x", 1), file("f", pattern(16<<20))}, `entry "f"`}, {tooMany(), `entry "f1`}} {
		_, err := write.CreateFile(t.Context(), filepath.Join(t.TempDir(), "image"), options(16<<20), tree.Of(tc.entries...))
		if hint := banger.HintOf(err); hint != "choose a larger size" || !strings.Contains(err.Error(), tc.say) {
			t.Errorf("%v, hint %q", err, hint)
		}
	}
}

func TestErrorsOfTheSource(t *testing.T) {
	image, sad := filepath.Join(t.TempDir(), "image"), errors.New("sad")
	for name, src := range map[string]tree.Source{
		"between entries": failing(sad, file("a", "x")),
		"in content":      tree.Of(tree.Entry{Path: "a", Kind: tree.File, Size: 10, Content: io.MultiReader(strings.NewReader("123"), failingReader{sad})}),
	} {
		if _, err := write.CreateFile(t.Context(), image, options(16<<20), src); !errors.Is(err, sad) {
			t.Errorf("%s: %v", name, err)
		}
		wantGone(t, image)
	}
	conflict := &banger.Error{Kind: banger.ErrConflict, Err: sad}
	if _, err := write.CreateFile(t.Context(), image, options(16<<20), failing(conflict)); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("%v is not the source's conflict", err)
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

func TestInterruptionLeavesNothing(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	for stop := range 6 {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		src := tree.Filter(tree.Of(file("0", "x"), file("1", pattern(6<<20)), file("2", "x"), file("3", pattern(9<<20)), file("4", "x"), file("5", "x")), func(*tree.Entry) bool {
			if n == stop {
				cancel()
			}
			n++
			return true
		})
		if _, err := write.CreateFile(ctx, image, options(64<<20), src); !errors.Is(err, banger.ErrInterrupted) {
			t.Errorf("interrupted at entry %d: %v", stop, err)
		}
		wantGone(t, image)
		cancel()
	}
}

func TestLinksUpToTheLimit(t *testing.T) {
	list := []tree.Entry{file("f", "x")}
	for i := range 64_999 {
		list = append(list, link(fmt.Sprintf("links/%d", i), "f"))
	}
	image, _ := create(t, options(64<<20), tree.Of(list...))
	if n, err := openFS(t, image).Lookup("f", false); err != nil || n.Stat().Links != 65_000 {
		t.Errorf("%d links, %v", n.Stat().Links, err)
	}
	image = filepath.Join(t.TempDir(), "image")
	_, err := write.CreateFile(t.Context(), image, options(64<<20), tree.Of(append(list[:0:0], append([]tree.Entry{file("f", "x")}, append(list[1:], link("more", "f"))...)...)...))
	if !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), "65000 links") {
		t.Errorf("one more: %v", err)
	}
	wantGone(t, image)
}

func TestFillsTheDiskToTheLastBlock(t *testing.T) {
	// What is left when all else is there, found out with a first image.
	_, result := create(t, options(16<<20), tree.Of())
	room := result.SizeBytes - int64(result.Blocks)*4096
	image, result := create(t, options(16<<20), tree.Of(file("all", pattern(int(room)))))
	if free := result.SizeBytes/4096 - int64(result.Blocks); free != 0 {
		t.Errorf("%d blocks are free", free)
	}
	testenv.SameLines(t, content(t, image), testenv.TreeLines(t, dated(tree.Of(root(), file("all", pattern(int(room))))), true))
	image = filepath.Join(t.TempDir(), "image")
	if _, err := write.CreateFile(t.Context(), image, options(16<<20), tree.Of(file("all", pattern(int(room)+1)))); !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), "blocks") {
		t.Errorf("one byte more: %v", err)
	}
	wantGone(t, image)
}
