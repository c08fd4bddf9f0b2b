package read

import (
	"encoding/binary"
	"errors"

	"banger/internal/ext4"
)

// errEnough ends a walk early.
var errEnough = errors.New("enough")

// hasBlocks tells whether a node's 60 bytes name blocks.
func (n *Node) hasBlocks() bool {
	switch n.raw.Type() {
	case ext4.TypeFile, ext4.TypeDir:
		return n.inline == nil
	case ext4.TypeSymlink:
		return n.inline == nil && !n.fastLink()
	}
	return false
}

// walk visits the runs of blocks that end after block start of the file, in order, and before them the blocks of
// metadata that lead there. visit may return errEnough. A walk ends: every block on the way covers a range of its own.
func (n *Node) walk(start uint64, meta func(block uint64), visit func(ext4.Extent) error) error {
	if !n.hasBlocks() {
		return nil
	}
	if meta == nil {
		meta = func(uint64) {}
	}
	w := &walker{n: n, start: start, meta: meta, visit: visit}
	var err error
	if n.raw.Flags()&ext4.InodeExtents != 0 {
		err = w.extents(n.raw.Block(), -1, 0, 1<<32)
	} else {
		err = w.pointers()
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

type walker struct {
	n     *Node
	start uint64
	meta  func(uint64)
	visit func(ext4.Extent) error

	run     ext4.Extent // of pointers, still growing
	visited uint64      // pointers followed
}

// extents walks a node of an extent tree that may cover the blocks lo to hi of the file. depth is -1 at the root.
func (w *walker) extents(raw []byte, depth int, lo, hi uint64) error {
	node, err := ext4.DecodeExtents(raw)
	switch {
	case err != nil:
		return err
	case depth >= 0 && (node.Depth != depth || node.Entries == 0):
		return corrupt("extents: node of depth %d with %d entries, want depth %d", node.Depth, node.Entries, depth)
	case node.Depth > 0 && node.Entries == 0:
		return corrupt("extents: no entries at depth %d", node.Depth)
	}
	if node.Depth == 0 {
		return w.leaf(node, lo, hi)
	}
	for i := range node.Entries {
		logical, block := node.Index(i)
		end := hi
		if i+1 < node.Entries {
			next, _ := node.Index(i + 1)
			end = uint64(next)
		}
		if uint64(logical) < lo || end <= uint64(logical) || end > hi {
			return corrupt("extents: index of block %d out of order", logical)
		}
		if end <= w.start {
			continue
		}
		if err := w.checkRun(block, 1); err != nil {
			return err
		}
		b, err := w.n.fs.Block(block)
		if err != nil {
			return err
		}
		child, err := ext4.DecodeExtents(b)
		if err != nil {
			return err
		}
		if w.n.fs.sb.MetadataCsum() && child.Sum(w.n.seed()) != child.StoredSum() {
			return corrupt("extents: block %d: bad checksum", block)
		}
		w.meta(block)
		if err := w.extents(b, node.Depth-1, uint64(logical), end); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) leaf(node ext4.ExtentNode, lo, hi uint64) error {
	for i := range node.Entries {
		e := node.Extent(i)
		end := uint64(e.Logical) + uint64(e.Len)
		if e.Len == 0 || uint64(e.Logical) < lo || end > hi {
			return corrupt("extents: %d blocks at %d out of order", e.Len, e.Logical)
		}
		lo = end
		if err := w.checkRun(e.Physical, uint64(e.Len)); err != nil {
			return err
		}
		if end <= w.start {
			continue
		}
		if err := w.visit(e); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) checkRun(block, count uint64) error {
	sb := w.n.fs.sb
	if block <= uint64(sb.FirstDataBlock) || block >= sb.BlocksCount || count > sb.BlocksCount-block {
		return corrupt("blocks %d+%d of %d", block, count, sb.BlocksCount)
	}
	return nil
}

// pointers walks the block map of ext2 and ext3: 12 blocks, then trees of depth 1, 2 and 3.
func (w *walker) pointers() error {
	b := w.n.raw.Block()
	per := uint64(w.n.fs.sb.BlockSize / 4)
	logical, span := uint64(0), uint64(1)
	for i := range 15 {
		depth := max(i-11, 0)
		if depth > 0 {
			span *= per
		}
		if err := w.pointer(binary.LittleEndian.Uint32(b[4*i:]), depth, logical, span); err != nil {
			return err
		}
		logical += span
	}
	return w.flush()
}

// pointer follows one pointer to a tree that covers span blocks of the file from logical on.
func (w *walker) pointer(block uint32, depth int, logical, span uint64) error {
	if block == 0 || logical+span <= w.start {
		return nil
	}
	if w.visited++; w.visited > w.n.fs.sb.BlocksCount || logical >= 1<<32 {
		return corrupt("more blocks than there are")
	}
	if err := w.checkRun(uint64(block), 1); err != nil {
		return err
	}
	if depth == 0 {
		return w.add(uint32(logical), uint64(block))
	}
	b, err := w.n.fs.Block(uint64(block))
	if err != nil {
		return err
	}
	w.meta(uint64(block))
	span /= uint64(len(b) / 4)
	for i := range len(b) / 4 {
		if err := w.pointer(binary.LittleEndian.Uint32(b[4*i:]), depth-1, logical+uint64(i)*span, span); err != nil {
			return err
		}
	}
	return nil
}

// add joins single blocks into runs.
func (w *walker) add(logical uint32, block uint64) error {
	if r := &w.run; r.Len > 0 && logical == r.Logical+r.Len && block == r.Physical+uint64(r.Len) {
		r.Len++
		return nil
	}
	err := w.flush()
	w.run = ext4.Extent{Logical: logical, Len: 1, Physical: block}
	return err
}

func (w *walker) flush() error {
	if w.run.Len == 0 {
		return nil
	}
	run := w.run
	w.run = ext4.Extent{}
	return w.visit(run)
}

// Layout gives all runs of blocks of a node, in order, and the blocks of metadata that describe them.
func (n *Node) Layout() (data []ext4.Extent, meta []uint64, err error) {
	err = n.walk(0, func(block uint64) { meta = append(meta, block) }, func(e ext4.Extent) error {
		data = append(data, e)
		return nil
	})
	return data, meta, err
}
