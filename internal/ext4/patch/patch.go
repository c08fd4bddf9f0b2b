// Package patch changes files in an existing ext4 image. All changes of one [Apply] happen together or not at all: file
// content goes to blocks that were free, then all metadata into one transaction of the image's own journal, so that a
// crash leaves what was or what was meant, and any kernel or e2fsck recovers it. An image without a journal is refused.
package patch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"banger"
	"banger/internal/ext4"
	"banger/internal/ext4/read"
)

// Options are the same for all changes of one Apply.
type Options struct {
	Now    time.Time // becomes every time that is not given
	NoSync bool      // leave it to the host when changes reach the disk: a crash of the host may then damage the image
}

// Attr is what a new inode gets.
type Attr struct {
	Mode     uint32 // 07777
	UID, GID uint32
	ModTime  time.Time // zero: Options.Now
}

// Features that the patcher keeps up. What else a file system has would be wrong afterwards.
const (
	writableIncompat = ext4.IncompatFiletype | ext4.IncompatRecover | ext4.IncompatMetaBG | ext4.IncompatExtents | ext4.Incompat64Bit |
		ext4.IncompatFlexBG | ext4.IncompatCsumSeed
	writableROCompat = ext4.ROCompatSparseSuper | ext4.ROCompatLargeFile | ext4.ROCompatHugeFile | ext4.ROCompatGroupCsum |
		ext4.ROCompatDirNlink | ext4.ROCompatExtraIsize | ext4.ROCompatMetadataCsum | ext4.ROCompatOrphanPresent
)

// Apply opens the image at path, lets edit change it, and commits. When edit returns an error nothing has changed but, if
// it was needed, recovery of the journal. Errors: ErrConflict when the image is in use; ErrUnsupported when it is no
// regular file or names what the patcher does not know; ErrUnavailable when there is no room; ErrCorrupt.
func Apply(path string, opt Options, edit func(*Tx) error) error {
	f, err := lock(path)
	if err != nil {
		return &banger.Error{Kind: kindOf(err), Op: "change image", Subject: path, Err: err, Hint: banger.HintOf(err)}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := apply(f, info.Size(), opt, edit); err != nil {
		return fmt.Errorf("change image %s: %w", path, err)
	}
	return nil
}

// kindOf keeps the kind of an error that is wrapped anew.
func kindOf(err error) error { return banger.KindByName(banger.KindName(err)) }

// device is an image: a file, or in tests one that fails.
type device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Tx is a set of changes that are not yet in the image.
type Tx struct {
	dev device
	fs  *read.FS
	sb  *ext4.Superblock
	opt Options

	dirty    map[uint64][]byte // changed blocks of metadata
	edits    int               // how often one was asked for
	broken   error             // an operation that failed half way
	freed    []run             // blocks that become free with the commit
	touched  map[uint32]bool   // groups whose bitmaps changed
	verified map[uint64]bool   // bitmaps whose checksum was right
	large    bool              // a file needs large_file
}

type run struct{ block, count uint64 }

// FS shows the file system with the changes so far.
func (tx *Tx) FS() *read.FS { return tx.fs }

func apply(dev device, size int64, opt Options, edit func(*Tx) error) error {
	tx, err := begin(dev, size, opt)
	if err != nil {
		return err
	}
	if err := edit(tx); err != nil {
		return err
	}
	if tx.broken != nil {
		return fmt.Errorf("an operation failed before: %w", tx.broken)
	}
	return tx.commit()
}

// begin opens the image, recovered.
func begin(dev device, size int64, opt Options) (*Tx, error) {
	if opt.Now.IsZero() {
		return nil, banger.Invalidf("no time is given")
	}
	fsys, err := read.Open(dev, size)
	if err == nil {
		err = writable(fsys.Super())
	}
	if err == nil && fsys.NeedsRecovery() {
		if err = recoverJournal(dev, fsys, opt); err == nil {
			fsys, err = read.Open(dev, size)
		}
	} else if err == nil {
		err = wipe(dev, fsys, opt)
	}
	if err == nil {
		err = withoutOrphans(fsys.Super())
	}
	if err != nil {
		return nil, err
	}
	tx := &Tx{dev: dev, fs: fsys, sb: fsys.Super(), opt: opt, dirty: map[uint64][]byte{}, touched: map[uint32]bool{}, verified: map[uint64]bool{}}
	fsys.Overlay(tx.dirty)
	return tx, nil
}

func writable(sb *ext4.Superblock) error {
	unknown := append(ext4.IncompatNames(sb.Incompat&^writableIncompat), ext4.ROCompatNames(sb.ROCompat&^writableROCompat)...)
	if sb.Compat&ext4.CompatFastCommit != 0 {
		unknown = append(unknown, ext4.CompatNames(ext4.CompatFastCommit)...)
	}
	switch {
	case len(unknown) > 0:
		return unsupported("changing a file system with feature %s", strings.Join(unknown, ", "))
	case sb.Compat&ext4.CompatJournal == 0:
		return &banger.Error{Kind: banger.ErrUnsupported, Err: errors.New("changing a file system without a journal"), Hint: "give it one: tune2fs -j IMAGE"}
	case sb.State&2 != 0:
		return &banger.Error{Kind: banger.ErrCorrupt, Err: errors.New("the kernel found errors in the file system"), Hint: "repair it first: e2fsck -f"}
	}
	return nil
}

// withoutOrphans refuses a file system with inodes that a kernel or e2fsck has still to remove or to cut: they may be those
// that are to be changed.
func withoutOrphans(sb *ext4.Superblock) error {
	if sb.LastOrphan == 0 && sb.ROCompat&ext4.ROCompatOrphanPresent == 0 {
		return nil
	}
	return &banger.Error{Kind: banger.ErrConflict, Err: errors.New("files that were deleted while they were open are not removed yet"),
		Hint: "let e2fsck do it: e2fsck -p IMAGE"}
}

// edit gives a block of metadata that may be changed.
func (tx *Tx) edit(block uint64) ([]byte, error) {
	tx.edits++
	if b, ok := tx.dirty[block]; ok {
		return b, nil
	}
	b, err := tx.fs.Block(block)
	if err != nil {
		return nil, err
	}
	b = append(make([]byte, 0, len(b)), b...)
	tx.dirty[block] = b
	return b, nil
}

// fresh gives a new block of metadata, zeroed.
func (tx *Tx) fresh(block uint64) []byte {
	tx.edits++
	b := make([]byte, tx.sb.BlockSize)
	tx.dirty[block] = b
	return b
}

// do runs one operation. When it fails after it began to change things, nothing of the transaction can be kept.
func (tx *Tx) do(op, path string, f func() error) error {
	if tx.broken != nil {
		return tx.broken
	}
	before := tx.edits
	err := f()
	if err == nil {
		return nil
	}
	err = &banger.Error{Kind: kindOf(err), Op: op, Subject: path, Err: err, Hint: banger.HintOf(err)}
	if tx.edits != before {
		tx.broken = err
	}
	return err
}

func corrupt(format string, args ...any) error {
	return &banger.Error{Kind: banger.ErrCorrupt, Err: fmt.Errorf(format, args...)}
}

func unsupported(format string, args ...any) error {
	return &banger.Error{Kind: banger.ErrUnsupported, Err: fmt.Errorf(format, args...)}
}

func conflict(format string, args ...any) error {
	return &banger.Error{Kind: banger.ErrConflict, Err: fmt.Errorf(format, args...)}
}

func unavailable(format string, args ...any) error {
	return &banger.Error{Kind: banger.ErrUnavailable, Err: fmt.Errorf(format, args...)}
}

// regular refuses what is no plain file before it is touched.
func regular(info os.FileInfo) error {
	if !info.Mode().IsRegular() {
		return unsupported("it is no regular file (%s)", info.Mode().Type())
	}
	return nil
}
