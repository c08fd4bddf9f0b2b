package check

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"banger"
	"banger/internal/ext4"
)

// groups claims what lies at fixed places and what the descriptors point to.
func (c *checker) groups() error {
	for group := range c.sb.Groups {
		g, err := c.f.RawGroup(group)
		if err != nil {
			return c.judge(Group, groupName(group), err)
		}
		if err := c.group(group, g); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) group(group uint32, g ext4.Group) error {
	where := groupName(group)
	if got, want := g.Sum(), c.sb.GroupSum(group, g); c.sb.GroupCsum() && got != want {
		if err := c.fault(Checksum, where, "descriptor has %#x, computed %#x", got, want); err != nil {
			return err
		}
	}
	if c.opt.ZeroedTables && c.sb.GroupCsum() && g.Flags()&ext4.GroupITableZero == 0 {
		if err := c.fault(Zeroed, where, "flag is not set"); err != nil {
			return err
		}
	}
	base := min(c.sb.BaseMeta(group), uint64(c.sb.GroupBlocks(group)))
	if base > 0 {
		if err := c.claimMeta(where, c.sb.GroupStart(group), base); err != nil {
			return err
		}
	}
	for _, run := range []struct{ block, count uint64 }{{g.BlockBitmap(), 1}, {g.InodeBitmap(), 1}, {g.InodeTable(), c.sb.TableBlocks()}} {
		if c.sb.Incompat&ext4.IncompatFlexBG == 0 && (run.block < c.sb.GroupStart(group) || run.block >= c.sb.GroupStart(group)+uint64(c.sb.GroupBlocks(group))) {
			if err := c.fault(Group, where, "metadata at block %d lies in another group", run.block); err != nil {
				return err
			}
			continue
		}
		if err := c.claimMeta(where, run.block, run.count); err != nil {
			return err
		}
	}
	return nil
}

// claimMeta claims blocks of metadata and remembers how many lie in each group.
func (c *checker) claimMeta(where string, block, count uint64) error {
	if block < uint64(c.sb.FirstDataBlock) || block >= c.sb.BlocksCount || count > c.sb.BlocksCount-block {
		return c.fault(Group, where, "metadata at blocks %d+%d of %d", block, count, c.sb.BlocksCount)
	}
	for at, left := block, count; left > 0; {
		group := c.sb.GroupOf(at)
		run := min(left, c.sb.GroupStart(group)+uint64(c.sb.GroupBlocks(group))-at)
		c.meta[group] += uint32(run)
		at, left = at+run, left-run
	}
	return c.claim(where, block, count)
}

// bitmaps compares what was found with bitmaps, descriptors and superblock.
func (c *checker) bitmaps() error {
	var freeBlocks uint64
	var freeInodes uint32
	for group := range c.sb.Groups {
		g, err := c.f.RawGroup(group)
		if err != nil {
			return c.judge(Group, groupName(group), err)
		}
		blocks, err := c.blockBitmap(group, g)
		if err != nil {
			return err
		}
		inodes, err := c.inodeBitmap(group, g)
		if err != nil {
			return err
		}
		for _, n := range []struct {
			what          string
			stored, found uint32
		}{{"free blocks", g.FreeBlocks(), blocks}, {"free inodes", g.FreeInodes(), inodes}, {"directories", g.UsedDirs(), c.dirs[group]}} {
			if n.stored != n.found {
				if err := c.fault(FreeCount, groupName(group), "%d %s, found %d", n.stored, n.what, n.found); err != nil {
					return err
				}
			}
		}
		freeBlocks, freeInodes = freeBlocks+uint64(blocks), freeInodes+inodes
	}
	if c.f.NeedsRecovery() { // the kernel writes the totals when it unmounts
		return nil
	}
	if freeBlocks != c.sb.FreeBlocks || freeInodes != c.sb.FreeInodes {
		return c.fault(FreeCount, "superblock", "%d free blocks and %d inodes, found %d and %d", c.sb.FreeBlocks, c.sb.FreeInodes, freeBlocks, freeInodes)
	}
	return nil
}

// blockBitmap compares one and gives the number of blocks that are really free.
func (c *checker) blockBitmap(group uint32, g ext4.Group) (free uint32, err error) {
	where, count := groupName(group), c.sb.GroupBlocks(group)
	used := c.blocks[group]
	if used == nil {
		used = make([]byte, c.sb.BlocksPerGroup/8)
	}
	free = count - ones(used, count)
	if c.sb.GroupCsum() && g.Flags()&ext4.GroupBlockUninit != 0 {
		if n := ones(used, count); n != c.meta[group] {
			return free, c.fault(BlockBitmap, where, "has no bitmap, but %d blocks are in use", n-c.meta[group])
		}
		return free, nil
	}
	b, err := c.bitmap(BlockBitmap, where, g.BlockBitmap(), g.BlockBitmapSum(), int(c.sb.BlocksPerGroup/8))
	if err != nil || b == nil {
		return free, err
	}
	first := c.sb.GroupStart(group)
	return free, c.compare(BlockBitmap, where, "block", b, used, count, first)
}

func (c *checker) inodeBitmap(group uint32, g ext4.Group) (free uint32, err error) {
	where, per := groupName(group), c.sb.InodesPerGroup
	used := make([]byte, (per+7)/8)
	for i := range per {
		ino := group*per + i + 1
		if _, ok := c.inodes[ino]; ok || ino < c.sb.FirstIno {
			used[i/8] |= 1 << (i % 8)
		}
	}
	free = per - ones(used, per)
	if c.sb.GroupCsum() && g.Flags()&ext4.GroupInodeUninit != 0 {
		return free, nil
	}
	b, err := c.bitmap(InodeBitmap, where, g.InodeBitmap(), g.InodeBitmapSum(), int((per+7)/8))
	if err != nil || b == nil {
		return free, err
	}
	return free, c.compare(InodeBitmap, where, "inode", b, used, per, uint64(group)*uint64(per)+1)
}

// bitmap reads one and verifies its checksum over length bytes; nil when it cannot be read.
func (c *checker) bitmap(class Class, where string, block uint64, stored uint32, length int) ([]byte, error) {
	b, err := c.f.Block(block)
	if err != nil {
		return nil, c.judge(class, where, err)
	}
	if sum := c.sb.BitmapSum(b[:length]); c.sb.MetadataCsum() && sum != stored {
		return b, c.fault(Checksum, where, "%s has %#x, computed %#x", class, stored, sum)
	}
	return b, nil
}

// compare reports the first difference of either kind, and bits after the end that are not set.
func (c *checker) compare(class Class, where, what string, b, used []byte, count uint32, first uint64) error {
	var lost, extra, padding uint32
	var firstLost, firstExtra uint64
	for i := range uint32(len(b) * 8) {
		set := b[i/8]&(1<<(i%8)) != 0
		if i >= count {
			if !set {
				padding++
			}
			continue
		}
		switch inUse := used[i/8]&(1<<(i%8)) != 0; {
		case inUse && !set:
			if lost++; lost == 1 {
				firstLost = first + uint64(i)
			}
		case set && !inUse:
			if extra++; extra == 1 {
				firstExtra = first + uint64(i)
			}
		}
	}
	var err error
	if lost > 0 {
		err = c.fault(class, where, "%d %ss in use are marked free, the first %d", lost, what, firstLost)
	}
	if extra > 0 && err == nil {
		err = c.fault(class, where, "%d %ss are marked in use but are not, the first %d", extra, what, firstExtra)
	}
	if padding > 0 && err == nil {
		err = c.fault(class, where, "%d bits after the end are clear", padding)
	}
	return err
}

// ones counts the bits that are set among the first n.
func ones(b []byte, n uint32) (count uint32) {
	whole := int(n / 8)
	for i := 0; i+8 <= whole; i += 8 {
		count += uint32(bits.OnesCount64(binary.LittleEndian.Uint64(b[i:])))
	}
	for i := whole &^ 7; i < whole; i++ {
		count += uint32(bits.OnesCount8(b[i]))
	}
	if n%8 != 0 {
		count += uint32(bits.OnesCount8(b[whole] & (1<<(n%8) - 1)))
	}
	return count
}

func isCorrupt(err error) bool { return errors.Is(err, banger.ErrCorrupt) }
