package sparse_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/sparse"
	"banger/internal/testenv"
)

type piece struct {
	off, size int64
}

// file makes a file of this size with data that is not zero in these places.
func file(t *testing.T, dir string, size int64, pieces ...piece) string {
	t.Helper()
	name := filepath.Join(dir, "source")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range pieces {
		if _, err := f.WriteAt(bytes.Repeat([]byte("banger!"), int(p.size/7)+1)[:p.size], p.off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return name
}

// allocated is what a file takes up, in bytes.
func allocated(t *testing.T, name string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// sum is of the first size bytes, and of the rest apart.
func sum(t *testing.T, name string, size int64) (head [32]byte, restIsZero bool) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.CopyN(hash, f, size); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return [32]byte(hash.Sum(nil)), len(bytes.Trim(rest, "\x00")) == 0
}

func TestCopyKeepsContentAndHoles(t *testing.T) {
	for _, c := range []struct {
		name   string
		size   int64
		grown  int64
		pieces []piece
	}{
		{"empty", 0, 0, nil},
		{"one byte", 1, 0, []piece{{0, 1}}},
		{"only a hole", 100 << 20, 0, nil},
		{"dense", 3<<20 + 5, 0, []piece{{0, 3<<20 + 5}}},
		{"ends in a hole", 64 << 20, 0, []piece{{0, 5000}}},
		{"ends in data", 64<<20 + 9, 0, []piece{{64<<20 - 1, 10}}},
		{"many", 64 << 20, 0, []piece{{4096, 1}, {1 << 20, 70_000}, {33<<20 + 17, 2 << 20}, {60 << 20, 4 << 20}}},
		{"grown", 1<<20 + 1, 8 << 20, []piece{{0, 1<<20 + 1}}},
		{"empty and grown", 0, 8 << 20, nil},
		{"grown to its own size", 4096, 4096, []piece{{0, 4096}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			src, dst := file(t, dir, c.size, c.pieces...), filepath.Join(dir, "copy")
			last := int64(-1)
			opts := sparse.Options{SizeBytes: c.grown, Sync: true, Progress: func(done, total int64) {
				if done < last || total != c.size {
					t.Errorf("progress: %d of %d after %d", done, total, last)
				}
				last = done
			}}
			if err := sparse.Copy(t.Context(), dst, src, opts); err != nil {
				t.Fatal(err)
			}
			info, err := os.Lstat(dst)
			if err != nil || info.Mode() != 0o600 || info.Size() != max(c.size, c.grown) || last != c.size {
				t.Errorf("the copy is %v with %d bytes, progress ended at %d: %v", info.Mode(), info.Size(), last, err)
			}
			want, _ := sum(t, src, c.size)
			if got, zero := sum(t, dst, c.size); got != want || !zero {
				t.Error("the content differs")
			}
			if from, to := allocated(t, src), allocated(t, dst); to > from+64<<10 {
				t.Errorf("the copy takes up %d bytes, the source %d", to, from)
			}
		})
	}
}

func TestHugeSparseFilesCopyInNoTime(t *testing.T) {
	dir := t.TempDir()
	src, dst := file(t, dir, 8<<40, piece{5 << 40, 1}), filepath.Join(dir, "copy")
	if err := sparse.Copy(t.Context(), dst, src, sparse.Options{}); err != nil {
		t.Fatal(err)
	}
	if n := allocated(t, dst); n == 0 || n > 1<<20 {
		t.Errorf("the copy takes up %d bytes", n)
	}
}

func TestWrittenZerosBecomeHoles(t *testing.T) {
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "source"), filepath.Join(dir, "copy")
	content := make([]byte, 8<<20)
	content[3<<20] = 1
	if err := os.WriteFile(src, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := sparse.Copy(t.Context(), dst, src, sparse.Options{}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(dst)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("the content differs: %v", err)
	}
	if n := allocated(t, dst); n > allocated(t, src) || n > 256<<10 && n != allocated(t, src) {
		t.Errorf("the copy takes up %d bytes", n)
	}
}

func TestRefusalsLeaveEverythingAsItWas(t *testing.T) {
	dir := t.TempDir()
	src := file(t, dir, 10_000, piece{0, 10_000})
	taken, link, pipe := filepath.Join(dir, "taken"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(taken, []byte("mine"), 0o640), os.Symlink("victim", link), unix.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name     string
		ctx      context.Context
		dst, src string
		size     int64
		want     error
	}{
		{"taken", t.Context(), taken, src, 0, banger.ErrConflict},
		{"onto itself", t.Context(), src, src, 0, banger.ErrConflict},
		{"a symlink", t.Context(), link, src, 0, banger.ErrConflict},
		{"no source", t.Context(), filepath.Join(dir, "new"), filepath.Join(dir, "none"), 0, banger.ErrNotFound},
		{"no directory", t.Context(), filepath.Join(dir, "none", "new"), src, 0, banger.ErrNotFound},
		{"a FIFO", t.Context(), filepath.Join(dir, "new"), pipe, 0, banger.ErrInvalid},
		{"a directory", t.Context(), filepath.Join(dir, "new"), dir, 0, banger.ErrInvalid},
		{"a device", t.Context(), filepath.Join(dir, "new"), "/dev/zero", 0, banger.ErrInvalid},
		{"smaller", t.Context(), filepath.Join(dir, "new"), src, 9_999, banger.ErrInvalid},
		{"negative", t.Context(), filepath.Join(dir, "new"), src, -1, banger.ErrInvalid},
		{"cancelled", cancelled, filepath.Join(dir, "new"), src, 0, banger.ErrInterrupted},
		{"larger than any file", t.Context(), filepath.Join(dir, "new"), src, 1<<63 - 1, banger.ErrUnavailable},
	} {
		if err := sparse.Copy(c.ctx, c.dst, c.src, sparse.Options{SizeBytes: c.size}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	onlyNames(t, dir, "link", "pipe", "source", "taken")
	if got, err := os.ReadFile(taken); err != nil || string(got) != "mine" {
		t.Errorf("the file that was there is %q: %v", got, err)
	}
}

func onlyNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("left: %q, want %q", got, want)
	}
}

// tmpfs has no shared blocks and no more room than this.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		testenv.Skip(t, "root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs tmpfs mounts: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestInterruptionLeavesNothing(t *testing.T) {
	src := file(t, t.TempDir(), 16<<20, piece{0, 16 << 20})
	dir := tmpfs(t, "32m")
	for calls := 1; calls <= 3; calls++ {
		ctx, cancel := context.WithCancel(t.Context())
		seen := 0
		err := sparse.Copy(ctx, filepath.Join(dir, "copy"), src, sparse.Options{Progress: func(int64, int64) {
			if seen++; seen == calls {
				cancel()
			}
		}})
		if !errors.Is(err, banger.ErrInterrupted) || seen != calls {
			t.Errorf("interrupted at %d, ended at %d: %v", calls, seen, err)
		}
		onlyNames(t, dir)
		cancel()
	}
}

func TestFullDiskLeavesNothing(t *testing.T) {
	src := file(t, t.TempDir(), 16<<20, piece{0, 16 << 20})
	dir := tmpfs(t, "4m")
	err := sparse.Copy(t.Context(), filepath.Join(dir, "copy"), src, sparse.Options{})
	if !errors.Is(err, banger.ErrUnavailable) || !errors.Is(err, unix.ENOSPC) || banger.HintOf(err) == "" {
		t.Errorf("got %v, want ErrUnavailable for ENOSPC with a hint", err)
	}
	onlyNames(t, dir)
}

func TestChangedSourceIsNoCopy(t *testing.T) {
	dir := tmpfs(t, "32m")
	for _, size := range []int64{0, 5<<20 + 1, 32 << 20} {
		src := file(t, t.TempDir(), 16<<20, piece{0, 16 << 20})
		err := sparse.Copy(t.Context(), filepath.Join(dir, "copy"), src, sparse.Options{Progress: func(done, _ int64) {
			if done == 1<<20 {
				if err := os.Truncate(src, size); err != nil {
					t.Error(err)
				}
			}
		}})
		if !errors.Is(err, banger.ErrConflict) {
			t.Errorf("cut to %d: %v, want ErrConflict", size, err)
		}
		onlyNames(t, dir)
	}
}

// A file that another put in place of the copy is not removed with it.
func TestRemovesOnlyItsOwn(t *testing.T) {
	src := file(t, t.TempDir(), 4<<20, piece{0, 4 << 20})
	dir := tmpfs(t, "32m")
	dst := filepath.Join(dir, "copy")
	ctx, cancel := context.WithCancel(t.Context())
	err := sparse.Copy(ctx, dst, src, sparse.Options{Progress: func(int64, int64) {
		if ctx.Err() == nil {
			cancel()
			if err := errors.Join(os.Remove(dst), os.WriteFile(dst, []byte("other"), 0o644)); err != nil {
				t.Error(err)
			}
		}
	}})
	if !errors.Is(err, banger.ErrInterrupted) {
		t.Error(err)
	}
	if got, err := os.ReadFile(dst); err != nil || string(got) != "other" {
		t.Errorf("the other's file is %q: %v", got, err)
	}
}

// Where blocks are shared, a copy takes up none of its own.
func TestBlocksAreShared(t *testing.T) {
	testenv.RequireTool(t, "mkfs.xfs")
	if os.Getuid() != 0 {
		testenv.Skip(t, "root")
	}
	image := file(t, t.TempDir(), 512<<20)
	testenv.Run(t, "mkfs.xfs", "-q", "-m", "reflink=1", image)
	dir, _ := testenv.Mount(t, image)
	src := file(t, dir, 64<<20, piece{0, 64 << 20})
	var before, after unix.Statfs_t
	if err := unix.Statfs(dir, &before); err != nil {
		t.Fatal(err)
	}
	if err := sparse.Copy(t.Context(), filepath.Join(dir, "copy"), src, sparse.Options{SizeBytes: 65 << 20, Sync: true}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Statfs(dir, &after); err != nil {
		t.Fatal(err)
	}
	if used := int64(before.Bfree-after.Bfree) * before.Bsize; used > 4<<20 {
		t.Errorf("the copy takes up %d bytes", used)
	}
	want, _ := sum(t, src, 64<<20)
	if got, zero := sum(t, filepath.Join(dir, "copy"), 64<<20); got != want || !zero {
		t.Error("the content differs")
	}
}
