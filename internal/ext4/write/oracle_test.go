package write_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"banger/internal/ext4/check"
	"banger/internal/testenv"
	"banger/internal/tree"
)

// failures takes the place of a test to see what it would say.
type failures struct {
	testing.TB
	n int
}

func (f *failures) Errorf(string, ...any) { f.n++ }
func (f *failures) Error(...any)          { f.n++ }
func (f *failures) Helper()               {}

// Every judge of an image finds fault with a damaged one.
func TestJudgesFindDamage(t *testing.T) {
	want := testenv.TreeLines(t, dated(few()), true)
	image, _ := create(t, options(16<<20), few())
	fsys := openFS(t, image)
	group, err := fsys.Group(0)
	if err != nil {
		t.Fatal(err)
	}
	root, err := fsys.Lookup("a", false)
	if err != nil {
		t.Fatal(err)
	}
	block, off, err := fsys.InodeLocation(root.Ino())
	if err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]int64{"block bitmap": int64(group.BlockBitmap())*4096 + 100, "inode bitmap": int64(group.InodeBitmap())*4096 + 1,
		"inode": int64(block)*4096 + int64(off) + 24, "superblock": 1024 + 12, "descriptor": 4096 + 14, "directory entry": firstEntry(t, image, "a") + 8} {
		t.Run(name, func(t *testing.T) {
			f, err := os.OpenFile(image, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			b := make([]byte, 1)
			flip := func() {
				if _, err := f.ReadAt(b, at); err != nil {
					t.Fatal(err)
				}
				b[0] ^= 0x10
				if _, err := f.WriteAt(b, at); err != nil {
					t.Fatal(err)
				}
			}
			flip()
			defer flip()
			found := &failures{TB: t}
			if testenv.CheckExt4(found, image); found.n == 0 {
				t.Error("e2fsck finds nothing")
			}
			if faults, err := check.Check(f, 16<<20, check.Options{}); err == nil && len(faults) == 0 {
				t.Error("our checker finds nothing")
			}
		})
	}
	judge(t, image) // all flips are undone

	for name, src := range map[string]tree.Source{
		"content": tree.Of(dir("a"), dir("a/b"), file("a/b/c", "hellO")), "missing": tree.Of(dir("a"), dir("a/b")),
	} {
		other, _ := create(t, options(16<<20), src)
		for reader, lines := range map[string][]string{"ours": content(t, other), "the kernel": mounted(t, other)} {
			found := &failures{TB: t}
			if testenv.SameLines(found, lines, want); found.n == 0 {
				t.Errorf("%s: comparing what %s reads finds nothing", name, reader)
			}
		}
	}
}

// A directory of the host becomes the same tree as with mke2fs -d, and debugfs reads what we wrote.
func TestAgreesWithMke2fs(t *testing.T) {
	seed := t.TempDir()
	testenv.SampleTree(t, seed)
	image, _ := create(t, options(512<<20), tree.FromDir(seed))
	lines := func(image string) []string { // mke2fs gives the root to root
		return testenv.TreeLines(t, tree.Filter(openFS(t, image).Source("."), func(e *tree.Entry) bool { return e.Path != "." && e.Path != "lost+found" }), false)
	}
	testenv.SameLines(t, lines(image), lines(testenv.Mke2fs(t, 512<<20, "-t", "ext4", "-b", "4096", "-d", seed)))

	dump := t.TempDir()
	testenv.Run(t, "debugfs", "-R", "rdump / "+dump, image)
	files := func(dir string) []string {
		var list []string
		for e, err := range tree.FromDir(dir) {
			switch {
			case err != nil:
				t.Fatal(err)
			case e.Kind == tree.Symlink:
				list = append(list, e.Path+" -> "+e.Link)
			case e.Kind == tree.File && e.Size > 0:
				sum := sha256.New()
				if _, err := io.Copy(sum, e.Content); err != nil {
					t.Fatal(err)
				}
				list = append(list, fmt.Sprintf("%s %o %d:%d %d %x", e.Path, e.Mode, e.UID, e.GID, e.Size, sum.Sum(nil)))
			}
		}
		slices.Sort(list)
		return list
	}
	linked := func(line string) bool { // debugfs makes two files of it
		return strings.HasPrefix(line, "hard ") || strings.HasPrefix(line, "sub/file ")
	}
	testenv.SameLines(t, slices.DeleteFunc(files(dump), linked), slices.DeleteFunc(files(seed), linked))
}
