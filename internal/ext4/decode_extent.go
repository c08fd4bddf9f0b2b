package ext4

// ExtentNode is a node of an extent tree: the 60 bytes in an inode, or a block.
type ExtentNode struct {
	Raw     []byte
	Entries int
	Max     int
	Depth   int // 0: entries are extents, else indexes
}

// MaxExtentDepth is how deep extent trees get.
const MaxExtentDepth = 5

// DecodeExtents reads a node's header. Errors: ErrCorrupt.
func DecodeExtents(b []byte) (ExtentNode, error) {
	n := ExtentNode{Raw: b, Entries: int(le.Uint16(b[2:])), Max: int(le.Uint16(b[4:])), Depth: int(le.Uint16(b[6:]))}
	if le.Uint16(b) != ExtentMagic {
		return n, corrupt("extents: magic %#x", le.Uint16(b))
	}
	if n.Entries > n.Max || 12+12*n.Max > len(b) || n.Depth > MaxExtentDepth {
		return n, corrupt("extents: %d entries of %d at depth %d", n.Entries, n.Max, n.Depth)
	}
	return n, nil
}

// Extent is a run of blocks of a file.
type Extent struct {
	Logical   uint32 // first block in the file
	Len       uint32
	Physical  uint64 // first block in the file system
	Unwritten bool   // reads as zeros
}

const maxWrittenExtent = 32768

// Extent decodes entry i of a leaf, Index entry i of another node.
func (n ExtentNode) Extent(i int) Extent {
	b := n.Raw[12+12*i:]
	e := Extent{Logical: le.Uint32(b), Len: uint32(le.Uint16(b[4:])), Physical: uint64(le.Uint32(b[8:])) | uint64(le.Uint16(b[6:]))<<32}
	if e.Len > maxWrittenExtent {
		e.Len, e.Unwritten = e.Len-maxWrittenExtent, true
	}
	return e
}

func (n ExtentNode) Index(i int) (logical uint32, block uint64) {
	b := n.Raw[12+12*i:]
	return le.Uint32(b), uint64(le.Uint32(b[4:])) | uint64(le.Uint16(b[8:]))<<32
}

// Sum computes, StoredSum reads the checksum of a node that is a block. Blocks of 4 KiB and more have room for it.
func (n ExtentNode) Sum(seed uint32) uint32 { return Checksum(seed, n.Raw[:12+12*n.Max]) }
func (n ExtentNode) StoredSum() uint32 {
	if end := 12 + 12*n.Max; end+4 <= len(n.Raw) {
		return le.Uint32(n.Raw[end:])
	}
	return 0
}

// EncodeExtents writes a leaf into b, whose length decides how many entries there is room for.
func EncodeExtents(b []byte, list []Extent) {
	encodeNode(b, len(list), 0)
	for i, e := range list {
		o := b[12+12*i:]
		length := e.Len
		if e.Unwritten {
			length += maxWrittenExtent
		}
		le.PutUint32(o, e.Logical)
		le.PutUint16(o[4:], uint16(length))
		le.PutUint16(o[6:], uint16(e.Physical>>32))
		le.PutUint32(o[8:], uint32(e.Physical))
	}
}

// ChildNode is a child of an extent tree's inner node.
type ChildNode struct {
	Logical uint32
	Block   uint64
}

// EncodeIndexes writes an inner node of the given depth into b.
func EncodeIndexes(b []byte, depth int, list []ChildNode) {
	encodeNode(b, len(list), depth)
	for i, c := range list {
		o := b[12+12*i:]
		le.PutUint32(o, c.Logical)
		le.PutUint32(o[4:], uint32(c.Block))
		le.PutUint16(o[8:], uint16(c.Block>>32))
	}
}

// NodeRoom is how many entries fit a node of n bytes.
func NodeRoom(n int) int { return (n - 12) / 12 }

func encodeNode(b []byte, entries, depth int) {
	clear(b)
	le.PutUint16(b, ExtentMagic)
	le.PutUint16(b[2:], uint16(entries))
	le.PutUint16(b[4:], uint16(NodeRoom(len(b))))
	le.PutUint16(b[6:], uint16(depth))
}

// SealExtents writes the checksum of a node that is a block.
func SealExtents(b []byte, seed uint32) {
	end := 12 + 12*NodeRoom(len(b))
	if end+4 <= len(b) {
		le.PutUint32(b[end:], Checksum(seed, b[:end]))
	}
}
