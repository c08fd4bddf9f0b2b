package write_test

import (
	"os"
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
		"inode": int64(block)*4096 + int64(off) + 24, "superblock": 1024 + 12, "descriptor": 4096 + 14} {
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
