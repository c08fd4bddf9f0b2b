package patch

import "banger/internal/ext4"

// groupDesc gives a group's descriptor to change. Who changes it seals it.
func (tx *Tx) groupDesc(group uint32) (ext4.Group, error) {
	if _, err := tx.fs.Group(group); err != nil { // verifies
		return nil, err
	}
	block, off := tx.sb.DescLocation(group)
	b, err := tx.edit(block)
	if err != nil {
		return nil, err
	}
	tx.touched[group] = true
	return ext4.Group(b[off : off+tx.sb.DescSize]), nil
}

// sealGroup makes a descriptor verify again. The bitmaps' own checksums in it are computed at the commit.
func (tx *Tx) sealGroup(group uint32, g ext4.Group) {
	if tx.sb.GroupCsum() {
		g.SetSum(tx.sb.GroupSum(group, g))
	}
}

// sealBitmaps writes the checksums of all bitmaps that changed.
func (tx *Tx) sealBitmaps() error {
	if !tx.sb.MetadataCsum() {
		return nil
	}
	for group := range tx.touched {
		g, err := tx.groupDesc(group)
		if err != nil {
			return err
		}
		if b, ok := tx.dirty[g.BlockBitmap()]; ok {
			g.SetBlockBitmapSum(tx.sb.BitmapSum(b[:tx.sb.BlocksPerGroup/8]))
		}
		if b, ok := tx.dirty[g.InodeBitmap()]; ok {
			g.SetInodeBitmapSum(tx.sb.BitmapSum(b[:tx.sb.InodesPerGroup/8]))
		}
		tx.sealGroup(group, g)
	}
	return nil
}

// bitmap gives a bitmap to change, of which length bytes are summed.
func (tx *Tx) bitmap(block uint64, length int, sum uint32) ([]byte, error) {
	if _, ok := tx.dirty[block]; !ok && tx.sb.MetadataCsum() && !tx.verified[block] {
		b, err := tx.fs.Block(block)
		if err != nil {
			return nil, err
		}
		if got := tx.sb.BitmapSum(b[:length]); got != sum {
			return nil, corrupt("bitmap in block %d: checksum %#x, computed %#x", block, sum, got)
		}
		tx.verified[block] = true
	}
	return tx.edit(block)
}

// blockBitmap gives a group's descriptor and bitmap of blocks to change, and makes the bitmap when there is none yet.
func (tx *Tx) blockBitmap(group uint32) (ext4.Group, []byte, error) {
	g, err := tx.groupDesc(group)
	if err != nil {
		return nil, nil, err
	}
	if !tx.sb.GroupCsum() || g.Flags()&ext4.GroupBlockUninit == 0 {
		b, err := tx.bitmap(g.BlockBitmap(), int(tx.sb.BlocksPerGroup/8), g.BlockBitmapSum())
		return g, b, err
	}
	b := tx.fresh(g.BlockBitmap())
	start, count := tx.sb.GroupStart(group), tx.sb.GroupBlocks(group)
	mark := func(block, n uint64) {
		for i := range n {
			if block+i >= start && block+i < start+uint64(count) {
				setBit(b, uint32(block+i-start))
			}
		}
	}
	mark(start, tx.sb.BaseMeta(group))
	mark(g.BlockBitmap(), 1)
	mark(g.InodeBitmap(), 1)
	mark(g.InodeTable(), tx.sb.TableBlocks())
	for i := count; i < uint32(len(b)*8); i++ {
		setBit(b, i)
	}
	g.SetFlags(g.Flags() &^ ext4.GroupBlockUninit)
	tx.sealGroup(group, g)
	return g, b, nil
}

// inodeBitmap does the same for inodes.
func (tx *Tx) inodeBitmap(group uint32) (ext4.Group, []byte, error) {
	g, err := tx.groupDesc(group)
	if err != nil {
		return nil, nil, err
	}
	per := tx.sb.InodesPerGroup
	if !tx.sb.GroupCsum() || g.Flags()&ext4.GroupInodeUninit == 0 {
		b, err := tx.bitmap(g.InodeBitmap(), int(per/8), g.InodeBitmapSum())
		return g, b, err
	}
	b := tx.fresh(g.InodeBitmap())
	for i := per; i < uint32(len(b)*8); i++ {
		setBit(b, i)
	}
	g.SetFlags(g.Flags() &^ ext4.GroupInodeUninit)
	g.SetUnusedInodes(per)
	tx.sealGroup(group, g)
	return g, b, nil
}

// allocate gives n blocks as runs, from a group on. What this transaction frees is not among them: should the commit not
// come to be, that content is still in use.
func (tx *Tx) allocate(group uint32, n uint64) (list []run, err error) {
	for i := uint32(0); i < tx.sb.Groups && n > 0; i++ {
		at := (group + i) % tx.sb.Groups
		g, err := tx.fs.Group(at)
		if err != nil {
			return nil, err
		}
		if g.FreeBlocks() == 0 {
			continue
		}
		g, b, err := tx.blockBitmap(at)
		if err != nil {
			return nil, err
		}
		taken := uint64(0)
		for from := uint32(0); n > 0; {
			start, count := freeRun(b, from, tx.sb.GroupBlocks(at), n)
			if count == 0 {
				break
			}
			for j := range count {
				setBit(b, start+j)
			}
			list = append(list, run{tx.sb.GroupStart(at) + uint64(start), uint64(count)})
			n, taken, from = n-uint64(count), taken+uint64(count), start+count
		}
		if taken > uint64(g.FreeBlocks()) {
			return nil, corrupt("group %d has more free blocks than it counts", at)
		}
		g.SetFreeBlocks(g.FreeBlocks() - uint32(taken))
		tx.sealGroup(at, g)
	}
	if n > 0 {
		return nil, unavailable("no space left in the file system")
	}
	return list, nil
}

// allocateOne gives one block of metadata.
func (tx *Tx) allocateOne(group uint32) (uint64, error) {
	list, err := tx.allocate(group, 1)
	if err != nil {
		return 0, err
	}
	return list[0].block, nil
}

// freeRun finds the first clear bits at or after from, at most n of them.
func freeRun(b []byte, from, end uint32, n uint64) (start, count uint32) {
	for start = from; start < end && isSet(b, start); {
		if start%8 == 0 && b[start/8] == 0xFF {
			start += 8
			continue
		}
		start++
	}
	for start+count < end && uint64(count) < n && !isSet(b, start+count) {
		count++
	}
	return start, count
}

// release makes blocks free with the commit.
func (tx *Tx) release(block, count uint64) {
	tx.freed = append(tx.freed, run{block, count})
	if count <= uint64(len(tx.dirty)) {
		for i := range count {
			delete(tx.dirty, block+i)
		}
		return
	}
	for dirty := range tx.dirty {
		if dirty >= block && dirty-block < count {
			delete(tx.dirty, dirty)
		}
	}
}

// applyFreed clears the bits of what was released.
func (tx *Tx) applyFreed() error {
	for _, r := range tx.freed {
		for r.count > 0 {
			group := tx.sb.GroupOf(r.block)
			g, b, err := tx.blockBitmap(group)
			if err != nil {
				return err
			}
			first := uint32(r.block - tx.sb.GroupStart(group))
			n := uint32(min(r.count, uint64(tx.sb.GroupBlocks(group)-first)))
			for i := first; i < first+n; i++ {
				if !isSet(b, i) {
					return corrupt("block %d is freed twice", tx.sb.GroupStart(group)+uint64(i))
				}
				b[i/8] &^= 1 << (i % 8)
			}
			g.SetFreeBlocks(g.FreeBlocks() + n)
			tx.sealGroup(group, g)
			r.block, r.count = r.block+uint64(n), r.count-uint64(n)
		}
	}
	tx.freed = nil
	return nil
}

// allocateInode gives a free inode from a group on.
func (tx *Tx) allocateInode(group uint32, dir bool) (uint32, error) {
	per := tx.sb.InodesPerGroup
	for i := range tx.sb.Groups {
		at := (group + i) % tx.sb.Groups
		g, err := tx.fs.Group(at)
		if err != nil {
			return 0, err
		}
		if g.FreeInodes() == 0 {
			continue
		}
		g, b, err := tx.inodeBitmap(at)
		if err != nil {
			return 0, err
		}
		first := uint32(0)
		if at == 0 {
			first = tx.sb.FirstIno - 1
		}
		bit, count := freeRun(b, first, per, 1)
		if count == 0 {
			continue
		}
		setBit(b, bit)
		g.SetFreeInodes(g.FreeInodes() - 1)
		known := per
		if tx.sb.GroupCsum() {
			known = per - min(g.UnusedInodes(), per)
			g.SetUnusedInodes(min(g.UnusedInodes(), per-bit-1))
		}
		if dir {
			g.SetUsedDirs(g.UsedDirs() + 1)
		}
		tx.sealGroup(at, g)
		return at*per + bit + 1, tx.clearTable(at*per+bit+1, at*per+known+1)
	}
	return 0, unavailable("no inodes left in the file system")
}

// clearTable zeroes the inodes from first on that share ino's block of the table: nobody has written them yet.
func (tx *Tx) clearTable(ino, first uint32) error {
	if ino < first {
		return nil
	}
	block, off, err := tx.fs.InodeLocation(ino)
	if err != nil {
		return err
	}
	b, err := tx.edit(block)
	if err != nil {
		return err
	}
	clear(b[max(0, off-int(ino-first)*tx.sb.InodeSize):])
	return nil
}

func (tx *Tx) releaseInode(ino uint32, dir bool) error {
	group, bit := (ino-1)/tx.sb.InodesPerGroup, (ino-1)%tx.sb.InodesPerGroup
	g, b, err := tx.inodeBitmap(group)
	if err != nil {
		return err
	}
	if !isSet(b, bit) {
		return corrupt("inode %d is freed twice", ino)
	}
	b[bit/8] &^= 1 << (bit % 8)
	g.SetFreeInodes(g.FreeInodes() + 1)
	if dir {
		g.SetUsedDirs(g.UsedDirs() - 1)
	}
	tx.sealGroup(group, g)
	return nil
}

func setBit(b []byte, i uint32)     { b[i/8] |= 1 << (i % 8) }
func isSet(b []byte, i uint32) bool { return b[i/8]>>(i%8)&1 != 0 }

// extentsOf joins runs of new blocks to the extents of a file, from block logical on.
func extentsOf(list []ext4.Extent, logical uint32, runs []run) []ext4.Extent {
	const most = 32768 // blocks in one extent
	for _, r := range runs {
		for r.count > 0 {
			if k := len(list) - 1; k >= 0 && !list[k].Unwritten && list[k].Len < most && list[k].Logical+list[k].Len == logical && list[k].Physical+uint64(list[k].Len) == r.block {
				n := uint32(min(r.count, uint64(most-list[k].Len)))
				list[k].Len += n
				logical, r.block, r.count = logical+n, r.block+uint64(n), r.count-uint64(n)
				continue
			}
			n := uint32(min(r.count, most))
			list = append(list, ext4.Extent{Logical: logical, Len: n, Physical: r.block})
			logical, r.block, r.count = logical+n, r.block+uint64(n), r.count-uint64(n)
		}
	}
	return list
}
