package write

import (
	"encoding/binary"

	"banger/internal/ext4"
)

const (
	extraSize      = 32 // of an inode's fields after the first 128 bytes
	inodeBlockSize = 60 // of an inode's extents or link text
	inodeExtents   = 4  // there is room for in an inode
)

// putInode writes an inode of the tree into b, which is zero.
func (w *writer) putInode(b ext4.Inode, n *node) {
	var flags uint32
	switch n.kind() {
	case ext4.TypeChar, ext4.TypeBlock:
		putDevice(b.Block(), uint32(n.size>>32), uint32(n.size))
	case ext4.TypeSymlink:
		if n.size < inodeBlockSize {
			copy(b.Block(), n.more.link)
		} else {
			flags = ext4.InodeExtents
		}
	case ext4.TypeDir:
		flags = ext4.InodeExtents
		if n.size > blockSize {
			flags |= ext4.InodeIndex
		}
	case ext4.TypeFile:
		flags = ext4.InodeExtents
	}
	if flags&ext4.InodeExtents != 0 {
		if n.more != nil && n.more.root != nil {
			copy(b.Block(), n.more.root)
		} else {
			ext4.EncodeExtents(b.Block(), n.extents())
		}
	}
	b.SetMode(n.mode)
	b.SetUID(n.uid)
	b.SetGID(n.gid)
	if !n.isDir() || n.links < maxLinks { // more than a directory can count are 1
		b.SetLinks(uint16(n.links))
	} else {
		b.SetLinks(1)
	}
	if n.kind() != ext4.TypeChar && n.kind() != ext4.TypeBlock {
		b.SetSize(uint64(n.size))
	}
	b.SetSectors(n.blocks * (blockSize / 512))
	b.SetFlags(flags)
	le.PutUint16(b[0x80:], extraSize)
	n.access.put(b, ext4.TimeAccess, 0x8C)
	n.changed.put(b, ext4.TimeChange, 0x84)
	n.modTime.put(b, ext4.TimeMod, 0x88)
	newStamp(w.opts.Time).put(b, ext4.TimeBirth, 0x94)
	if n.more != nil {
		copy(b[128+extraSize:], n.more.xattrs)
		le.PutUint32(b[0x68:], uint32(n.more.xattrBlock))
		le.PutUint16(b[0x76:], uint16(n.more.xattrBlock>>32))
	}
	w.super.Seal(n.ino, b)
}

func (s stamp) put(b ext4.Inode, at, extra int) {
	le.PutUint32(b[at:], s.seconds)
	le.PutUint32(b[extra:], s.extra)
}

// putDevice uses the old encoding where the numbers fit it, as kernels do.
func putDevice(b []byte, major, minor uint32) {
	if major < 256 && minor < 256 {
		le.PutUint32(b, major<<8|minor)
		return
	}
	le.PutUint32(b[4:], minor&0xFF|major<<8|(minor&^0xFF)<<12)
}

// hidden makes an inode that no directory names.
func (w *writer) hidden(ino uint32, size int64) *node {
	now := newStamp(w.opts.Time)
	return &node{mode: ext4.TypeFile | 0o600, ino: ino, links: 1, size: size, modTime: now, access: now, changed: now}
}

// journal writes the journal's superblock and gives its inode. Format: https://docs.kernel.org/filesystems/ext4/journal.html
func (w *writer) journal() (*node, error) {
	at := w.layout.journal
	n := w.hidden(ext4.JournalInode, int64(at.to-at.from)*blockSize)
	n.addBlocks(0, at)
	b, be := make([]byte, 1024), binary.BigEndian
	ext4.PutJournalHeader(b, ext4.JournalSuperV2, 0)
	be.PutUint32(b[0xC:], blockSize)
	be.PutUint32(b[0x10:], uint32(at.to-at.from))
	be.PutUint32(b[0x14:], 1) // first block of the log
	be.PutUint32(b[0x18:], 1) // first sequence number
	copy(b[0x30:], w.opts.UUID[:])
	be.PutUint32(b[0x40:], 1) // file systems that use it
	return n, w.writeAt(b, at.from)
}

// resizeInode writes the map of the reserved descriptor blocks and gives their inode: its double indirect block names those
// of group 0, and each of these names its copies in the other groups.
func (w *writer) resizeInode(b ext4.Inode) error {
	l := &w.layout
	var copies []uint32
	for g := uint32(1); g < l.groups; g++ {
		if ext4.HasSuper(g) {
			copies = append(copies, g)
		}
	}
	double := make([]byte, blockSize)
	reserved := make([]byte, int(l.reservedGDT)*blockSize)
	for i := range l.reservedGDT {
		at := 1 + l.descBlocks + i
		le.PutUint32(double[(l.descBlocks+i)%(blockSize/4)*4:], at)
		for k, g := range copies {
			le.PutUint32(reserved[int(i)*blockSize+4*k:], g*perGroup+at)
		}
	}
	if err := w.writeAt(reserved, uint64(1+l.descBlocks)); err != nil {
		return err
	}
	if err := w.writeAt(double, w.resizeMap); err != nil {
		return err
	}
	const perBlock = blockSize / 4
	n := w.hidden(ext4.ResizeInode, (12+perBlock+perBlock*perBlock)*blockSize)
	n.blocks = 1 + uint64(l.reservedGDT)*uint64(1+len(copies))
	w.putInode(b, n)
	clear(b.Block())
	b.SetFlags(0)
	le.PutUint32(b.Block()[13*4:], uint32(w.resizeMap))
	w.super.Seal(ext4.ResizeInode, b)
	return nil
}

// superblock renders the superblock of a group.
func (w *writer) superblock(freeBlocks uint64, journal *node) []byte {
	b := make([]byte, ext4.SuperSize)
	put16 := func(at int, v uint16) { le.PutUint16(b[at:], v) }
	put32 := func(at int, v uint32) { le.PutUint32(b[at:], v) }
	l, now := &w.layout, w.opts.Time.Unix()
	compat := uint32(ext4.CompatExtAttr | ext4.CompatDirIndex)
	inodes := l.inodesPerGroup * l.groups
	put32(0, inodes)
	put32(4, uint32(l.blocks))
	put32(0x150, uint32(l.blocks>>32))
	put32(0xC, uint32(freeBlocks))
	put32(0x158, uint32(freeBlocks>>32))
	put32(0x10, inodes-uint32(w.inodes))
	put32(0x18, 2) // block size: 1024<<2
	put32(0x1C, 2) // cluster size
	put32(0x20, perGroup)
	put32(0x24, perGroup)
	put32(0x28, l.inodesPerGroup)
	putClock := func(low, high int) { put32(low, uint32(now)); b[high] = byte(now >> 32) }
	putClock(0x30, 0x274) // written
	put16(0x36, 0xFFFF)   // mounts before a check: any number
	put16(0x38, ext4.SuperMagic)
	put16(0x3A, 1)        // clean
	put16(0x3C, 1)        // on errors: continue
	putClock(0x40, 0x277) // checked
	put32(0x4C, 1)        // dynamic revision
	put32(0x54, ext4.FirstInode)
	put16(0x58, ext4.InodeSize)
	if journal != nil {
		compat |= ext4.CompatJournal
		put32(0xE0, ext4.JournalInode)
		b[0xFD] = 1 // a copy of the journal's inode: its blocks, then its size with the high half first
		ext4.EncodeExtents(b[0x10C:0x10C+inodeBlockSize], journal.extents())
		put32(0x10C+60, uint32(journal.size>>32))
		put32(0x10C+64, uint32(journal.size))
	}
	if l.reservedGDT > 0 {
		compat |= ext4.CompatResize
		put16(0xCE, uint16(l.reservedGDT))
	}
	put32(0x5C, compat)
	put32(0x60, ext4.IncompatFiletype|ext4.IncompatExtents|ext4.Incompat64Bit|ext4.IncompatFlexBG)
	put32(0x64, roCompat)
	copy(b[0x68:], w.opts.UUID[:])
	copy(b[0x78:0x88], w.opts.Label)
	copy(b[0xEC:], w.opts.HashSeed[:])
	b[0xFC] = 1 // half MD4
	put16(0xFE, ext4.DescSize)
	put32(0x100, 0xC) // mount options: user_xattr, acl
	putClock(0x108, 0x276)
	put16(0x15C, extraSize)
	put16(0x15E, extraSize)
	put32(0x160, 1) // hashes take characters as signed
	b[0x174] = 4    // groups of a flex group: 1<<4
	b[0x175] = 1    // checksums are crc32c
	return b
}

const roCompat = ext4.ROCompatSparseSuper | ext4.ROCompatLargeFile | ext4.ROCompatHugeFile | ext4.ROCompatDirNlink | ext4.ROCompatExtraIsize |
	ext4.ROCompatMetadataCsum
