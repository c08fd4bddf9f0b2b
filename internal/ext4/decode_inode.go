package ext4

import "time"

// Flags of inodes of foreign images.
const (
	InodeEncrypted = 0x800
	InodeEAInode   = 0x200000
	InodeInline    = 0x10000000
	InodeCasefold  = 0x40000000
	InodeHugeFile  = 0x40000
)

// Group is a group descriptor as it lies on disk, of Superblock.DescSize bytes.
type Group []byte

func (g Group) split(lo, hi int) uint64 {
	v := uint64(le.Uint32(g[lo:]))
	if len(g) >= 64 {
		v |= uint64(le.Uint32(g[hi:])) << 32
	}
	return v
}

func (g Group) split16(lo, hi int) uint32 {
	v := uint32(le.Uint16(g[lo:]))
	if len(g) >= 64 {
		v |= uint32(le.Uint16(g[hi:])) << 16
	}
	return v
}

func (g Group) setSplit16(lo, hi int, v uint32) {
	le.PutUint16(g[lo:], uint16(v))
	if len(g) >= 64 {
		le.PutUint16(g[hi:], uint16(v>>16))
	}
}

func (g Group) BlockBitmap() uint64    { return g.split(0, 0x20) }
func (g Group) InodeBitmap() uint64    { return g.split(4, 0x24) }
func (g Group) InodeTable() uint64     { return g.split(8, 0x28) }
func (g Group) FreeBlocks() uint32     { return g.split16(0xC, 0x2C) }
func (g Group) FreeInodes() uint32     { return g.split16(0xE, 0x2E) }
func (g Group) UsedDirs() uint32       { return g.split16(0x10, 0x30) }
func (g Group) UnusedInodes() uint32   { return g.split16(0x1C, 0x32) }
func (g Group) Flags() uint16          { return le.Uint16(g[0x12:]) }
func (g Group) BlockBitmapSum() uint32 { return g.split16(0x18, 0x38) }
func (g Group) InodeBitmapSum() uint32 { return g.split16(0x1A, 0x3A) }
func (g Group) Sum() uint16            { return le.Uint16(g[0x1E:]) }

func (g Group) SetFreeBlocks(n uint32)     { g.setSplit16(0xC, 0x2C, n) }
func (g Group) SetFreeInodes(n uint32)     { g.setSplit16(0xE, 0x2E, n) }
func (g Group) SetUsedDirs(n uint32)       { g.setSplit16(0x10, 0x30, n) }
func (g Group) SetUnusedInodes(n uint32)   { g.setSplit16(0x1C, 0x32, n) }
func (g Group) SetFlags(f uint16)          { le.PutUint16(g[0x12:], f) }
func (g Group) SetBlockBitmapSum(v uint32) { g.setSplit16(0x18, 0x38, v) }
func (g Group) SetInodeBitmapSum(v uint32) { g.setSplit16(0x1A, 0x3A, v) }
func (g Group) SetSum(v uint16)            { le.PutUint16(g[0x1E:], v) }

// BitmapSum is the checksum of a bitmap as a descriptor of this size can hold it.
func (s *Superblock) BitmapSum(bitmap []byte) uint32 {
	sum := Checksum(s.Seed, bitmap)
	if s.DescSize < 64 {
		sum &= 0xFFFF
	}
	return sum
}

// GroupSum computes the checksum of a descriptor: crc32c with metadata_csum, crc16 with uninit_bg, else 0.
func (s *Superblock) GroupSum(group uint32, g Group) uint16 {
	switch {
	case s.MetadataCsum():
		sum := Checksum(Checksum32(s.Seed, group), g[:0x1E])
		sum = Checksum(sum, []byte{0, 0})
		return uint16(Checksum(sum, g[0x20:]))
	case s.GroupCsum():
		sum := crc16(^uint16(0), s.UUID[:])
		sum = crc16(sum, le.AppendUint32(nil, group))
		sum = crc16(sum, g[:0x1E])
		return crc16(sum, g[0x20:])
	}
	return 0
}

// crc16 is CRC-16/ARC, continued.
func crc16(crc uint16, b []byte) uint16 {
	for _, c := range b {
		crc ^= uint16(c)
		for range 8 {
			low := crc & 1
			crc >>= 1
			if low != 0 {
				crc ^= 0xA001
			}
		}
	}
	return crc
}

// Inode is an inode as it lies on disk, of Superblock.InodeSize bytes.
type Inode []byte

func (i Inode) Mode() uint16       { return le.Uint16(i) }
func (i Inode) Type() uint16       { return le.Uint16(i) & 0xF000 }
func (i Inode) UID() uint32        { return uint32(le.Uint16(i[2:])) | uint32(le.Uint16(i[0x78:]))<<16 }
func (i Inode) GID() uint32        { return uint32(le.Uint16(i[0x18:])) | uint32(le.Uint16(i[0x7A:]))<<16 }
func (i Inode) Links() uint16      { return le.Uint16(i[0x1A:]) }
func (i Inode) Flags() uint32      { return le.Uint32(i[0x20:]) }
func (i Inode) Block() []byte      { return i[0x28:0x64] } // 60 bytes: extents, block numbers, link text or device
func (i Inode) Generation() uint32 { return le.Uint32(i[0x64:]) }
func (i Inode) XattrBlock() uint64 {
	return uint64(le.Uint32(i[0x68:])) | uint64(le.Uint16(i[0x76:]))<<32
}
func (i Inode) DeletedAt() uint32 { return le.Uint32(i[0x14:]) }

// Size is the length in bytes. Only files, and directories under large_dir, use the high half.
func (i Inode) Size() uint64 { return uint64(le.Uint32(i[4:])) | uint64(le.Uint32(i[0x6C:]))<<32 }

// Sectors is i_blocks: in units of 512 bytes, or of blocks when InodeHugeFile is set.
func (i Inode) Sectors() uint64 { return uint64(le.Uint32(i[0x1C:])) | uint64(le.Uint16(i[0x74:]))<<32 }

// Extra is the length of the fields after the first 128 bytes, 0 when it is not sane.
func (i Inode) Extra() int {
	if len(i) <= 128 {
		return 0
	}
	n := int(le.Uint16(i[0x80:]))
	if n%4 != 0 || 128+n > len(i) {
		return 0
	}
	return n
}

// ExtraSane tells whether the length of the extra fields fits the inode.
func (i Inode) ExtraSane() bool {
	return len(i) <= 128 || i.Extra() == int(le.Uint16(i[0x80:]))
}

// AccessTime, ChangeTime, ModTime and BirthTime are zero only when the inode has no room for them.
func (i Inode) AccessTime() time.Time { return i.time(8, 0x8C) }
func (i Inode) ChangeTime() time.Time { return i.time(0xC, 0x84) }
func (i Inode) ModTime() time.Time    { return i.time(0x10, 0x88) }
func (i Inode) BirthTime() time.Time {
	if i.Extra() < 0x14 {
		return time.Time{}
	}
	return i.time(0x90, 0x94)
}

func (i Inode) time(off, extraOff int) time.Time {
	sec, nsec := int64(int32(le.Uint32(i[off:]))), int64(0)
	if 128+i.Extra() >= extraOff+4 {
		extra := le.Uint32(i[extraOff:])
		sec += int64(extra&3) << 32
		nsec = int64(extra >> 2)
	}
	return time.Unix(sec, min(nsec, 999_999_999)).UTC()
}

// SetTime writes t at one of the offsets TimeAccess… and clamps it to what the inode can hold.
func (i Inode) SetTime(off int, t time.Time) {
	sec, nsec := t.Unix(), int64(t.Nanosecond())
	extraOff := map[int]int{TimeAccess: 0x8C, TimeChange: 0x84, TimeMod: 0x88, TimeBirth: 0x94}[off]
	wide := 128+i.Extra() >= extraOff+4
	if off == TimeBirth && !wide {
		return
	}
	last := int64(1)<<31 - 1
	if wide {
		last = int64(3)<<32 + 1<<31 - 1
	}
	if sec < -1<<31 || sec > last {
		sec, nsec = min(max(sec, -1<<31), last), 0
	}
	le.PutUint32(i[off:], uint32(sec))
	if wide {
		le.PutUint32(i[extraOff:], uint32((sec-int64(int32(sec)))>>32)&3|uint32(nsec)<<2)
	}
}

// Offsets of times in an inode.
const (
	TimeAccess = 8
	TimeChange = 0xC
	TimeMod    = 0x10
	TimeBirth  = 0x90
)

func (i Inode) SetMode(m uint16) { le.PutUint16(i, m) }
func (i Inode) SetUID(v uint32) {
	le.PutUint16(i[2:], uint16(v))
	le.PutUint16(i[0x78:], uint16(v>>16))
}
func (i Inode) SetGID(v uint32) {
	le.PutUint16(i[0x18:], uint16(v))
	le.PutUint16(i[0x7A:], uint16(v>>16))
}
func (i Inode) SetLinks(n uint16)      { le.PutUint16(i[0x1A:], n) }
func (i Inode) SetFlags(f uint32)      { le.PutUint32(i[0x20:], f) }
func (i Inode) SetDeletedAt(t uint32)  { le.PutUint32(i[0x14:], t) }
func (i Inode) SetGeneration(v uint32) { le.PutUint32(i[0x64:], v) }
func (i Inode) SetSize(n uint64) {
	le.PutUint32(i[4:], uint32(n))
	le.PutUint32(i[0x6C:], uint32(n>>32))
}
func (i Inode) SetSectors(n uint64) {
	le.PutUint32(i[0x1C:], uint32(n))
	le.PutUint16(i[0x74:], uint16(n>>32))
}

// Device gives the numbers of a device node, in the old encoding or the new.
func (i Inode) Device() (major, minor uint32) {
	b := i.Block()
	if v := le.Uint32(b); v != 0 {
		return v >> 8 & 0xFF, v & 0xFF
	}
	v := le.Uint32(b[4:])
	return v >> 8 & 0xFFF, v&0xFF | v>>12&0xFFF00
}

// InodeSeed begins the checksums of everything that belongs to an inode.
func (s *Superblock) InodeSeed(ino, generation uint32) uint32 {
	return Checksum32(Checksum32(s.Seed, ino), generation)
}

// InodeSum computes an inode's checksum; wide tells that its upper half is stored too.
func (s *Superblock) InodeSum(ino uint32, i Inode) (sum uint32, wide bool) {
	var zero [2]byte
	sum = s.InodeSeed(ino, i.Generation())
	sum = Checksum(sum, i[:0x7C])
	sum = Checksum(sum, zero[:])
	sum = Checksum(sum, i[0x7E:128])
	if len(i) == 128 {
		return sum & 0xFFFF, false
	}
	wide = i.Extra() >= 4
	if !wide {
		return Checksum(sum, i[128:]) & 0xFFFF, false
	}
	sum = Checksum(sum, i[128:0x82])
	sum = Checksum(sum, zero[:])
	return Checksum(sum, i[0x84:]), true
}

// StoredInodeSum gives the checksum in an inode.
func (i Inode) StoredInodeSum() uint32 {
	sum := uint32(le.Uint16(i[0x7C:]))
	if i.Extra() >= 4 {
		sum |= uint32(le.Uint16(i[0x82:])) << 16
	}
	return sum
}

// Seal writes an inode's checksum into it, under metadata_csum.
func (s *Superblock) Seal(ino uint32, i Inode) {
	if !s.MetadataCsum() {
		return
	}
	sum, wide := s.InodeSum(ino, i)
	le.PutUint16(i[0x7C:], uint16(sum))
	if wide {
		le.PutUint16(i[0x82:], uint16(sum>>16))
	}
}
