package check_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"banger/internal/ext4/check"
	"banger/internal/testenv"
)

func checkImage(t testing.TB, image string, opt check.Options) []check.Fault {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	faults, err := check.Check(f, info.Size(), opt)
	if err != nil {
		t.Fatalf("check %s: %v", image, err)
	}
	return faults
}

func wantClean(t testing.TB, image string) {
	t.Helper()
	for i, fault := range checkImage(t, image, check.Options{}) {
		if i == 10 {
			break
		}
		t.Error(fault)
	}
}

var formats = []struct {
	name string
	args []string
}{
	{"ext2", []string{"-b", "4096", "-t", "ext2"}},
	{"ext2 1k", []string{"-t", "ext2", "-b", "1024"}},
	{"no features", []string{"-t", "ext2", "-O", "none,ext_attr", "-b", "1024"}},
	{"ext3", []string{"-t", "ext3", "-b", "2048"}},
	{"ext4", []string{"-b", "4096", "-t", "ext4"}},
	{"ext4 1k", []string{"-t", "ext4", "-b", "1024"}},
	{"ext4 64k", []string{"-t", "ext4", "-b", "65536", "-J", "size=64"}},
	{"debian 13", []string{"-b", "4096", "-t", "ext4", "-O", "metadata_csum_seed,orphan_file"}},
	{"old kernels", []string{"-b", "4096", "-t", "ext4", "-O", "^metadata_csum,uninit_bg,^64bit"}},
	{"meta_bg", []string{"-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024"}},
	{"sparse_super2", []string{"-b", "4096", "-t", "ext4", "-O", "sparse_super2,^resize_inode"}},
	{"inline_data", []string{"-b", "4096", "-t", "ext4", "-O", "inline_data", "-I", "256"}},
	{"small inodes", []string{"-b", "4096", "-t", "ext4", "-I", "128", "-O", "^metadata_csum"}},
	{"ea_inode", []string{"-b", "4096", "-t", "ext4", "-O", "ea_inode,large_dir,quota,project"}},
	{"casefold", []string{"-b", "4096", "-t", "ext4", "-O", "casefold", "-E", "encoding=utf8"}},
	{"no journal", []string{"-b", "4096", "-t", "ext4", "-O", "^has_journal,mmp"}},
}

// What e2fsck calls clean has no fault, however it was made.
func TestNoFaultsInGoodImages(t *testing.T) {
	seed := t.TempDir()
	testenv.SampleTree(t, seed)
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			image := testenv.Mke2fs(t, 256<<20, append(slices.Clone(f.args), "-d", seed)...)
			wantClean(t, image)
			if err := exec.Command("e2fsck", "-fyD", image).Run(); err != nil && err.Error() != "exit status 1" {
				t.Fatal(err)
			}
			wantClean(t, image)
			dir, unmount := testenv.Mount(t, image)
			testenv.Run(t, "sh", "-c", "cd "+dir+` && rm -f sub/many/*7* fragmented && mkdir -p new/deep &&
				for i in $(seq 900); do echo $i > "new/deep/$i and a long name to fill the blocks of the directory"; done && ln hard new/link`)
			unmount()
			testenv.CheckExt4(t, image)
			wantClean(t, image)
		})
	}
}

// A directory with an index of two levels, larger ones with many groups, and one whose names collide.
func TestNoFaultsInLargeImages(t *testing.T) {
	if testing.Short() {
		t.Skipf("needs a minute: -short is set")
	}
	image := testenv.Mke2fs(t, 4<<30, "-t", "ext4", "-b", "1024", "-N", "200000")
	dir, unmount := testenv.Mount(t, image)
	testenv.Run(t, "sh", "-c", "cd "+dir+` && mkdir big && cd big && seq -f "a name of some length so that blocks fill up %g" 30000 | xargs -d '\n' touch`)
	unmount()
	wantClean(t, image)
	if out := testenv.Run(t, "debugfs", "-R", "htree_dump /big", image); !strings.Contains(out, "Indirect levels: 1") {
		t.Errorf("the index has one level only:\n%.300s", out)
	}
}
