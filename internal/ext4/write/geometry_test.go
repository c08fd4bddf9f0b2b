package write_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/ext4/write"
	"banger/internal/testenv"
	"banger/internal/tree"
)

const features = "has_journal ext_attr dir_index filetype extent 64bit flex_bg sparse_super large_file huge_file dir_nlink extra_isize metadata_csum"

func few() tree.Source {
	return tree.Of(root(), dir("a"), dir("a/b"), file("a/b/c", "hello"), symlink("a/l", strings.Repeat("x", 100)), file("large", pattern(2<<20)))
}

// header is what dumpe2fs tells of a file system, by the names that it uses.
func header(t testing.TB, image string) map[string]string {
	t.Helper()
	fields := map[string]string{}
	for line := range strings.Lines(testenv.Run(t, "dumpe2fs", "-h", image)) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			fields[name] = strings.TrimSpace(value)
		}
	}
	return fields
}

func TestGeometry(t *testing.T) {
	want := testenv.TreeLines(t, dated(few()), true)
	for _, size := range []int64{8 << 20, 16 << 20, 33 << 20, 64 << 20, 127 << 20, 128 << 20, 128<<20 + 40<<12, 128<<20 + 60<<12, 136 << 20, 257 << 20, 1<<30 + 12345, 2 << 30, 8 << 30, 64 << 30, 1 << 40} {
		for _, opts := range []write.Options{{}, {Fit: true}, {ReservedGDT: 128}, {ReservedGDT: 1016, Fit: true}, {InodeRatio: 8192}, {InodeRatio: 1 << 20}, {JournalBlocks: -1}} {
			if size < 64<<20 && (opts.ReservedGDT == 1016 || opts.InodeRatio == 1<<20) {
				continue // does not fit, or leaves too few inodes
			}
			t.Run(fmt.Sprintf("%d fit=%v gdt=%d ratio=%d journal=%d", size, opts.Fit, opts.ReservedGDT, opts.InodeRatio, opts.JournalBlocks), func(t *testing.T) {
				if size == 1<<40 && !opts.Fit && opts != (write.Options{InodeRatio: 1 << 20}) {
					testenv.RequireTier(t, "smoke", "soak") // the judges need seconds
				}
				full := options(size)
				full.Fit, full.ReservedGDT, full.InodeRatio, full.JournalBlocks = opts.Fit, opts.ReservedGDT, opts.InodeRatio, opts.JournalBlocks
				image, result := create(t, full, few())
				testenv.SameLines(t, content(t, image), want)
				describes(t, image, full, result)
			})
		}
	}
}

// describes compares what dumpe2fs reads with what was asked for and what the writer says.
func describes(t *testing.T, image string, opts write.Options, result write.Result) {
	t.Helper()
	got := header(t, image)
	number := func(name string) int64 {
		n, err := strconv.ParseInt(got[name], 10, 64)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return n
	}
	wantFeatures := features
	if opts.ReservedGDT > 0 {
		wantFeatures = strings.Replace(features, "dir_index", "resize_inode dir_index", 1)
	}
	journal := "64M"
	switch {
	case opts.JournalBlocks < 0:
		wantFeatures, journal = strings.TrimPrefix(wantFeatures, "has_journal "), ""
	case opts.SizeBytes < 64<<20:
		journal = "4096k"
	case opts.SizeBytes < 1<<30:
		journal = "16M"
	}
	if journal != "" && got["Total journal size"] != journal {
		t.Errorf("journal of %s, want %s", got["Total journal size"], journal)
	}
	for name, want := range map[string]string{"Filesystem features": wantFeatures, "Filesystem UUID": "b0010203-0405-0607-0809-0a0b0c0d0e0f", "Filesystem volume name": "test",
		"Filesystem state": "clean", "Errors behavior": "Continue", "Default mount options": "user_xattr acl", "Block size": "4096", "Inode size": "256", "Blocks per group": "32768",
		"Flex block group size": "16", "Group descriptor size": "64", "Default directory hash": "half_md4", "Checksum type": "crc32c", "Maximum mount count": "-1",
		"Reserved block count": "0", "Directory Hash Seed": "09080700-0000-0000-0000-000000000000"} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	blocks := number("Block count")
	if blocks*4096 != result.SizeBytes || !opts.Fit && opts.SizeBytes-result.SizeBytes > 64<<20 || result.SizeBytes > opts.SizeBytes {
		t.Errorf("%d blocks, the writer says %d bytes of %d", blocks, result.SizeBytes, opts.SizeBytes)
	}
	if used := blocks - number("Free blocks"); uint64(used) != result.Blocks {
		t.Errorf("%d blocks in use, the writer says %d", used, result.Blocks)
	}
	if used := number("Inode count") - number("Free inodes"); uint64(used) != result.Inodes || used != 11+5 {
		t.Errorf("%d inodes in use, the writer says %d", used, result.Inodes)
	}
	if opts.Fit && opts.ReservedGDT == 0 && opts.JournalBlocks == 0 && result.SizeBytes > 100<<20 {
		t.Errorf("cut to %d bytes", result.SizeBytes)
	}
}

// Up to the largest one. The judges need some seconds for each TiB, so that at first only the reader looks at most of these.
func TestLargeFileSystems(t *testing.T) {
	want := testenv.TreeLines(t, dated(few()), true)
	for _, tc := range []struct {
		size    int64
		gdt     uint32
		fit     bool
		allowed int64 // bytes of the host
	}{
		{2<<40 + 12345, 1016, false, 100 << 20}, {4 << 40, 0, false, 150 << 20}, {8 << 40, 1016, true, 8 << 20}, {16 << 40, 128, false, 300 << 20},
	} {
		t.Run(fmt.Sprintf("%d gdt=%d fit=%v", tc.size, tc.gdt, tc.fit), func(t *testing.T) {
			opts, image := options(tc.size), filepath.Join(t.TempDir(), "image")
			opts.ReservedGDT, opts.Fit = tc.gdt, tc.fit
			result, err := write.CreateFile(t.Context(), image, opts, few())
			if errors.Is(err, unix.EFBIG) { // as on ext4
				image = filepath.Join(tmpfs(t, 400<<10), "image")
				result, err = write.CreateFile(t.Context(), image, opts, few())
			}
			if err != nil {
				t.Fatal(err)
			}
			testenv.SameLines(t, content(t, image), want)
			if got := allocated(t, image); got > tc.allowed {
				t.Errorf("takes %d bytes of the host", got)
			}
			if !tc.fit {
				testenv.RequireTier(t, "smoke", "soak")
			}
			judge(t, image)
			describes(t, image, opts, result)
		})
	}
}

func TestBlankDisksTakeLittle(t *testing.T) {
	for size, most := range map[int64]int64{8 << 30: 128 << 10, 64 << 30: 640 << 10} {
		image, _ := create(t, options(size), tree.Of())
		if got := allocated(t, image); got > most {
			t.Errorf("%d bytes: takes %d of the host, at most %d", size, got, most)
		}
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	for _, change := range []func(*write.Options){
		func(o *write.Options) { o.SizeBytes = 0 },
		func(o *write.Options) { o.SizeBytes = 4095 },
		func(o *write.Options) { o.SizeBytes = 8<<20 - 1 },
		func(o *write.Options) { o.SizeBytes = 16<<40 + 1 },
		func(o *write.Options) { o.SizeBytes = -1 },
		func(o *write.Options) { o.Label = strings.Repeat("x", 17) },
		func(o *write.Options) { o.ReservedGDT = 1017 },
		func(o *write.Options) { o.InodeRatio = 8191 },
		func(o *write.Options) { o.InodeRatio = 1 << 40 },
		func(o *write.Options) { o.JournalBlocks = 1023 },
		func(o *write.Options) { o.JournalBlocks = 262145 },
		func(o *write.Options) { o.JournalBlocks = 10_000 },
	} {
		opts := options(16 << 20)
		change(&opts)
		image := filepath.Join(t.TempDir(), "image")
		if _, err := write.CreateFile(t.Context(), image, opts, tree.Of()); !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), image) {
			t.Errorf("%+v: %v", opts, err)
		}
		wantGone(t, image)
	}
}
