package write

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"golang.org/x/sys/unix"

	"banger/internal/ext4"
)

// finish writes all that is not data.
func (w *writer) finish() (Result, error) {
	order, err := w.writeTree()
	if err == nil {
		err = errors.Join(w.flush(), w.wait())
	}
	if err != nil {
		return Result{}, err
	}
	last := order[len(order)-1].ino
	if w.opts.Fit {
		w.layout.cut(w.next, last)
		if err := w.file.Truncate(int64(w.layout.blocks) * blockSize); err != nil {
			return Result{}, err
		}
	}
	journal, err := w.writeInodes(order)
	if err != nil {
		return Result{}, err
	}
	free, err := w.writeGroups(order, journal)
	if err = errors.Join(err, w.wait()); err != nil {
		return Result{}, err
	}
	if err := w.punch(); err != nil {
		return Result{}, err
	}
	return Result{SizeBytes: int64(w.layout.blocks) * blockSize, Inodes: w.inodes, Blocks: w.layout.blocks - free, BytesWritten: w.written}, nil
}

// writeTree gives inodes their numbers, directory by directory, and writes what they have outside of the inode tables,
// except for the data that is there already. It gives them in the order of their numbers.
func (w *writer) writeTree() ([]*node, error) {
	w.root.ino, w.lost.ino = ext4.RootInode, ext4.FirstInode
	order := append(make([]*node, 0, w.inodes), w.root, w.lost)
	next := uint32(ext4.FirstInode)
	for i := 0; i < len(order); i++ {
		n := order[i]
		if n.isDir() {
			names := n.names()
			for _, e := range names {
				if e.node.ino == 0 {
					next++
					e.node.ino = next
					order = append(order, e.node)
				}
			}
			if err := w.writeDir(n, names); err != nil {
				return nil, err
			}
		}
		if err := w.extentTree(n, w.super.InodeSeed(n.ino, 0)); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// writeInodes writes the inode tables and the inodes that have no name.
func (w *writer) writeInodes(order []*node) (journal *node, err error) {
	l, last := &w.layout, order[len(order)-1].ino
	const most = 4096 // inodes at once
	table := make([]byte, 0, min(most, last+ext4.InodesPerBlock)*ext4.InodeSize)
	for g := uint32(0); g*l.inodesPerGroup < last; g++ {
		start := g * l.inodesPerGroup
		for done := uint32(0); done < l.inodesPerGroup && start+done < last; done += most {
			count := min(most, l.inodesPerGroup-done, last-start-done)
			blocks := (count + ext4.InodesPerBlock - 1) / ext4.InodesPerBlock
			table = table[:blocks*blockSize]
			clear(table)
			at := func(ino uint32) ext4.Inode {
				i := ino - 1 - start - done
				return table[i*ext4.InodeSize : (i+1)*ext4.InodeSize]
			}
			if g == 0 && done == 0 {
				if l.journal.to > 0 {
					if journal, err = w.journal(); err != nil {
						return nil, err
					}
					w.putInode(at(ext4.JournalInode), journal)
				}
				if l.reservedGDT > 0 {
					if err := w.resizeInode(at(ext4.ResizeInode)); err != nil {
						return nil, err
					}
				}
			}
			for len(order) > 0 && order[0].ino <= start+done+count {
				w.putInode(at(order[0].ino), order[0])
				order = order[1:]
			}
			if err := w.writeAt(table, l.inodeTable(g)+uint64(done/ext4.InodesPerBlock)); err != nil {
				return nil, err
			}
		}
	}
	return journal, nil
}

// writeGroups writes bitmaps, descriptors and superblocks. It gives how many blocks are free.
func (w *writer) writeGroups(order []*node, journal *node) (free uint64, err error) {
	l := &w.layout
	last := order[len(order)-1].ino
	dirs := make([]uint32, l.groups)
	for _, n := range order {
		if n.isDir() {
			dirs[(n.ino-1)/l.inodesPerGroup]++
		}
	}
	slices.SortFunc(w.freed, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	usage := usage{w: w, owned: l.owned(), freed: w.freed}
	descs := make([]byte, int(l.descBlocks)*blockSize)
	bitmap := make([]byte, blockSize)
	for g := range l.groups {
		d := ext4.Group(descs[g*ext4.DescSize : (g+1)*ext4.DescSize])
		putSplit := func(low int, v uint64) { le.PutUint32(d[low:], uint32(v)); le.PutUint32(d[low+0x20:], uint32(v>>32)) }
		putSplit(0, l.blockBitmap(g))
		putSplit(4, l.inodeBitmap(g))
		putSplit(8, l.inodeTable(g))
		flags := uint16(ext4.GroupITableZero)

		blocks, touched := usage.group(g, bitmap)
		free += uint64(blocks)
		d.SetFreeBlocks(blocks)
		if touched {
			d.SetBlockBitmapSum(w.super.BitmapSum(bitmap))
			if err := w.buffer(bitmap, l.blockBitmap(g)); err != nil {
				return 0, err
			}
		} else {
			flags |= ext4.GroupBlockUninit
		}

		used := min(l.inodesPerGroup, last-min(last, g*l.inodesPerGroup))
		d.SetFreeInodes(l.inodesPerGroup - used)
		d.SetUnusedInodes(l.inodesPerGroup - used)
		d.SetUsedDirs(dirs[g])
		if used == 0 {
			flags |= ext4.GroupInodeUninit
		}
		d.SetFlags(flags)
	}
	if err := w.flush(); err != nil {
		return 0, err
	}
	if err := w.inodeBitmaps(descs, last); err != nil {
		return 0, err
	}
	for g := range l.groups {
		d := ext4.Group(descs[g*ext4.DescSize : (g+1)*ext4.DescSize])
		d.SetSum(w.super.GroupSum(g, d))
	}
	return free, w.superblocks(free, journal, descs)
}

// buffer adds a block to the buffer, which it flushes when block does not follow.
func (w *writer) buffer(b []byte, block uint64) error {
	if err := w.follow(block); err != nil {
		return err
	}
	w.buf = append(w.buf, b...)
	return nil
}

func (w *writer) inodeBitmaps(descs []byte, last uint32) error {
	per := w.layout.inodesPerGroup
	bitmap := make([]byte, blockSize)
	for g := uint32(0); g*per < last; g++ {
		clear(bitmap)
		setBits(bitmap, span{0, uint64(min(per, last-g*per))})
		setBits(bitmap, span{uint64(per), perGroup})
		ext4.Group(descs[g*ext4.DescSize : (g+1)*ext4.DescSize]).SetInodeBitmapSum(w.super.BitmapSum(bitmap[:per/8]))
		if err := w.buffer(bitmap, w.layout.inodeBitmap(g)); err != nil {
			return err
		}
	}
	return w.flush()
}

// superblocks writes the superblock and its copies, each with the descriptors behind it.
func (w *writer) superblocks(free uint64, journal *node, descs []byte) error {
	super := w.superblock(free, journal)
	b := make([]byte, blockSize+len(descs))
	copy(b[blockSize:], descs)
	for g := range w.layout.groups {
		if !ext4.HasSuper(g) {
			continue
		}
		le.PutUint16(super[0x5A:], uint16(g))
		le.PutUint32(super[0x3FC:], ext4.Checksum(^uint32(0), super[:0x3FC]))
		clear(b[:blockSize])
		if g == 0 {
			copy(b[ext4.SuperOffset:], super)
		} else {
			copy(b, super)
		}
		if err := errors.Join(w.ctx.Err(), w.writeAt(b, uint64(g)*perGroup)); err != nil {
			return err
		}
	}
	return nil
}

// usage finds out which blocks are in use, group by group.
type usage struct {
	w     *writer
	owned []span // metadata from here on
	freed []span
}

// group fills the block bitmap of a group. It tells how many of its blocks are free, and whether its bitmap must be written:
// without, readers take it that only the superblock and the descriptors are in use.
func (u *usage) group(g uint32, bitmap []byte) (free uint32, touched bool) {
	l := &u.w.layout
	start := uint64(g) * perGroup
	end := min(start+perGroup, l.blocks)
	clear(bitmap)
	mark := func(s span) { setBits(bitmap, s.within(start, end)) }
	unmark := func(s span) { clearBits(bitmap, s.within(start, end)) }
	touched = u.w.opts.Fit || g == l.groups-1 || g%ext4.GroupsPerFlex == 0
	if u.w.next > start {
		mark(span{start, u.w.next})
		touched = true
		// What was laid out for a group that is cut off, or reserved and not reached, holds no data.
		for _, s := range l.reservedIn(g) {
			unmark(s)
		}
	}
	for len(u.freed) > 0 && u.freed[0].to <= start {
		u.freed = u.freed[1:]
	}
	for _, s := range u.freed {
		if s.from >= end {
			break
		}
		unmark(s)
	}
	for len(u.owned) > 0 && u.owned[0].to <= start {
		u.owned = u.owned[1:]
	}
	for _, s := range u.owned {
		if s.from >= end {
			break
		}
		mark(s)
		touched = touched || s == l.journal
	}
	used := 0
	for at := 0; at < len(bitmap); at += 8 {
		used += bits.OnesCount64(le.Uint64(bitmap[at:]))
	}
	setBits(bitmap, span{end - start, perGroup})
	return uint32(end-start) - uint32(used), touched
}

// within cuts s to [start, end) and counts from start.
func (s span) within(start, end uint64) span {
	from := min(max(s.from, start), end)
	return span{from - start, max(min(s.to, end), from) - start}
}

func setBits(b []byte, s span) {
	at := s.from
	for ; at < s.to && at%8 != 0; at++ {
		b[at/8] |= 1 << (at % 8)
	}
	for ; at+8 <= s.to; at += 8 {
		b[at/8] = 0xFF
	}
	for ; at < s.to; at++ {
		b[at/8] |= 1 << (at % 8)
	}
}

func clearBits(b []byte, s span) {
	for at := s.from; at < s.to; at++ {
		b[at/8] &^= 1 << (at % 8)
	}
}

// punch gives the host back what replaced entries took.
func (w *writer) punch() error {
	for _, s := range w.freed {
		to := min(s.to, w.layout.blocks)
		if s.from >= to {
			continue
		}
		err := unix.Fallocate(int(w.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(s.from)*blockSize, int64(to-s.from)*blockSize)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("free blocks: %w", err)
		}
	}
	return nil
}
