package image

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

// Bits of a superblock's state.
const (
	stateClean  = 1
	stateErrors = 2
)

// hostImage is an ext4 image of the user's, open for reading.
type hostImage struct {
	*read.FS
	file *os.File
	id   banger.HostFile // without SHA256
}

// openHostImage opens the image at path, which a guest could mount read-only.
// Errors: ErrNotFound, ErrUnavailable when it may not be read, ErrInvalid when it is no file, ErrUnsupported, ErrConflict when it
// was not unmounted, ErrCorrupt.
func openHostImage(path string) (*hostImage, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not wait for its writer
	if err != nil {
		return nil, hostError(err)
	}
	img := &hostImage{file: file}
	if err := img.open(path); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return img, nil
}

func (i *hostImage) Close() error { return i.file.Close() }

func (i *hostImage) open(path string) (err error) {
	if i.id, err = identify(i.file, path); err != nil {
		return err
	}
	if i.FS, err = read.Open(i.file, i.id.SizeBytes); err != nil {
		return err
	}
	return unmounted(i.FS.Super(), path)
}

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
	id = banger.HostFile{Path: path, SizeBytes: info.Size(), ModTime: info.ModTime().UTC(), ChangeTime: time.Unix(st.Ctim.Unix()).UTC(), Device: st.Dev, Inode: st.Ino}
	super := make([]byte, ext4.SuperSize)
	if _, err := file.ReadAt(super, ext4.SuperOffset); err != nil && !errors.Is(err, io.EOF) {
		return id, err
	}
	sum := sha256.Sum256(super)
	id.Superblock = hex.EncodeToString(sum[:])
	return id, nil
}

// unmounted refuses a file system that is mounted, was not unmounted, or can only be used after its kernel has written to it.
func unmounted(sb *ext4.Superblock, path string) error {
	unclean := func(what string) error {
		return &banger.Error{Kind: banger.ErrConflict, Err: errors.New(what), Hint: "unmount it, or if nothing has it mounted: e2fsck -f " + path}
	}
	switch {
	case sb.Incompat&ext4.IncompatRecover != 0:
		return unclean("its file system is mounted, or its journal needs recovery")
	case sb.State&stateClean == 0:
		return unclean("its file system is mounted, or was not unmounted")
	case sb.State&stateErrors != 0:
		return unclean("its file system has errors")
	case sb.LastOrphan != 0 || sb.ROCompat&ext4.ROCompatOrphanPresent != 0:
		return unclean("its file system has files that were deleted while in use")
	}
	return nil
}

// mountable refuses what guests' kernels can't mount, or can't have below an overlay.
func mountable(sb *ext4.Superblock) error {
	const pageSize = 4096
	refuse := func(what string) error {
		return &banger.Error{Kind: banger.ErrUnsupported, Err: errors.New(what), Hint: "banger image import copies it into an image that can"}
	}
	switch {
	case sb.BlockSize > pageSize:
		return refuse(fmt.Sprintf("machines can't mount a file system with blocks of %d bytes", sb.BlockSize))
	case sb.Compat&ext4.CompatJournal != 0 && sb.JournalIno == 0:
		return refuse("machines can't mount a file system whose journal is on another device")
	case sb.Incompat&ext4.IncompatCasefold != 0:
		return refuse("machines can't have a file system with the feature casefold below their own")
	}
	return nil
}

// sum computes the SHA-256 of the whole file.
func (i *hostImage) sum(ctx context.Context, report func(done int64)) (string, error) {
	hash := sha256.New()
	in := &counter{r: contextReader{ctx, io.NewSectionReader(i.file, 0, i.id.SizeBytes)}, report: report}
	if _, err := io.CopyBuffer(hash, in, make([]byte, 1<<20)); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), i.unchanged()
}

// unchanged tells whether the open file is as it was when it was opened. Errors: ErrConflict.
func (i *hostImage) unchanged() error {
	now, err := identify(i.file, i.id.Path)
	if err != nil {
		return err
	}
	if now != i.id {
		return &banger.Error{Kind: banger.ErrConflict, Subject: i.id.Path, Err: errors.New("it changed while it was read"), Hint: "unmount it first, and stop what writes to it"}
	}
	return nil
}

// hostError gives an error about a file of the user's its kind.
func hostError(err error) error {
	kind := banger.ErrUnavailable
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		kind = banger.ErrNotFound
	}
	if at, ok := errors.AsType[*os.PathError](err); ok {
		err = at.Err
	}
	return &banger.Error{Kind: kind, Err: err}
}

// contextReader reads until the context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// isExt4 tells whether a file may hold an ext4 file system.
func isExt4(file io.ReaderAt) bool {
	super := make([]byte, ext4.SuperSize)
	_, err := file.ReadAt(super, ext4.SuperOffset)
	return err == nil && ext4.HasMagic(super)
}
