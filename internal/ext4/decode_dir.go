package ext4

// Dirent is one entry of a directory block.
type Dirent struct {
	Ino    uint32 // 0: unused
	Offset int    // of the entry in its block
	Len    int    // bytes up to the next entry
	Type   uint8  // DirentFile…; 0 when the file system has no types
	Name   []byte // lies in the block
}

// File types in directory entries.
const (
	DirentFile = iota + 1
	DirentDir
	DirentChar
	DirentBlock
	DirentFIFO
	DirentSocket
	DirentSymlink
	direntTail = 0xDE
)

var direntTypes = map[uint16]uint8{TypeFile: DirentFile, TypeDir: DirentDir, TypeChar: DirentChar, TypeBlock: DirentBlock,
	TypeFIFO: DirentFIFO, TypeSocket: DirentSocket, TypeSymlink: DirentSymlink}

// DirentType gives the type in a directory entry that fits a mode; 0 for none.
func DirentType(mode uint16) uint8 { return direntTypes[mode&0xF000] }

// TailSize is how many bytes of a directory block hold its checksum.
const TailSize = 12

// NextDirent decodes the entry at offset off of a directory block or of a part of one. Errors: ErrCorrupt.
func NextDirent(b []byte, off int, hasTypes bool) (Dirent, error) {
	if off < 0 || off+8 > len(b) || off%4 != 0 {
		return Dirent{}, corrupt("directory entry at %d of %d bytes", off, len(b))
	}
	d := Dirent{Ino: le.Uint32(b[off:]), Offset: off, Len: recLen(le.Uint16(b[off+4:]), len(b))}
	nameLen := int(le.Uint16(b[off+6:]))
	if hasTypes {
		nameLen, d.Type = int(b[off+6]), b[off+7]
	}
	if d.Len < 8+nameLen || d.Len%4 != 0 || d.Len > len(b)-off || nameLen > 255 {
		return Dirent{}, corrupt("directory entry at %d: length %d, name %d", off, d.Len, nameLen)
	}
	d.Name = b[off+8 : off+8+nameLen]
	return d, nil
}

// recLen decodes a length; blocks of 64 KiB do not fit 16 bits and use the two low bits, which are otherwise zero.
func recLen(v uint16, block int) int {
	if block < 65536 {
		return int(v)
	}
	if v == 0 || v == 65535 {
		return block
	}
	return int(v&65532) | int(v&3)<<16
}

// EncodeRecLen is its inverse.
func EncodeRecLen(n, block int) uint16 {
	if block < 65536 {
		return uint16(n)
	}
	if n == block {
		return 65535
	}
	return uint16(n&65532) | uint16(n>>16&3)
}

// DirentSize is the least length of an entry with a name of n bytes.
func DirentSize(n int) int { return (8 + n + 3) &^ 3 }

// HasDirTail reports whether a directory block ends with a checksum.
func HasDirTail(b []byte) bool {
	t := b[len(b)-TailSize:]
	return le.Uint32(t) == 0 && le.Uint16(t[4:]) == TailSize && t[6] == 0 && t[7] == direntTail
}

// SealDirBlock writes the tail of a directory block. seed is the directory's.
func SealDirBlock(b []byte, seed uint32) {
	t := b[len(b)-TailSize:]
	clear(t)
	le.PutUint16(t[4:], TailSize)
	t[7] = direntTail
	le.PutUint32(t[8:], DirBlockSum(b, seed))
}

// DirBlockSum computes, StoredDirBlockSum reads the checksum of a directory block with a tail.
func DirBlockSum(b []byte, seed uint32) uint32 { return Checksum(seed, b[:len(b)-TailSize]) }
func StoredDirBlockSum(b []byte) uint32        { return le.Uint32(b[len(b)-4:]) }

// Index is a block of a hashed directory that holds hashes and blocks instead of names.
type Index struct {
	Block   []byte
	Root    bool
	Hash    uint8 // version; of a root
	Levels  uint8 // of nodes below a root
	Limit   int   // entries there is room for
	Count   int   // entries in use; the first has no hash
	entries int   // offset of the first
}

// DecodeIndex reads an index block of a hashed directory. Errors: ErrCorrupt.
func DecodeIndex(b []byte, root bool) (Index, error) {
	x := Index{Block: b, Root: root, entries: 8}
	if root {
		x.Hash, x.Levels, x.entries = b[28], b[30], 32
		if b[29] != 8 {
			return x, corrupt("directory index: information of %d bytes", b[29])
		}
	}
	x.Limit, x.Count = int(le.Uint16(b[x.entries:])), int(le.Uint16(b[x.entries+2:]))
	if x.Count == 0 || x.Count > x.Limit || x.entries+8*x.Limit > len(b) {
		return x, corrupt("directory index: %d entries of %d", x.Count, x.Limit)
	}
	return x, nil
}

// At gives entry n: names with this hash and up to the next entry's are in that block of the directory.
func (x Index) At(n int) (hash, block uint32) {
	b := x.Block[x.entries+8*n:]
	if n > 0 {
		hash = le.Uint32(b)
	}
	return hash, le.Uint32(b[4:]) & 0x0FFFFFFF
}

// Insert adds an entry at n > 0. There must be room.
func (x *Index) Insert(n int, hash, block uint32) {
	at := x.entries + 8*n
	copy(x.Block[at+8:], x.Block[at:x.entries+8*x.Count])
	le.PutUint32(x.Block[at:], hash)
	le.PutUint32(x.Block[at+4:], block)
	x.Count++
	le.PutUint16(x.Block[x.entries+2:], uint16(x.Count))
}

// Sum computes, StoredSum reads the checksum of an index block; both are 0 when there is no room for one.
func (x Index) Sum(seed uint32) uint32 {
	tail := x.entries + 8*x.Limit
	if tail+8 > len(x.Block) {
		return 0
	}
	sum := Checksum(seed, x.Block[:x.entries+8*x.Count])
	sum = Checksum(sum, x.Block[tail:tail+4])
	return Checksum32(sum, 0)
}

func (x Index) StoredSum() uint32 {
	if tail := x.entries + 8*x.Limit; tail+8 <= len(x.Block) {
		return le.Uint32(x.Block[tail+4:])
	}
	return 0
}

// Seal writes the checksum.
func (x Index) Seal(seed uint32) {
	if tail := x.entries + 8*x.Limit; tail+8 <= len(x.Block) {
		le.PutUint32(x.Block[tail+4:], x.Sum(seed))
	}
}
