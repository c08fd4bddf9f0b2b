package write

import (
	"cmp"
	"slices"

	"banger"
	"banger/internal/ext4"
)

// dirent is an entry of a directory on its way to the disk.
type dirent struct {
	name        string
	node        *node
	hash, minor uint32
}

const (
	dirRoom   = blockSize - ext4.TailSize
	rootLimit = (blockSize-32)/8 - 1 // entries of an index root, of which the header and the checksum take one each
	nodeLimit = (blockSize-8)/8 - 1
)

// names gives a directory's entries in the order of their names.
func (n *node) names() []dirent {
	list := make([]dirent, 0, len(n.kids))
	for name, kid := range n.kids {
		list = append(list, dirent{name: name, node: kid})
	}
	slices.SortFunc(list, func(a, b dirent) int { return cmp.Compare(a.name, b.name) })
	return list
}

// writeDir writes a directory with these entries: one block of names, or an index with hashes and leaves.
func (w *writer) writeDir(n *node, list []dirent) error {
	size := ext4.DirentSize(1) + ext4.DirentSize(2)
	for _, e := range list {
		size += ext4.DirentSize(len(e.name))
	}
	d := &dirWriter{w: w, n: n, seed: w.super.InodeSeed(n.ino, 0)}
	if size > dirRoom {
		return d.indexed(list)
	}
	b, err := d.block()
	if err != nil {
		return err
	}
	putDirents(b, putDots(b, n, ext4.DirentSize(2)), list)
	ext4.SealDirBlock(b, d.seed)
	return nil
}

// dirWriter writes the blocks of one directory in order.
type dirWriter struct {
	w    *writer
	n    *node
	seed uint32
	next uint32
}

func (d *dirWriter) block() ([]byte, error) {
	at, b, err := d.w.block()
	if err != nil {
		return nil, err
	}
	d.n.addBlocks(d.next, span{at, at + 1})
	d.n.size += blockSize
	d.next++
	return b, nil
}

// leaf is a block of entries of an indexed directory.
type leaf struct {
	entries int
	hash    uint32 // from which on; its low bit tells that the leaf before ends with the same hash
}

// indexed writes the root, the nodes of the second level if there are any, and the leaves, in this order.
func (d *dirWriter) indexed(list []dirent) error {
	for i := range list {
		list[i].hash, list[i].minor = ext4.HashHalfMD4(list[i].name, d.w.opts.HashSeed)
	}
	slices.SortFunc(list, func(a, b dirent) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.minor, b.minor), cmp.Compare(a.name, b.name))
	})
	leaves := pack(list)
	nodes := 0
	if len(leaves) > rootLimit {
		nodes = (len(leaves) + nodeLimit - 1) / nodeLimit
	}
	if nodes > rootLimit {
		return banger.Invalidf("a directory of %d entries: there are two levels of index", len(list))
	}
	if err := d.index(leaves, nodes); err != nil {
		return err
	}
	for _, l := range leaves {
		b, err := d.block()
		if err != nil {
			return err
		}
		putDirents(b, 0, list[:l.entries])
		ext4.SealDirBlock(b, d.seed)
		list = list[l.entries:]
	}
	return nil
}

// pack decides which entries go into which leaf.
func pack(list []dirent) (leaves []leaf) {
	size := dirRoom
	for i, e := range list {
		need := ext4.DirentSize(len(e.name))
		if size+need > dirRoom {
			l := leaf{hash: e.hash}
			if i > 0 && list[i-1].hash == e.hash {
				l.hash |= 1
			}
			leaves, size = append(leaves, l), 0
		}
		leaves[len(leaves)-1].entries++
		size += need
	}
	return leaves
}

func (d *dirWriter) index(leaves []leaf, nodes int) error {
	root, err := d.block()
	if err != nil {
		return err
	}
	putDots(root, d.n, blockSize-ext4.DirentSize(1))
	root[28], root[29] = 1, 8 // half MD4, length of this information
	if nodes == 0 {
		putIndex(root, 32, rootLimit, leaves, 1, d.seed)
		return nil
	}
	root[30] = 1
	parts := make([]leaf, 0, nodes) // the first leaf of each node
	for part := range slices.Chunk(leaves, nodeLimit) {
		parts = append(parts, part[0])
	}
	putIndex(root, 32, rootLimit, parts, 1, d.seed)
	first := 1 + nodes
	for part := range slices.Chunk(leaves, nodeLimit) {
		b, err := d.block()
		if err != nil {
			return err
		}
		le.PutUint16(b[4:], blockSize) // an unused entry over the whole block
		putIndex(b, 8, nodeLimit, part, first, d.seed)
		first += len(part)
	}
	return nil
}

// putIndex writes the entries of an index block from off on; they name consecutive blocks of the directory.
func putIndex(b []byte, off, limit int, list []leaf, block int, seed uint32) {
	le.PutUint16(b[off:], uint16(limit))
	le.PutUint16(b[off+2:], uint16(len(list)))
	for i, l := range list {
		if i > 0 { // the first has the limit and the count in its place
			le.PutUint32(b[off+8*i:], l.hash)
		}
		le.PutUint32(b[off+8*i+4:], uint32(block+i))
	}
	sum := ext4.Checksum(seed, b[:off+8*len(list)])
	sum = ext4.Checksum(sum, b[off+8*limit:off+8*limit+4])
	le.PutUint32(b[off+8*limit+4:], ext4.Checksum32(sum, 0))
}

// putDots writes "." and "..", the latter of the given length, and gives the offset behind its name.
func putDots(b []byte, n *node, length int) int {
	first := ext4.DirentSize(1)
	putDirent(b, n.ino, ext4.DirentDir, ".", first)
	putDirent(b[first:], n.parent.ino, ext4.DirentDir, "..", length)
	return first + ext4.DirentSize(2)
}

// putDirents writes entries from off on; the last one, or the one before off, reaches up to the tail.
func putDirents(b []byte, off int, list []dirent) {
	last := off - ext4.DirentSize(2)
	for _, e := range list {
		size := ext4.DirentSize(len(e.name))
		putDirent(b[off:], e.node.ino, ext4.DirentType(e.node.mode), e.name, size)
		last = off
		off += size
	}
	le.PutUint16(b[last+4:], uint16(dirRoom-last))
}

func putDirent(b []byte, ino uint32, kind uint8, name string, length int) {
	le.PutUint32(b, ino)
	le.PutUint16(b[4:], uint16(length))
	b[6], b[7] = byte(len(name)), kind
	copy(b[8:], name)
}
