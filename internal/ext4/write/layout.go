package write

import (
	"cmp"
	"math"
	"slices"

	"banger"
	"banger/internal/ext4"
)

const (
	blockSize = ext4.BlockSize
	perGroup  = ext4.BlocksPerGroup
	minSize   = 8 << 20
	maxSize   = 16 << 40

	minJournal = 1024   // blocks; the kernel's own limit
	maxJournal = 262144 // blocks
	// spare is what a last group must have beyond its metadata to be worth having, as mke2fs decides.
	spare = 50
)

// span is the blocks [from, to).
type span struct{ from, to uint64 }

// layout is where metadata lies: flex groups of 16, each with its bitmaps and inode tables behind the superblock of its
// first group. Positions stay when the file system is cut; only blocks, groups and descBlocks shrink.
type layout struct {
	blocks         uint64
	groups         uint32
	inodesPerGroup uint32
	tableBlocks    uint32 // of one group's inode table
	descBlocks     uint32
	reservedGDT    uint32
	journal        span

	laidGroups uint32 // groups and blocks at the start of a group with a superblock, before a cut
	laidSuper  uint32
}

func newLayout(opts Options) (layout, error) {
	if err := opts.check(); err != nil {
		return layout{}, err
	}
	ratio := cmp.Or(opts.InodeRatio, 16384)
	l := layout{blocks: uint64(opts.SizeBytes / blockSize), reservedGDT: opts.ReservedGDT}
	for {
		l.setBlocks(l.blocks)
		inodes := (int64(l.blocks)*blockSize/ratio + int64(l.groups) - 1) / int64(l.groups)
		l.inodesPerGroup = uint32(min(max((inodes+15)/16*16, 16), perGroup, int64(math.MaxUint32)/int64(l.groups)/16*16))
		l.tableBlocks = l.inodesPerGroup / ext4.InodesPerBlock
		l.laidGroups, l.laidSuper = l.groups, 1+l.descBlocks+l.reservedGDT
		last := l.groups - 1
		if l.laidSuper+(2+l.tableBlocks)*min(ext4.GroupsPerFlex, l.groups)+spare > perGroup {
			return layout{}, banger.Invalidf("the metadata of a file system of %d bytes with %d bytes per inode does not fit its groups", opts.SizeBytes, ratio)
		}
		if l.blocks-uint64(last)*perGroup >= l.metadata(last)+spare {
			break
		}
		if last == 0 {
			return layout{}, banger.Invalidf("a file system of %d bytes is too small for its metadata", opts.SizeBytes)
		}
		l.blocks = uint64(last) * perGroup
	}
	return l, l.placeJournal(opts)
}

func (opts Options) check() error {
	switch {
	case opts.SizeBytes < minSize || opts.SizeBytes > maxSize:
		return banger.Invalidf("a file system of %d bytes: the size must be from 8 MiB to 16 TiB", opts.SizeBytes)
	case len(opts.Label) > 16:
		return banger.Invalidf("label %q is longer than 16 bytes", opts.Label)
	case opts.ReservedGDT > 1016:
		return banger.Invalidf("%d reserved descriptor blocks: at most 1016", opts.ReservedGDT)
	case opts.InodeRatio != 0 && (opts.InodeRatio < 8192 || opts.InodeRatio > 64<<20):
		return banger.Invalidf("%d bytes per inode: from 8 KiB to 64 MiB", opts.InodeRatio)
	case opts.JournalBlocks > 0 && opts.JournalBlocks < minJournal || opts.JournalBlocks > maxJournal:
		return banger.Invalidf("a journal of %d blocks: from %d to %d", opts.JournalBlocks, minJournal, maxJournal)
	}
	return nil
}

func (l *layout) setBlocks(n uint64) {
	l.blocks = n
	l.groups = uint32((n + perGroup - 1) / perGroup)
	l.descBlocks = (l.groups*ext4.DescSize + blockSize - 1) / blockSize
}

// metadata is how many blocks at the start of a group are not for data.
func (l *layout) metadata(g uint32) uint64 {
	var n uint64
	if ext4.HasSuper(g) {
		n = uint64(l.laidSuper)
	}
	if g%ext4.GroupsPerFlex == 0 {
		n += uint64(l.flexSize(g)) * uint64(2+l.tableBlocks)
	}
	return n
}

// flexSize is how many groups a group's flex group was laid out for.
func (l *layout) flexSize(g uint32) uint32 {
	return min(ext4.GroupsPerFlex, l.laidGroups-g/ext4.GroupsPerFlex*ext4.GroupsPerFlex)
}

// tables is where a flex group's bitmaps begin.
func (l *layout) tables(g uint32) uint64 {
	first := g / ext4.GroupsPerFlex * ext4.GroupsPerFlex
	start := uint64(first) * perGroup
	if ext4.HasSuper(first) {
		start += uint64(l.laidSuper)
	}
	return start
}

func (l *layout) blockBitmap(g uint32) uint64 { return l.tables(g) + uint64(g%ext4.GroupsPerFlex) }

func (l *layout) inodeBitmap(g uint32) uint64 { return l.blockBitmap(g) + uint64(l.flexSize(g)) }

func (l *layout) inodeTable(g uint32) uint64 {
	return l.tables(g) + 2*uint64(l.flexSize(g)) + uint64(g%ext4.GroupsPerFlex)*uint64(l.tableBlocks)
}

// placeJournal takes the first place that is long enough, from the middle on as mke2fs does; from the start when the end will be cut.
func (l *layout) placeJournal(opts Options) error {
	need := uint64(max(opts.JournalBlocks, 0))
	switch {
	case opts.JournalBlocks != 0:
	case opts.SizeBytes >= 1<<30:
		need = 64 << 20 / blockSize
	case opts.SizeBytes >= 64<<20:
		need = 16 << 20 / blockSize
	default:
		need = minJournal
	}
	if need == 0 {
		return nil
	}
	middle := uint64(l.groups/2) * perGroup
	if opts.Fit {
		middle = 0
	}
	at, ok := l.firstFit(middle, need)
	if !ok {
		at, ok = l.firstFit(0, need)
	}
	if !ok {
		return banger.Invalidf("a file system of %d bytes has no room for a journal of %d blocks", opts.SizeBytes, need)
	}
	l.journal = span{at, at + need}
	return nil
}

func (l *layout) firstFit(at, need uint64) (uint64, bool) {
	for _, s := range append(l.reserved(), span{l.blocks, l.blocks}) {
		if s.from > at && s.from-at >= need {
			return at, true
		}
		at = max(at, s.to)
	}
	return 0, false
}

// reserved is what data keeps away from, in order.
func (l *layout) reserved() []span {
	var list []span
	for g := range l.groups {
		if n := l.metadata(g); n > 0 {
			list = append(list, span{uint64(g) * perGroup, uint64(g)*perGroup + n})
		}
	}
	return l.withJournal(list)
}

// owned is the metadata of the file system as it is now, in order: what was laid out for groups that are cut off is free.
func (l *layout) owned() []span {
	var list []span
	for g := range l.groups {
		start := uint64(g) * perGroup
		if ext4.HasSuper(g) {
			list = append(list, span{start, start + uint64(1+l.descBlocks+l.reservedGDT)})
		}
		if g%ext4.GroupsPerFlex == 0 {
			n, bitmaps, table := uint64(min(ext4.GroupsPerFlex, l.groups-g)), l.blockBitmap(g), l.inodeTable(g)
			list = append(list, span{bitmaps, bitmaps + n}, span{l.inodeBitmap(g), l.inodeBitmap(g) + n}, span{table, table + n*uint64(l.tableBlocks)})
		}
	}
	return l.withJournal(list)
}

func (l *layout) withJournal(list []span) []span {
	if l.journal.to > 0 {
		list = append(list, l.journal)
		slices.SortFunc(list, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	}
	return list
}

// cut shortens the file system to what holds the blocks below used and so many inodes.
func (l *layout) cut(used uint64, inodes uint32) {
	groups := max(uint32((max(used, l.journal.to)+perGroup-1)/perGroup), (inodes+l.inodesPerGroup-1)/l.inodesPerGroup, 1)
	last := groups - 1
	l.setBlocks(min(l.blocks, max(used, l.journal.to, uint64(last)*perGroup+l.metadata(last)+spare)))
}

// reservedIn is what data keeps away from in a group, as laid out.
func (l *layout) reservedIn(g uint32) []span {
	start := uint64(g) * perGroup
	return []span{{start, start + l.metadata(g)}, l.journal}
}
