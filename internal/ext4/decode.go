package ext4

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"

	"banger"
)

var le = binary.LittleEndian

// SuperOffset and SuperSize place the superblock in the image.
const (
	SuperOffset = 1024
	SuperSize   = 1024
)

// Further features of foreign images.
const (
	CompatSparseSuper2 = 0x200
	CompatFastCommit   = 0x400
	CompatOrphanFile   = 0x1000

	IncompatRecover    = 0x4 // the journal holds what the file system does not yet
	IncompatJournalDev = 0x8
	IncompatMetaBG     = 0x10
	IncompatMMP        = 0x100
	IncompatEAInode    = 0x400
	IncompatCsumSeed   = 0x2000
	IncompatLargeDir   = 0x4000
	IncompatInlineData = 0x8000
	IncompatEncrypt    = 0x10000
	IncompatCasefold   = 0x20000

	ROCompatGroupCsum     = 0x10
	ROCompatQuota         = 0x100
	ROCompatBigalloc      = 0x200
	ROCompatReadOnly      = 0x1000
	ROCompatProject       = 0x2000
	ROCompatSharedBlocks  = 0x4000
	ROCompatVerity        = 0x8000
	ROCompatOrphanPresent = 0x10000
)

// Names of features as mke2fs and dumpe2fs write them, by bit.
var (
	compatNames = []string{"dir_prealloc", "imagic_inodes", "has_journal", "ext_attr", "resize_inode", "dir_index", "lazy_bg", "",
		"snapshot_bitmap", "sparse_super2", "fast_commit", "stable_inodes", "orphan_file"}
	incompatNames = []string{"compression", "filetype", "needs_recovery", "journal_dev", "meta_bg", "", "extent", "64bit", "mmp", "flex_bg",
		"ea_inode", "", "dirdata", "metadata_csum_seed", "large_dir", "inline_data", "encrypt", "casefold"}
	roCompatNames = []string{"sparse_super", "large_file", "", "huge_file", "uninit_bg", "dir_nlink", "extra_isize", "snapshot", "quota", "bigalloc",
		"metadata_csum", "replica", "read-only", "project", "shared_blocks", "verity", "orphan_present"}
)

// CompatNames, IncompatNames and ROCompatNames list the features in a word; one without a name appears as its bit.
func CompatNames(word uint32) []string   { return featureNames("compat", compatNames, word) }
func IncompatNames(word uint32) []string { return featureNames("incompat", incompatNames, word) }
func ROCompatNames(word uint32) []string { return featureNames("ro_compat", roCompatNames, word) }

func featureNames(set string, names []string, word uint32) (list []string) {
	for bit := range 32 {
		switch {
		case word&(1<<bit) == 0:
		case bit < len(names) && names[bit] != "":
			list = append(list, names[bit])
		default:
			list = append(list, fmt.Sprintf("%s bit %#x", set, uint32(1)<<bit))
		}
	}
	return list
}

// Superblock is what readers need of the superblock, with counts and sizes checked against each other.
type Superblock struct {
	InodesCount, FreeInodes    uint32
	BlocksCount, FreeBlocks    uint64
	FirstDataBlock             uint32
	BlockSize                  int
	BlocksPerGroup             uint32
	InodesPerGroup             uint32
	State                      uint16
	FirstIno                   uint32
	InodeSize                  int
	DescSize                   int
	Compat, Incompat, ROCompat uint32
	UUID                       [16]byte
	Label                      string
	ReservedGDT                uint16
	JournalIno, JournalDev     uint32
	LastOrphan                 uint32
	HashSeed                   [16]byte
	HashVersion                uint8 // of directories: 0 legacy, 1 half_md4, 2 tea
	HashUnsigned               bool
	FirstMetaBG                uint32
	BackupGroups               [2]uint32
	WantExtraIsize             uint16
	OrphanFileIno              uint32
	ReservedBlocks             uint64
	Groups                     uint32
	Seed                       uint32 // of every metadata checksum
}

// HasMagic reports whether the 1024 bytes of b may be a superblock.
func HasMagic(b []byte) bool { return len(b) >= SuperSize && le.Uint16(b[0x38:]) == SuperMagic }

// DecodeSuper reads a superblock. Errors: ErrCorrupt names the field; features are not judged.
func DecodeSuper(b []byte) (*Superblock, error) {
	if !HasMagic(b) {
		return nil, corrupt("superblock: no magic number")
	}
	s := &Superblock{
		InodesCount: le.Uint32(b), FreeInodes: le.Uint32(b[0x10:]), FirstDataBlock: le.Uint32(b[0x14:]),
		BlocksPerGroup: le.Uint32(b[0x20:]), InodesPerGroup: le.Uint32(b[0x28:]), State: le.Uint16(b[0x3A:]),
		FirstIno: FirstInode, InodeSize: 128, DescSize: 32, ReservedGDT: le.Uint16(b[0xCE:]),
		JournalIno: le.Uint32(b[0xE0:]), JournalDev: le.Uint32(b[0xE4:]), LastOrphan: le.Uint32(b[0xE8:]),
		HashVersion: b[0xFC], HashUnsigned: le.Uint32(b[0x160:])&2 != 0, FirstMetaBG: le.Uint32(b[0x104:]),
		BackupGroups: [2]uint32{le.Uint32(b[0x24C:]), le.Uint32(b[0x250:])}, WantExtraIsize: le.Uint16(b[0x15E:]), OrphanFileIno: le.Uint32(b[0x280:]),
		Label: strings.TrimRight(string(b[0x78:0x88]), "\x00"),
	}
	copy(s.UUID[:], b[0x68:])
	copy(s.HashSeed[:], b[0xEC:])
	if le.Uint32(b[0x4C:]) > 0 { // dynamic revision
		s.FirstIno, s.InodeSize = le.Uint32(b[0x54:]), int(le.Uint16(b[0x58:]))
		s.Compat, s.Incompat, s.ROCompat = le.Uint32(b[0x5C:]), le.Uint32(b[0x60:]), le.Uint32(b[0x64:])
	}
	s.BlocksCount, s.ReservedBlocks, s.FreeBlocks = uint64(le.Uint32(b[4:])), uint64(le.Uint32(b[8:])), uint64(le.Uint32(b[0xC:]))
	if s.Incompat&Incompat64Bit != 0 {
		s.DescSize = int(le.Uint16(b[0xFE:]))
		s.BlocksCount |= uint64(le.Uint32(b[0x150:])) << 32
		s.ReservedBlocks |= uint64(le.Uint32(b[0x154:])) << 32
		s.FreeBlocks |= uint64(le.Uint32(b[0x158:])) << 32
	}
	s.Seed = Checksum(^uint32(0), s.UUID[:])
	if s.Incompat&IncompatCsumSeed != 0 {
		s.Seed = le.Uint32(b[0x270:])
	}
	if s.MetadataCsum() {
		if got, want := Checksum(^uint32(0), b[:0x3FC]), le.Uint32(b[0x3FC:]); got != want {
			return nil, corrupt("superblock: checksum %#x, computed %#x", want, got)
		}
	}
	return s, s.checkGeometry(le.Uint32(b[0x18:]))
}

// checkGeometry makes later arithmetic safe: nothing is zero, nothing overflows.
func (s *Superblock) checkGeometry(logBlockSize uint32) error {
	if logBlockSize > 6 {
		return corrupt("superblock: block size 1024<<%d", logBlockSize)
	}
	s.BlockSize = 1024 << logBlockSize
	wide := s.Incompat&Incompat64Bit != 0
	switch {
	case s.BlocksPerGroup == 0 || s.BlocksPerGroup > uint32(8*s.BlockSize) || s.BlocksPerGroup%8 != 0:
		return corrupt("superblock: %d blocks a group", s.BlocksPerGroup)
	case s.InodesPerGroup == 0 || s.InodesPerGroup > uint32(8*s.BlockSize):
		return corrupt("superblock: %d inodes a group", s.InodesPerGroup)
	case s.InodeSize < 128 || s.InodeSize > s.BlockSize || bits.OnesCount(uint(s.InodeSize)) != 1:
		return corrupt("superblock: inodes of %d bytes", s.InodeSize)
	case s.DescSize < 32 || wide && s.DescSize < 64 || s.DescSize > 1024 || bits.OnesCount(uint(s.DescSize)) != 1:
		return corrupt("superblock: group descriptors of %d bytes", s.DescSize)
	case s.BlockSize == 1024 && s.FirstDataBlock != 1 || s.BlockSize > 1024 && s.FirstDataBlock != 0:
		return corrupt("superblock: first data block %d", s.FirstDataBlock)
	case s.BlocksCount <= uint64(s.FirstDataBlock) || s.BlocksCount >= 1<<48:
		return corrupt("superblock: %d blocks", s.BlocksCount)
	case s.FirstIno < FirstInode || s.FirstIno > s.InodesCount:
		return corrupt("superblock: first inode %d of %d", s.FirstIno, s.InodesCount)
	}
	groups := (s.BlocksCount - uint64(s.FirstDataBlock) + uint64(s.BlocksPerGroup) - 1) / uint64(s.BlocksPerGroup)
	if groups*uint64(s.InodesPerGroup) != uint64(s.InodesCount) {
		return corrupt("superblock: %d inodes in %d groups of %d", s.InodesCount, groups, s.InodesPerGroup)
	}
	s.Groups = uint32(groups)
	return nil
}

// MetadataCsum reports whether all metadata carries crc32c checksums.
func (s *Superblock) MetadataCsum() bool { return s.ROCompat&ROCompatMetadataCsum != 0 }

// GroupCsum reports whether group descriptors carry a checksum of either kind, and so their flags mean something.
func (s *Superblock) GroupCsum() bool {
	return s.ROCompat&(ROCompatMetadataCsum|ROCompatGroupCsum) != 0
}

// HasSuper reports whether a group begins with a copy of the superblock.
func (s *Superblock) HasSuper(group uint32) bool {
	switch {
	case group == 0:
		return true
	case s.Compat&CompatSparseSuper2 != 0:
		return group == s.BackupGroups[0] || group == s.BackupGroups[1]
	case s.ROCompat&ROCompatSparseSuper != 0:
		return HasSuper(group)
	}
	return true
}

// GroupStart gives the first block of a group, GroupBlocks how many it has.
func (s *Superblock) GroupStart(group uint32) uint64 {
	return uint64(s.FirstDataBlock) + uint64(group)*uint64(s.BlocksPerGroup)
}

func (s *Superblock) GroupBlocks(group uint32) uint32 {
	return uint32(min(uint64(s.BlocksPerGroup), s.BlocksCount-s.GroupStart(group)))
}

// GroupOf gives the group of a block.
func (s *Superblock) GroupOf(block uint64) uint32 {
	return uint32((block - uint64(s.FirstDataBlock)) / uint64(s.BlocksPerGroup))
}

// TableBlocks is the length of a group's inode table.
func (s *Superblock) TableBlocks() uint64 {
	return (uint64(s.InodesPerGroup)*uint64(s.InodeSize) + uint64(s.BlockSize) - 1) / uint64(s.BlockSize)
}

// DescBlocks is how many blocks the table of group descriptors has.
func (s *Superblock) DescBlocks() uint64 {
	per := uint64(s.BlockSize / s.DescSize)
	return (uint64(s.Groups) + per - 1) / per
}

// DescLocation gives the block and the offset in it of a group's descriptor.
func (s *Superblock) DescLocation(group uint32) (block uint64, offset int) {
	per := uint32(s.BlockSize / s.DescSize)
	index := group / per
	offset = int(group%per) * s.DescSize
	if s.Incompat&IncompatMetaBG == 0 || index < s.FirstMetaBG {
		return uint64(s.FirstDataBlock) + 1 + uint64(index), offset
	}
	block = s.GroupStart(index * per)
	if s.HasSuper(index * per) {
		block++
	}
	return block, offset
}

// BaseMeta is how many blocks at the start of a group hold superblock, descriptors and descriptors in reserve.
func (s *Superblock) BaseMeta(group uint32) (n uint64) {
	if s.HasSuper(group) {
		n = 1
	}
	per := uint32(s.BlockSize / s.DescSize)
	if meta := group / per; s.Incompat&IncompatMetaBG != 0 && meta >= s.FirstMetaBG {
		if in := group % per; in == 0 || in == 1 || in == per-1 {
			n++
		}
		return n
	}
	if n == 0 {
		return 0
	}
	if s.Incompat&IncompatMetaBG != 0 {
		return n + uint64(s.FirstMetaBG) + uint64(s.ReservedGDT)
	}
	return n + s.DescBlocks() + uint64(s.ReservedGDT)
}

func corrupt(format string, args ...any) error {
	return &banger.Error{Kind: banger.ErrCorrupt, Err: fmt.Errorf(format, args...)}
}
