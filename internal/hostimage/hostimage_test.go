package hostimage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/internal/testenv"
)

func TestSum(t *testing.T) {
	path := testenv.Mke2fs(t, 13<<20, "-t", "ext4")
	img, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	var told []int64
	if err := img.Sum(t.Context(), func(done int64) { told = append(told, done) }); err != nil {
		t.Fatal(err)
	}
	if want := testenv.Run(t, "sha256sum", path); !strings.HasPrefix(want, img.ID.SHA256+" ") {
		t.Errorf("Sum = %s, want %s", img.ID.SHA256, want)
	}
	if len(told) == 0 || !slices.IsSorted(told) || told[len(told)-1] != 13<<20 {
		t.Errorf("told %v", told)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := img.Sum(ctx, func(int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("Sum cancelled: %v", err)
	}
	for _, change := range [][]string{{"touch", path}, {"truncate", "-s", "12M", path}} { // what is cut can't be opened again
		if img, err = Open(path); err != nil {
			t.Fatal(err)
		}
		changed := false
		err := img.Sum(t.Context(), func(int64) {
			if !changed {
				changed = true
				testenv.Run(t, change[0], change[1:]...)
			}
		})
		if !errors.Is(err, banger.ErrConflict) || img.ID.SHA256 != "" {
			t.Errorf("%v: Sum = %v, %q", change, err, img.ID.SHA256)
		}
		img.Close()
	}
}

// What the reader takes as mountable, a kernel mounts as a guest does: type ext4, from a device that can't be written to.
func TestMountable(t *testing.T) {
	for _, args := range [][]string{{"-t", "ext2"}, {"-t", "ext3"}, {"-t", "ext4"}, {"-t", "ext4", "-b", "1024"}, {"-t", "ext4", "-b", "2048"}, {"-t", "ext4", "-I", "128"},
		{"-t", "ext4", "-O", "inline_data"}, {"-t", "ext4", "-O", "ea_inode"}, {"-t", "ext4", "-O", "^has_journal"}, {"-t", "ext4", "-O", "meta_bg,^resize_inode"},
		{"-t", "ext4", "-O", "quota"}, {"-t", "ext4", "-O", "mmp"}, {"-t", "ext4", "-O", "project"}, {"-t", "ext4", "-O", "metadata_csum_seed"},
		{"-t", "ext4", "-O", "large_dir"}, {"-t", "ext4", "-O", "sparse_super2"}, {"-t", "ext4", "-O", "uninit_bg,^metadata_csum"}} {
		name := strings.Join(args, " ")
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o644); err != nil {
			t.Fatal(err)
		}
		path := testenv.Mke2fs(t, 32<<20, append(args, "-d", dir)...)
		img, err := Open(path)
		if err == nil {
			err = errors.Join(img.Mountable(), img.Close())
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if os.Getuid() != 0 {
			testenv.Skip(t, "root")
		}
		mounted := t.TempDir()
		testenv.Run(t, "mount", "-t", "ext4", "-o", "ro,loop", path, mounted)
		if content, err := os.ReadFile(filepath.Join(mounted, "file")); err != nil || string(content) != "content" {
			t.Errorf("%s: the kernel reads %q, %v", name, content, err)
		}
		testenv.Run(t, "umount", mounted)
		img, err = Open(path)
		if err != nil {
			t.Errorf("%s: after a mount: %v", name, err)
			continue
		}
		img.Close()
	}
}

// A file that nobody wrote to is the same at the next Open; what is different is named.
func TestDifferences(t *testing.T) {
	path := testenv.Mke2fs(t, 8<<20, "-t", "ext4")
	first := id(t, path)
	if d := Differences(first, id(t, path)); len(d) > 0 {
		t.Errorf("opened twice: %v", d)
	}
	testenv.Run(t, "tune2fs", "-L", "other", path)
	if d := Differences(first, id(t, path)); !slices.Contains(d, "superblock") || slices.Contains(d, "size") || slices.Contains(d, "inode") {
		t.Errorf("another label: %v", d)
	}
}

func id(t *testing.T, path string) banger.HostFile {
	t.Helper()
	img, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	return img.ID
}
