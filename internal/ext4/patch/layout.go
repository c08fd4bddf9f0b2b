package patch

import (
	"encoding/binary"

	"banger/internal/ext4"
	"banger/internal/ext4/read"
)

// mapper writes where a node's content lies, as extents or, as ext3 has it, as blocks of pointers.
type mapper struct {
	tx    *Tx
	n     *read.Node
	reuse []uint64 // blocks of metadata that the node had
	used  uint64   // blocks of metadata that it has now
}

// setLayout makes a node's content lie in list. meta are the blocks that described it so far.
func (tx *Tx) setLayout(n *read.Node, list []ext4.Extent, meta []uint64) error {
	raw, err := tx.inode(n.Ino())
	if err != nil {
		return err
	}
	m := &mapper{tx: tx, n: n, reuse: meta}
	if raw.Flags()&ext4.InodeExtents != 0 {
		err = m.extents(raw, list)
	} else {
		err = m.pointers(raw, list)
	}
	if err != nil {
		return err
	}
	for _, block := range m.reuse {
		tx.release(block, 1)
	}
	blocks := m.used
	for _, e := range list {
		blocks += uint64(e.Len)
	}
	if raw.XattrBlock() != 0 {
		blocks++
	}
	unit := uint64(tx.sb.BlockSize / 512)
	if tx.sb.ROCompat&ext4.ROCompatHugeFile == 0 && blocks*unit >= 1<<32 {
		return unsupported("a file of %d blocks without huge_file", blocks)
	}
	raw.SetFlags(raw.Flags() &^ ext4.InodeHugeFile)
	raw.SetSectors(blocks * unit)
	tx.sb.Seal(n.Ino(), raw)
	return nil
}

// block gives an empty block of metadata.
func (m *mapper) block() (uint64, []byte, error) {
	m.used++
	if len(m.reuse) > 0 {
		block := m.reuse[0]
		m.reuse = m.reuse[1:]
		return block, m.tx.fresh(block), nil
	}
	block, err := m.tx.allocateOne((m.n.Ino() - 1) / m.tx.sb.InodesPerGroup)
	if err != nil {
		return 0, nil, err
	}
	return block, m.tx.fresh(block), nil
}

func (m *mapper) extents(raw ext4.Inode, list []ext4.Extent) error {
	root := ext4.NodeRoom(len(raw.Block()))
	if len(list) <= root {
		ext4.EncodeExtents(raw.Block(), list)
		return nil
	}
	room := ext4.NodeRoom(m.tx.sb.BlockSize)
	var level []ext4.ChildNode
	for len(list) > 0 {
		part := list[:min(room, len(list))]
		list = list[len(part):]
		block, b, err := m.block()
		if err != nil {
			return err
		}
		ext4.EncodeExtents(b, part)
		m.seal(b)
		level = append(level, ext4.ChildNode{Logical: part[0].Logical, Block: block})
	}
	depth := 1
	for ; len(level) > root; depth++ {
		var above []ext4.ChildNode
		for len(level) > 0 {
			part := level[:min(room, len(level))]
			level = level[len(part):]
			block, b, err := m.block()
			if err != nil {
				return err
			}
			ext4.EncodeIndexes(b, depth, part)
			m.seal(b)
			above = append(above, ext4.ChildNode{Logical: part[0].Logical, Block: block})
		}
		level = above
	}
	ext4.EncodeIndexes(raw.Block(), depth, level)
	return nil
}

func (m *mapper) seal(b []byte) {
	if m.tx.sb.MetadataCsum() {
		ext4.SealExtents(b, m.tx.seed(m.n))
	}
}

// mostPointers is how many blocks a file of pointers can have.
func (tx *Tx) mostPointers() uint64 {
	per := uint64(tx.sb.BlockSize / 4)
	return min(12+per+per*per+per*per*per, 1<<32-2)
}

// pointers writes 12 blocks into the inode and the others into trees of depth 1, 2 and 3.
func (m *mapper) pointers(raw ext4.Inode, list []ext4.Extent) error {
	root := raw.Block()
	clear(root)
	per, start, span := uint64(m.tx.sb.BlockSize/4), uint64(0), uint64(1)
	for i := range 15 {
		depth := max(i-11, 0)
		if depth > 0 {
			span *= per
		}
		block, err := m.pointer(list, start, span, depth)
		if err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(root[4*i:], uint32(block))
		start += span
	}
	return nil
}

// pointer gives the block that stands for the span blocks of the file from start on; 0 for a hole.
func (m *mapper) pointer(list []ext4.Extent, start, span uint64, depth int) (uint64, error) {
	for len(list) > 0 && uint64(list[0].Logical)+uint64(list[0].Len) <= start {
		list = list[1:]
	}
	if len(list) == 0 || uint64(list[0].Logical) >= start+span {
		return 0, nil
	}
	if depth == 0 {
		block := list[0].Physical + start - uint64(list[0].Logical)
		if block >= 1<<32 {
			return 0, unsupported("block %d in a file without extents", block)
		}
		return block, nil
	}
	block, b, err := m.block()
	if err != nil {
		return 0, err
	}
	below := span / uint64(len(b)/4)
	for i := range len(b) / 4 {
		child, err := m.pointer(list, start+uint64(i)*below, below, depth-1)
		if err != nil {
			return 0, err
		}
		binary.LittleEndian.PutUint32(b[4*i:], uint32(child))
	}
	return block, nil
}
