// Package write makes an ext4 file system with its content in one pass, in a sparse regular file.
//
// layout.go computes where metadata goes, data.go streams content through one buffer with a bump allocator, add.go and
// node.go keep the tree in memory, dir.go, extent.go, xattr.go and inode.go render it, finish.go writes bitmaps,
// descriptors and superblocks. The same input and options give the same bytes.
//
// Format: https://docs.kernel.org/filesystems/ext4/
package write

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/tree"
)

// Options is what a file system is made with. UUID, HashSeed and Time decide its bytes: nothing is random.
type Options struct {
	SizeBytes      int64 // from 8 MiB to 16 TiB, rounded down to blocks; with Fit an upper bound
	Fit            bool  // cut the file system to what was used
	UUID, HashSeed [16]byte
	Label          string    // at most 16 bytes
	Time           time.Time // of the superblock, and of entries without one; zero: the epoch
	JournalBlocks  int32     // of 4 KiB; 0: 64 MiB, less below 1 GiB; negative: no journal
	ReservedGDT    uint32    // descriptor blocks kept for growth through resize_inode; kernels grow without as well
	InodeRatio     int64     // bytes per inode; 0: 16384
	Sync           bool      // fsync the file and its directory
}

// Result tells what was made.
type Result struct {
	SizeBytes    int64
	Inodes       uint64 // used, the reserved ones too
	Blocks       uint64 // used
	BytesWritten int64
}

// CreateFile makes path with mode 0600 from the entries of src. Errors: ErrConflict when path exists, ErrInvalid naming the
// entry or the option, ErrUnavailable when the host has no room. After an error the file is gone.
func CreateFile(ctx context.Context, path string, opts Options, src tree.Source) (result Result, err error) {
	defer func() { err = describe(path, err) }()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return Result{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeOwn(path, f))
		}
		err = errors.Join(err, f.Close())
	}()
	if result, err = fill(ctx, f, opts, src); err != nil || !opts.Sync {
		return result, err
	}
	if err := f.Sync(); err != nil {
		return result, err
	}
	return result, atomicfile.SyncDir(filepath.Dir(path))
}

// removeOwn removes path unless it is another file by now.
func removeOwn(path string, f *os.File) error {
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	if there, err := os.Lstat(path); err != nil || !os.SameFile(mine, there) {
		return nil
	}
	return os.Remove(path)
}

func fill(ctx context.Context, f *os.File, opts Options, src tree.Source) (result Result, err error) {
	w, err := newWriter(ctx, f, opts)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, w.wait()) }()
	for entry, err := range src {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = w.add(entry)
		}
		if err != nil {
			return Result{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	return w.finish()
}

// describe gives err the image's path and a kind.
func describe(path string, err error) error {
	if err == nil {
		return nil
	}
	kind := banger.KindByName(banger.KindName(err))
	switch {
	case kind != nil:
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		kind = banger.ErrInterrupted
	case errors.Is(err, os.ErrExist), errors.Is(err, unix.ELOOP):
		kind = banger.ErrConflict
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG), errors.Is(err, unix.EROFS):
		return &banger.Error{Kind: banger.ErrUnavailable, Op: "write file system", Subject: path, Err: err, Hint: "make space on the file system of " + filepath.Dir(path)}
	}
	return &banger.Error{Kind: kind, Op: "write file system", Subject: path, Err: err}
}

// bad is a fault of an entry.
func bad(path, format string, args ...any) error {
	return banger.Invalidf("entry %q: %w", path, fmt.Errorf(format, args...))
}

// full says that the file system is too small.
func full(what string) error {
	return &banger.Error{Kind: banger.ErrInvalid, Hint: "choose a larger size", Err: fmt.Errorf("the file system has no %s left", what)}
}
