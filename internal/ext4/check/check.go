// Package check states the invariants of an ext4 file system and finds all that an image breaks: every block and inode
// belongs to one thing and the bitmaps say so, counts add up, names lead somewhere, hashes are in order, checksums hold.
//
// An image whose journal needs recovery is judged as it is after recovery.
package check

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"banger"
	"banger/internal/ext4"
	"banger/internal/ext4/read"
)

// Class is the invariant that a fault breaks.
type Class string

const (
	Super       Class = "superblock"       // contradicts itself, or records errors
	Journal     Class = "journal"          // is no journal, or holds what the superblock denies
	Checksum    Class = "checksum"         // of anything but the superblock
	Group       Class = "group"            // descriptor points outside or to another's blocks
	Zeroed      Class = "table not zeroed" // the kernel would write the group's inode table
	Inode       Class = "inode"            // fields that mean nothing
	Mapping     Class = "block map"        // extents or pointers out of order or outside
	Twice       Class = "block used twice"
	Sectors     Class = "allocated size"  // an inode's count of blocks is not what it has
	Size        Class = "size"            // does not fit the blocks
	Xattr       Class = "attribute"       // extended attributes that cannot be read, or are counted wrongly
	Directory   Class = "directory"       // entries that cannot be read, or wrong "." and ".."
	Entry       Class = "entry"           // a name that is not allowed, or of an inode that is not in use
	Type        Class = "entry type"      // is not the inode's
	Index       Class = "directory index" // hashes out of order, or blocks missing from it
	Links       Class = "link count"
	Unreachable Class = "unreachable" // an inode in use without a name
	BlockBitmap Class = "block bitmap"
	InodeBitmap Class = "inode bitmap"
	FreeCount   Class = "count"             // of free blocks, free inodes or directories
	TooMany     Class = "more faults exist" // than are listed
)

// Fault is one broken invariant.
type Fault struct {
	Class Class  `json:"class"` // the invariant: "superblock", "link count", …
	Where string `json:"where"` // "inode 12", "group 3", "superblock"
	What  string `json:"what"`  // for people: what is there, and what should be
}

func (f Fault) String() string { return f.Where + ": " + string(f.Class) + ": " + f.What }

// Options choose invariants that hold for banger's own images only.
type Options struct {
	ZeroedTables bool // every inode table is known to be zeros where it is unused
}

const (
	maxFaults = 1000
	maxGroups = 1 << 20
)

// Check lists what is wrong with the file system in the first size bytes of r. Errors: ErrUnsupported when it is no ext4
// file system or has a feature that is not known; what the reader of r reports.
func Check(r io.ReaderAt, size int64, opt Options) ([]Fault, error) {
	f, err := read.Open(r, size)
	switch {
	case errors.Is(err, banger.ErrCorrupt):
		return []Fault{{Super, "superblock", err.Error()}}, nil
	case err != nil:
		return nil, err
	case f.Super().Groups > maxGroups:
		return nil, &banger.Error{Kind: banger.ErrUnsupported, Err: fmt.Errorf("%d groups at once", f.Super().Groups)}
	}
	c := &checker{f: f, sb: f.Super(), opt: opt, blocks: map[uint32][]byte{}, meta: map[uint32]uint32{}, inodes: map[uint32]*inode{}, xattrs: map[uint64]*xattrBlock{},
		orphans: map[uint32]bool{}, dirs: map[uint32]uint32{}}
	for _, pass := range []func() error{c.superblock, c.groups, c.allInodes, c.directories, c.reachable, c.bitmaps, c.journal} {
		if err := pass(); errors.Is(err, errTooMany) {
			break
		} else if err != nil {
			return c.faults, err
		}
	}
	return c.faults, nil
}

var errTooMany = errors.New("too many faults")

type checker struct {
	f      *read.FS
	sb     *ext4.Superblock
	opt    Options
	faults []Fault

	blocks  map[uint32][]byte // bitmaps of what is used, by group
	meta    map[uint32]uint32 // blocks of metadata of any group that lie in a group
	inodes  map[uint32]*inode // in use
	order   []uint32          // of inodes in use
	xattrs  map[uint64]*xattrBlock
	orphans map[uint32]bool   // inodes without a name that the next mount deletes
	dirs    map[uint32]uint32 // directories in use, by group
}

// inode is what passes tell each other of an inode in use.
type inode struct {
	mode    uint16
	links   uint16
	special bool // is reached by other means than a name
	found   uint32
	parent  uint32 // of a directory: where its name lies
	dotdot  uint32 // of a directory: what its ".." says
	seen    bool
}

type xattrBlock struct{ stored, found uint32 }

// fault notes one; the pass ends when there are too many.
func (c *checker) fault(class Class, where, format string, args ...any) error {
	if len(c.faults) >= maxFaults {
		c.faults = append(c.faults, Fault{TooMany, "image", fmt.Sprintf("only the first %d are listed", maxFaults)})
		return errTooMany
	}
	c.faults = append(c.faults, Fault{class, where, fmt.Sprintf(format, args...)})
	return nil
}

// judge turns an error of the reader into a fault; errors of another kind go on.
func (c *checker) judge(class Class, where string, err error) error {
	if err == nil || !errors.Is(err, banger.ErrCorrupt) && !errors.Is(err, banger.ErrUnsupported) {
		return err
	}
	return c.fault(class, where, "%v", err)
}

func (c *checker) superblock() error {
	raw := make([]byte, ext4.SuperSize)
	if err := c.f.ReadBytes(raw, ext4.SuperOffset); err != nil {
		return err
	}
	sb := c.sb
	if sb.State&2 != 0 {
		if err := c.fault(Super, "superblock", "the kernel found errors"); err != nil {
			return err
		}
	}
	if sb.FreeBlocks > sb.BlocksCount || sb.ReservedBlocks > sb.BlocksCount || sb.FreeInodes > sb.InodesCount {
		if err := c.fault(Super, "superblock", "%d of %d blocks and %d of %d inodes are free, %d blocks reserved", sb.FreeBlocks, sb.BlocksCount, sb.FreeInodes, sb.InodesCount, sb.ReservedBlocks); err != nil {
			return err
		}
	}
	if mmp := binary.LittleEndian.Uint64(raw[0x168:]); sb.Incompat&ext4.IncompatMMP != 0 && mmp != 0 {
		if err := c.claim("multiple mount protection", mmp, 1); err != nil {
			return err
		}
	}
	return c.orphanList()
}

// orphanList follows the inodes that were deleted while open, from the superblock through their times of deletion.
func (c *checker) orphanList() error {
	for ino := c.sb.LastOrphan; ino != 0; {
		raw, err := c.f.RawInode(ino)
		if err != nil || c.orphans[ino] {
			return c.fault(Super, "superblock", "list of orphans is broken at inode %d", ino)
		}
		c.orphans[ino] = true
		ino = raw.DeletedAt()
	}
	return nil
}

func (c *checker) journal() error {
	if c.sb.Compat&ext4.CompatJournal == 0 {
		return nil
	}
	j, _, err := c.f.Journal()
	if err != nil {
		return c.judge(Journal, "journal", err)
	}
	if j.Start != 0 && !c.f.NeedsRecovery() {
		return c.fault(Journal, "journal", "holds transactions, the superblock says that it is empty")
	}
	return nil
}

// claim marks blocks as used.
func (c *checker) claim(where string, block, count uint64) error {
	if block < uint64(c.sb.FirstDataBlock) || block >= c.sb.BlocksCount || count > c.sb.BlocksCount-block {
		return c.fault(Mapping, where, "blocks %d+%d of %d", block, count, c.sb.BlocksCount)
	}
	for twice := uint64(0); count > 0; {
		group := c.sb.GroupOf(block)
		in := uint32(block - c.sb.GroupStart(group))
		run := uint32(min(count, uint64(c.sb.GroupBlocks(group)-in)))
		bitmap := c.blocks[group]
		if bitmap == nil {
			bitmap = make([]byte, c.sb.BlocksPerGroup/8)
			c.blocks[group] = bitmap
		}
		for i := in; i < in+run; i++ {
			if bitmap[i/8]&(1<<(i%8)) != 0 {
				if twice++; twice == 1 {
					if err := c.fault(Twice, where, "block %d is in use elsewhere", c.sb.GroupStart(group)+uint64(i)); err != nil {
						return err
					}
				}
			}
			bitmap[i/8] |= 1 << (i % 8)
		}
		block, count = block+uint64(run), count-uint64(run)
	}
	return nil
}

func inodeName(ino uint32) string   { return fmt.Sprintf("inode %d", ino) }
func groupName(group uint32) string { return fmt.Sprintf("group %d", group) }
