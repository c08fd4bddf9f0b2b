// Package ext4 holds what the writer, reader, patcher and checker share: constants of the on-disk format, its checksums
// and its directory hash. Format: https://docs.kernel.org/filesystems/ext4/
package ext4

import (
	"encoding/binary"
	"hash/crc32"
)

// Geometry of the file systems that banger writes.
const (
	BlockSize      = 4096
	BlocksPerGroup = 32768
	InodeSize      = 256
	InodesPerBlock = BlockSize / InodeSize
	GroupsPerFlex  = 16
	DescSize       = 64
)

// Inodes with a fixed meaning.
const (
	RootInode    = 2
	ResizeInode  = 7
	JournalInode = 8
	FirstInode   = 11 // lost+found
)

// Magic numbers.
const (
	SuperMagic   = 0xEF53
	ExtentMagic  = 0xF30A
	XattrMagic   = 0xEA020000
	JournalMagic = 0xC03B3998
)

// Compatible features.
const (
	CompatJournal  = 0x4
	CompatExtAttr  = 0x8
	CompatResize   = 0x10
	CompatDirIndex = 0x20
)

// Features that a kernel must know to mount.
const (
	IncompatFiletype = 0x2
	IncompatExtents  = 0x40
	Incompat64Bit    = 0x80
	IncompatFlexBG   = 0x200
)

// Features that a kernel must know to write.
const (
	ROCompatSparseSuper  = 0x1
	ROCompatLargeFile    = 0x2
	ROCompatHugeFile     = 0x8
	ROCompatDirNlink     = 0x20
	ROCompatExtraIsize   = 0x40
	ROCompatMetadataCsum = 0x400
)

// Flags of a group descriptor and of an inode.
const (
	GroupInodeUninit = 0x1
	GroupBlockUninit = 0x2
	GroupITableZero  = 0x4
	InodeIndex       = 0x1000
	InodeExtents     = 0x80000
)

// File types in an inode's mode.
const (
	TypeFIFO    = 0x1000
	TypeChar    = 0x2000
	TypeDir     = 0x4000
	TypeBlock   = 0x6000
	TypeFile    = 0x8000
	TypeSymlink = 0xA000
	TypeSocket  = 0xC000
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum continues crc32c from seed, without the inversions of the usual interface.
func Checksum(seed uint32, b []byte) uint32 { return ^crc32.Update(^seed, castagnoli, b) }

// Checksum32 continues crc32c with v in little endian.
func Checksum32(seed, v uint32) uint32 {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	return Checksum(seed, b[:])
}

// HasSuper reports whether a group holds a copy of the superblock under sparse_super.
func HasSuper(group uint32) bool {
	if group <= 1 {
		return true
	}
	for _, base := range []uint64{3, 5, 7} {
		n := base
		for n < uint64(group) {
			n *= base
		}
		if n == uint64(group) {
			return true
		}
	}
	return false
}
