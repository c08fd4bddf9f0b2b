// Package hostimage opens ext4 images of the user's that banger reads or boots where they lie. It knows each again, and tells
// when one is not as it was.
package hostimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/ext4"
	"banger/internal/ext4/read"
)

// Image is an ext4 image, open for reading.
type Image struct {
	*read.FS
	ID   banger.HostFile // as it was at Open; SHA256 is empty until Sum
	file *os.File
}

// Open opens the image at path. It must have been unmounted.
// Errors: ErrNotFound; ErrUnavailable when it may not be read; ErrInvalid when it is no regular file; ErrUnsupported for what is no
// ext4 file system, or has a feature that banger does not know; ErrConflict when it was not unmounted; ErrCorrupt.
func Open(path string) (*Image, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not wait for its writer
	if err != nil {
		return nil, FileError(err)
	}
	img := &Image{file: file}
	if img.ID, err = identify(file, path); err == nil {
		img.FS, err = read.Open(file, img.ID.SizeBytes)
	}
	if err == nil {
		err = unmounted(img.Super(), path)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return img, nil
}

// Close ends all reading.
func (i *Image) Close() error { return i.file.Close() }

// identify tells which file this is and what state it is in.
func identify(file *os.File, path string) (id banger.HostFile, err error) {
	info, err := file.Stat()
	if err != nil {
		return id, err
	}
	if !info.Mode().IsRegular() {
		return id, banger.Invalidf("it is no regular file")
	}
	st := info.Sys().(*syscall.Stat_t)
	super := make([]byte, ext4.SuperSize)
	if _, err := file.ReadAt(super, ext4.SuperOffset); err != nil && !errors.Is(err, io.EOF) {
		return id, err
	}
	sum := sha256.Sum256(super)
	return banger.HostFile{Path: path, SizeBytes: info.Size(), ModTime: info.ModTime().UTC(), ChangeTime: time.Unix(st.Ctim.Unix()).UTC(),
		Device: st.Dev, Inode: st.Ino, Superblock: hex.EncodeToString(sum[:])}, nil
}

// Bits of a superblock's state.
const (
	stateClean  = 1
	stateErrors = 2
)

// unmounted refuses a file system that is mounted, or that a kernel would have to write to before it is whole.
func unmounted(sb *ext4.Superblock, path string) error {
	what := ""
	switch {
	case sb.Incompat&ext4.IncompatRecover != 0:
		what = "its file system is mounted, or its journal needs recovery"
	case sb.State&stateClean == 0:
		what = "its file system is mounted, or was not unmounted"
	case sb.State&stateErrors != 0:
		what = "its file system has errors"
	case sb.LastOrphan != 0 || sb.ROCompat&ext4.ROCompatOrphanPresent != 0:
		what = "its file system has files that were deleted while in use"
	default:
		return nil
	}
	return &banger.Error{Kind: banger.ErrConflict, Err: errors.New(what), Hint: "unmount it, or if nothing has it mounted: e2fsck -f " + path}
}

// Mountable refuses what guests' kernels can't mount, or can't have below an overlay. Errors: ErrUnsupported.
func (i *Image) Mountable() error {
	const pageSize = 4096
	what, sb := "", i.Super()
	switch {
	case sb.BlockSize > pageSize:
		what = fmt.Sprintf("machines can't mount a file system with blocks of %d bytes", sb.BlockSize)
	case sb.Compat&ext4.CompatJournal != 0 && sb.JournalIno == 0:
		what = "machines can't mount a file system whose journal is on another device"
	case sb.Incompat&ext4.IncompatCasefold != 0:
		what = "machines can't have a file system with the feature casefold below their own"
	default:
		return nil
	}
	return &banger.Error{Kind: banger.ErrUnsupported, Err: errors.New(what), Hint: "banger image import makes one of the same files that they can"}
}

// Sum reads the whole file and sets ID.SHA256. Errors: ErrConflict when the file changes meanwhile; ctx's.
func (i *Image) Sum(ctx context.Context, report func(done int64)) error {
	const step = 4 << 20
	sum, buffer := sha256.New(), make([]byte, step)
	for off := int64(0); off < i.ID.SizeBytes; off += step {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := buffer[:min(step, i.ID.SizeBytes-off)]
		if _, err := i.file.ReadAt(part, off); errors.Is(err, io.EOF) {
			return changed()
		} else if err != nil {
			return err
		}
		sum.Write(part)
		report(off + int64(len(part)))
	}
	if err := i.Unchanged(); err != nil {
		return err
	}
	i.ID.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return nil
}

// Unchanged tells whether the open file is as it was at Open. Errors: ErrConflict.
func (i *Image) Unchanged() error {
	now, err := identify(i.file, i.ID.Path)
	if err == nil && len(Differences(i.ID, now)) > 0 {
		err = changed()
	}
	return err
}

func changed() error {
	return &banger.Error{Kind: banger.ErrConflict, Err: errors.New("it changed while it was read"), Hint: "unmount it, and stop what writes to it"}
}

// Differences names what is not as it was, but for path and content.
func Differences(want, got banger.HostFile) (list []string) {
	for _, part := range []struct {
		name string
		same bool
	}{
		{"size", want.SizeBytes == got.SizeBytes},
		{"superblock", want.Superblock == got.Superblock},
		{"modification time", want.ModTime.Equal(got.ModTime)},
		{"change time", want.ChangeTime.Equal(got.ChangeTime)},
		{"inode", want.Inode == got.Inode},
		{"device", want.Device == got.Device},
	} {
		if !part.same {
			list = append(list, part.name)
		}
	}
	return list
}

// Is tells whether a file may hold an ext4 file system.
func Is(file io.ReaderAt) bool {
	super := make([]byte, ext4.SuperSize)
	_, err := file.ReadAt(super, ext4.SuperOffset)
	return err == nil && ext4.HasMagic(super)
}

// FileError gives an error about a file of the user's its kind.
func FileError(err error) error {
	kind := banger.ErrUnavailable
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		kind = banger.ErrNotFound
	}
	if at, ok := errors.AsType[*os.PathError](err); ok {
		err = at.Err
	}
	return &banger.Error{Kind: kind, Err: err}
}
