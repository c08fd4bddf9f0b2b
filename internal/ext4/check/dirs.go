package check

import (
	"maps"
	"slices"

	"banger/internal/ext4"
	"banger/internal/ext4/read"
)

// directories reads every directory in use, reachable or not.
func (c *checker) directories() error {
	for _, ino := range c.order {
		in := c.inodes[ino]
		if in.mode&0xF000 != ext4.TypeDir {
			continue
		}
		n, err := c.f.Unverified(ino)
		if err != nil {
			continue // noted already
		}
		d := &directory{c: c, n: n, ino: ino, in: in, where: inodeName(ino), names: map[string]bool{}}
		if err := d.check(); err != nil {
			return err
		}
	}
	for _, block := range slices.Sorted(maps.Keys(c.xattrs)) {
		if x := c.xattrs[block]; x.stored != x.found {
			if err := c.fault(Xattr, "superblock", "block %d of attributes counts %d inodes, found %d", block, x.stored, x.found); err != nil {
				return err
			}
		}
	}
	return nil
}

type directory struct {
	c     *checker
	n     *read.Node
	ino   uint32
	in    *inode
	where string
	names map[string]bool

	ranges []hashRange // of the blocks of names, when there is an index; by block
	hashed bool        // the names' hashes can be computed
}

// hashRange is what the index says of a block.
type hashRange struct {
	indexed bool
	node    bool // a block of the index
	lo, hi  uint32
}

func (d *directory) check() error {
	raw := d.n.Raw()
	if raw.Flags()&ext4.InodeInline != 0 {
		return d.inline()
	}
	data, _, err := d.n.Layout()
	if err != nil {
		return nil // noted already
	}
	var places []uint64
	for _, e := range data {
		if uint64(e.Logical) != uint64(len(places)) || e.Unwritten {
			return d.fault(Directory, "hole at block %d", len(places))
		}
		for i := range uint64(e.Len) {
			places = append(places, e.Physical+i)
		}
	}
	if len(places) == 0 {
		return d.fault(Directory, "has no blocks")
	}
	if raw.Flags()&ext4.InodeIndex != 0 {
		if err := d.index(places); err != nil {
			return err
		}
	}
	for i, place := range places {
		b, err := d.c.f.Block(place)
		if err != nil {
			return d.c.judge(Directory, d.where, err)
		}
		if err := d.c.judge(Checksum, d.where, d.n.VerifyDirBlock(b, uint64(i))); err != nil {
			return err
		}
		if err := d.block(b, i); err != nil {
			return err
		}
	}
	return nil
}

func (d *directory) fault(class Class, format string, args ...any) error {
	return d.c.fault(class, d.where, format, args...)
}

// inline checks a directory that lies in its inode.
func (d *directory) inline() error {
	parent, err := d.n.Parent()
	if err != nil {
		return d.c.judge(Directory, d.where, err)
	}
	d.in.dotdot = parent
	for e, err := range d.n.Entries() {
		if err != nil {
			return d.c.judge(Directory, d.where, err)
		}
		if err := d.entry(e.Name, e.Ino, e.Type); err != nil {
			return err
		}
	}
	return nil
}

// block checks the entries of block number logical.
func (d *directory) block(b []byte, logical int) error {
	hasTypes := d.c.sb.Incompat&ext4.IncompatFiletype != 0
	for off, n := 0, 0; off < len(b); n++ {
		e, err := ext4.NextDirent(b, off, hasTypes)
		if err != nil {
			return d.fault(Directory, "block %d: %v", logical, err)
		}
		off += e.Len
		name := string(e.Name)
		switch {
		case logical == 0 && n < 2:
			err = d.dots(n, name, e.Ino)
		case e.Ino == 0:
		case len(d.ranges) > 0 && !d.inRange(name, logical):
			err = d.fault(Index, "%q is not in the block that its hash leads to", name)
		}
		if err == nil && e.Ino != 0 && (logical > 0 || n >= 2) {
			err = d.entry(name, e.Ino, e.Type)
		}
		if err != nil {
			return err
		}
		if logical == 0 && n == 1 && len(d.ranges) > 0 {
			return nil // the root of the index hides behind ".."
		}
	}
	return nil
}

func (d *directory) dots(n int, name string, ino uint32) error {
	switch {
	case n == 0 && (name != "." || ino != d.ino):
		return d.fault(Directory, "first entry is %q of inode %d", name, ino)
	case n == 1 && name != "..":
		return d.fault(Directory, "second entry is %q", name)
	case n == 1:
		d.in.dotdot = ino
	}
	return nil
}

// entry checks one name and counts the link.
func (d *directory) entry(name string, ino uint32, kind uint8) error {
	if err := nameFault(name); err != "" {
		return d.fault(Entry, "%q: %s", name, err)
	}
	if d.names[name] {
		return d.fault(Entry, "%q twice", name)
	}
	d.names[name] = true
	child := d.c.inodes[ino]
	if child == nil || child.special && ino < d.c.sb.FirstIno || ino == ext4.RootInode {
		return d.fault(Entry, "%q is inode %d, which is not in use", name, ino)
	}
	child.found++
	if want := ext4.DirentType(child.mode); d.c.sb.Incompat&ext4.IncompatFiletype != 0 && kind != want {
		if err := d.fault(Type, "%q has type %d, its inode %d", name, kind, want); err != nil {
			return err
		}
	}
	if child.mode&0xF000 != ext4.TypeDir {
		return nil
	}
	if child.parent != 0 {
		return d.fault(Entry, "%q: directory inode %d has a second name", name, ino)
	}
	child.parent = d.ino
	return nil
}

func nameFault(name string) string {
	if name == "" || name == "." || name == ".." {
		return "is not a name"
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return "has a slash or a zero byte"
		}
	}
	return ""
}

// index walks the index from its root and notes which hashes each block of names may have.
func (d *directory) index(places []uint64) error {
	b, err := d.c.f.Block(places[0])
	if err != nil {
		return d.c.judge(Index, d.where, err)
	}
	root, err := ext4.DecodeIndex(b, true)
	if err != nil {
		return d.c.judge(Index, d.where, err)
	}
	d.ranges = make([]hashRange, len(places))
	d.ranges[0] = hashRange{indexed: true, node: true}
	d.hashed = root.Hash == 1 && !d.c.sb.HashUnsigned && d.n.Raw().Flags()&(ext4.InodeCasefold|ext4.InodeEncrypted) == 0
	levels := uint8(1)
	if d.c.sb.Incompat&ext4.IncompatLargeDir != 0 {
		levels = 2
	}
	if root.Levels > levels || root.Hash > 2 && root.Hash != 6 {
		return d.fault(Index, "%d levels, hash %d", root.Levels, root.Hash)
	}
	if err := d.indexNode(root, places, int(root.Levels), 0, ^uint32(0)); err != nil {
		return err
	}
	for i, r := range d.ranges {
		if !r.indexed {
			return d.fault(Index, "block %d is missing", i)
		}
	}
	return nil
}

func (d *directory) indexNode(x ext4.Index, places []uint64, levels int, lo, hi uint32) error {
	head := 8
	if x.Root {
		head = 32
	}
	limit := (d.c.sb.BlockSize - head) / 8
	if d.c.sb.MetadataCsum() {
		limit = (d.c.sb.BlockSize - head - 8) / 8
	}
	if x.Limit != limit {
		return d.fault(Index, "room for %d entries, want %d", x.Limit, limit)
	}
	for i := range x.Count {
		from, block := x.At(i)
		to := hi
		if i == 0 {
			from = lo
		}
		if i+1 < x.Count {
			to, _ = x.At(i + 1)
		}
		if from&^1 < lo&^1 || to < from || to > hi {
			return d.fault(Index, "hash %#x out of order", from)
		}
		if int64(block) >= int64(len(places)) || d.ranges[block].indexed {
			return d.fault(Index, "block %d twice or not there", block)
		}
		d.ranges[block] = hashRange{indexed: true, node: levels > 0, lo: from, hi: to}
		if levels == 0 {
			continue
		}
		b, err := d.c.f.Block(places[block])
		if err != nil {
			return d.c.judge(Index, d.where, err)
		}
		child, err := ext4.DecodeIndex(b, false)
		if err != nil {
			return d.c.judge(Index, d.where, err)
		}
		if err := d.indexNode(child, places, levels-1, from, to); err != nil {
			return err
		}
	}
	return nil
}

// inRange tells whether a name may lie in a block. A hash may go on from one block into the next, whose lowest bit then
// is set.
func (d *directory) inRange(name string, logical int) bool {
	r := d.ranges[logical]
	if r.node {
		return false
	}
	if !d.hashed {
		return true
	}
	hash, _ := ext4.HashHalfMD4(name, d.c.sb.HashSeed)
	return hash >= r.lo&^1 && (hash < r.hi&^1 || hash == r.hi&^1 && (r.hi&1 != 0 || r.hi == ^uint32(0)))
}

// reachable follows names from the root and compares links.
func (c *checker) reachable() error {
	root := c.inodes[ext4.RootInode]
	if root == nil || root.mode&0xF000 != ext4.TypeDir {
		return c.fault(Unreachable, "image", "there is no root directory")
	}
	root.parent = ext4.RootInode
	root.found++
	subdirs := map[uint32]uint32{}
	for _, ino := range c.order {
		in := c.inodes[ino]
		if in.mode&0xF000 != ext4.TypeDir || in.special {
			continue
		}
		if in.parent != 0 && in.dotdot != in.parent {
			if err := c.fault(Directory, inodeName(ino), "its \"..\" is inode %d, its name lies in %d", in.dotdot, in.parent); err != nil {
				return err
			}
		}
		if ino != ext4.RootInode {
			subdirs[in.parent]++
		}
		if in.parent != 0 && !c.leadsToRoot(ino) {
			if err := c.fault(Unreachable, inodeName(ino), "is not below the root"); err != nil {
				return err
			}
		}
	}
	for _, ino := range c.order {
		if err := c.links(ino, c.inodes[ino], subdirs[ino]); err != nil {
			return err
		}
	}
	return nil
}

// leadsToRoot climbs from a directory. What was climbed once is not climbed again.
func (c *checker) leadsToRoot(ino uint32) bool {
	var trail []*inode
	ok := false
	for on := map[uint32]bool{}; ; {
		in := c.inodes[ino]
		if in == nil || on[ino] || in.parent == 0 {
			break
		}
		if ok = in.seen || ino == ext4.RootInode; ok {
			break
		}
		on[ino] = true
		trail = append(trail, in)
		ino = in.parent
	}
	if ok {
		for _, in := range trail {
			in.seen = true
		}
	}
	return ok
}

func (c *checker) links(ino uint32, in *inode, subdirs uint32) error {
	if in.special {
		return nil
	}
	if in.found == 0 {
		return c.fault(Unreachable, inodeName(ino), "has no name")
	}
	want := in.found
	if in.mode&0xF000 == ext4.TypeDir {
		want = 2 + subdirs
		if in.links == 1 && c.sb.ROCompat&ext4.ROCompatDirNlink != 0 {
			return nil // too many to count, once
		}
	}
	if uint32(in.links) != want {
		return c.fault(Links, inodeName(ino), "%d links, found %d", in.links, want)
	}
	return nil
}
