// Package sparse copies files with their holes: it shares blocks where the file system can, and else copies only data.
package sparse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger"
)

// Options of a copy. The zero value keeps the size and does not wait for the host's disk.
type Options struct {
	SizeBytes int64                   // the copy's size, grown by a hole; 0: the source's
	Sync      bool                    // content and name survive a power cut once Copy has returned
	Progress  func(done, total int64) // bytes of the source that are behind, holes included; may be nil
}

// Copy makes dst, which is not there yet, a copy of the regular file src with mode 0600. Holes stay holes and long runs of
// zeros become some. On error, and when ctx ends, nothing is left of dst. Errors: ErrInvalid when src is no regular file or
// larger than SizeBytes, ErrNotFound, ErrConflict when dst is there or src changes meanwhile, ErrInterrupted, ErrUnavailable
// when the host has no room.
func Copy(ctx context.Context, dst, src string, opts Options) error {
	if opts.Progress == nil {
		opts.Progress = func(int64, int64) {}
	}
	return describe(dst, src, copyFile(ctx, dst, src, opts))
}

func copyFile(ctx context.Context, dst, src string, opts Options) (err error) {
	// Without O_NONBLOCK a FIFO would wait for its writer.
	from, err := os.OpenFile(src, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	info, err := from.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return banger.Invalidf("the source is no regular file")
	case opts.SizeBytes < 0 || opts.SizeBytes > 0 && opts.SizeBytes < info.Size():
		return banger.Invalidf("a copy of %d bytes cannot hold the source's %d", opts.SizeBytes, info.Size())
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	to, err := os.OpenFile(dst, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeOwn(dst, to))
		}
		err = errors.Join(err, to.Close())
	}()
	if err := fill(ctx, to, from, info, opts); err != nil || !opts.Sync {
		return err
	}
	if err := to.Sync(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dst))
}

func fill(ctx context.Context, to, from *os.File, info os.FileInfo, opts Options) error {
	size := info.Size()
	shared, err := clone(to, from)
	if err == nil && !shared {
		err = copyData(ctx, to, from, size, opts.Progress)
	}
	if err == nil {
		err = to.Truncate(max(size, opts.SizeBytes))
	}
	if err != nil {
		return err
	}
	now, err := from.Stat()
	if err != nil {
		return err
	}
	if now.Size() != size || !now.ModTime().Equal(info.ModTime()) {
		return errChanged
	}
	opts.Progress(size, size)
	return ctx.Err()
}

var errChanged = &banger.Error{Kind: banger.ErrConflict, Err: errors.New("the source changed while it was copied")}

// clone lets the copy share the source's blocks, if the file system of both can.
func clone(to, from *os.File) (bool, error) {
	err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd()))
	for _, unable := range []error{unix.EOPNOTSUPP, unix.ENOTTY, unix.EXDEV, unix.EINVAL, unix.ENOSYS, unix.EPERM} {
		if errors.Is(err, unable) {
			return false, nil
		}
	}
	if err != nil {
		return false, fmt.Errorf("share blocks: %w", err)
	}
	return true, nil
}

const (
	bufferSize = 1 << 20
	pieceSize  = 64 << 10 // zeros shorter than this are copied, so that a copy is not in more pieces than it pays
)

// copyData uses no copy_file_range: it fills holes, and is slower than this where it cannot share blocks.
func copyData(ctx context.Context, to, from *os.File, size int64, progress func(done, total int64)) error {
	buffer := make([]byte, bufferSize)
	for off := int64(0); off < size; {
		start, end, err := nextData(from, off, size)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for off = start; off < end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			data := buffer[:min(end-off, bufferSize)]
			if _, err := from.ReadAt(data, off); err == io.EOF {
				return errChanged
			} else if err != nil {
				return err
			}
			if err := writeFilled(to, data, off); err != nil {
				return err
			}
			off += int64(len(data))
			progress(off, size)
		}
	}
	return nil
}

// nextData gives the first range of data at or after off. Errors: io.EOF when only a hole is left.
func nextData(f *os.File, off, size int64) (start, end int64, err error) {
	start, err = unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return 0, 0, io.EOF
	case errors.Is(err, unix.EINVAL): // nothing is known of holes
		return off, size, nil
	case err != nil:
		return 0, 0, os.NewSyscallError("lseek", err)
	}
	if end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE); errors.Is(err, unix.ENXIO) {
		return 0, 0, errChanged
	} else if err != nil {
		return 0, 0, os.NewSyscallError("lseek", err)
	}
	return start, min(end, size), nil
}

var zeros [pieceSize]byte

// writeFilled writes what is not zero of data.
func writeFilled(to *os.File, data []byte, off int64) error {
	for len(data) > 0 {
		n, empty := run(data)
		if !empty {
			if _, err := to.WriteAt(data[:n], off); err != nil {
				return err
			}
		}
		data = data[n:]
		off += int64(n)
	}
	return nil
}

// run measures how far the pieces that data begins with are all zero, or all not.
func run(data []byte) (n int, empty bool) {
	for n < len(data) {
		piece := data[n:min(n+pieceSize, len(data))]
		zero := bytes.Equal(piece, zeros[:len(piece)])
		if n > 0 && zero != empty {
			break
		}
		empty = zero
		n += len(piece)
	}
	return n, empty
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

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// describe gives err both paths and a kind.
func describe(dst, src string, err error) error {
	if err == nil {
		return nil
	}
	described := &banger.Error{Kind: banger.KindByName(banger.KindName(err)), Op: "copy", Subject: src + " to " + dst, Err: err}
	switch {
	case described.Kind != nil:
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		described.Kind = banger.ErrInterrupted
	case errors.Is(err, os.ErrExist):
		described.Kind = banger.ErrConflict
	case errors.Is(err, os.ErrNotExist):
		described.Kind = banger.ErrNotFound
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG), errors.Is(err, unix.EROFS):
		described.Kind, described.Hint = banger.ErrUnavailable, "make space on the file system of "+filepath.Dir(dst)
	}
	return described
}

// Fill writes all that r gives to f, which is empty, and leaves holes where long runs of zeros are. It gives the size. Errors are those
// of r, f and ctx.
func Fill(ctx context.Context, f *os.File, r io.Reader) (size int64, err error) {
	buffer := make([]byte, bufferSize)
	for {
		if err := ctx.Err(); err != nil {
			return size, err
		}
		n, err := io.ReadFull(r, buffer)
		if writeErr := writeFilled(f, buffer[:n], size); writeErr != nil {
			return size, writeErr
		}
		size += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return size, err
		}
	}
	return size, f.Truncate(size)
}
