package read

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"banger"
	"banger/internal/ext4"
)

// Node is a file, directory or other inode of a file system.
type Node struct {
	fs     *FS
	ino    uint32
	raw    ext4.Inode
	inline []byte // content that lies in the inode; nil when it lies in blocks
}

// Node opens an inode by number. Errors: ErrCorrupt; ErrUnsupported for encrypted ones.
func (f *FS) Node(ino uint32) (*Node, error) {
	raw, err := f.RawInode(ino)
	if err == nil {
		err = f.VerifyInode(ino, raw)
	}
	var n *Node
	if err == nil {
		n, err = f.Unverified(ino)
	}
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", ino, err)
	}
	return n, nil
}

// VerifyInode compares an inode with the checksum in it; one of zeros has none. Errors: ErrCorrupt.
func (f *FS) VerifyInode(ino uint32, raw ext4.Inode) error {
	if !f.sb.MetadataCsum() {
		return nil
	}
	if raw.Mode() == 0 && bytes.Count(raw, []byte{0}) == len(raw) {
		return nil
	}
	if sum, _ := f.sb.InodeSum(ino, raw); sum != raw.StoredInodeSum() {
		return corrupt("checksum %#x, computed %#x", raw.StoredInodeSum(), sum)
	}
	return nil
}

// Unverified opens an inode whatever its checksum says.
func (f *FS) Unverified(ino uint32) (*Node, error) {
	raw, err := f.RawInode(ino)
	if err != nil {
		return nil, err
	}
	n := &Node{fs: f, ino: ino, raw: raw}
	flags := raw.Flags()
	switch {
	case !raw.ExtraSane():
		return nil, corrupt("extra fields do not fit")
	case flags&ext4.InodeEncrypted != 0:
		return nil, unsupported("it is encrypted")
	case raw.Size() > uint64(f.sb.BlockSize)<<32:
		return nil, corrupt("size %d", raw.Size())
	case flags&ext4.InodeInline == 0:
		return n, nil
	}
	n.inline = append(make([]byte, 0, 256), raw.Block()...)
	list, err := ext4.InodeXattrs(raw)
	if err != nil {
		return nil, err
	}
	for _, x := range list {
		if x.Name == ext4.XattrInline {
			n.inline = append(n.inline, x.Value...)
		}
	}
	if !n.IsDir() && raw.Size() > uint64(len(n.inline)) {
		return nil, corrupt("size %d with %d bytes of inline data", raw.Size(), len(n.inline))
	}
	return n, nil
}

// Stat is all that an inode says of itself.
type Stat struct {
	Ino        uint32
	Mode       uint16 // type and permissions, as stat(2) has them
	UID, GID   uint32
	Links      uint16 // 1 on a directory with too many to count
	Size       int64
	Sectors    int64 // allocated, in units of 512 bytes
	Access     time.Time
	Mod        time.Time
	Change     time.Time
	Birth      time.Time // zero when it is not recorded
	Major      uint32    // of a device
	Minor      uint32
	Flags      uint32
	Generation uint32
}

// Stat gives them.
func (n *Node) Stat() Stat {
	s := Stat{
		Ino: n.ino, Mode: n.raw.Mode(), UID: n.raw.UID(), GID: n.raw.GID(), Links: n.raw.Links(), Size: n.Size(), Sectors: int64(n.sectors()),
		Access: n.raw.AccessTime(), Mod: n.raw.ModTime(), Change: n.raw.ChangeTime(), Birth: n.raw.BirthTime(),
		Flags: n.raw.Flags(), Generation: n.raw.Generation(),
	}
	if t := n.raw.Type(); t == ext4.TypeChar || t == ext4.TypeBlock {
		s.Major, s.Minor = n.raw.Device()
	}
	return s
}

func (n *Node) sectors() uint64 {
	if n.fs.sb.ROCompat&ext4.ROCompatHugeFile == 0 {
		return n.raw.Sectors() & 0xFFFFFFFF
	}
	if n.raw.Flags()&ext4.InodeHugeFile != 0 {
		return n.raw.Sectors() * uint64(n.fs.sb.BlockSize/512)
	}
	return n.raw.Sectors()
}

// Ino gives the inode's number, Raw the inode as it lies on disk. Callers must not change it.
func (n *Node) Ino() uint32     { return n.ino }
func (n *Node) Raw() ext4.Inode { return n.raw }

// Size is the length of the content in bytes.
func (n *Node) Size() int64 { return int64(n.raw.Size()) }

func (n *Node) IsDir() bool     { return n.raw.Type() == ext4.TypeDir }
func (n *Node) IsFile() bool    { return n.raw.Type() == ext4.TypeFile }
func (n *Node) IsSymlink() bool { return n.raw.Type() == ext4.TypeSymlink }

func (n *Node) seed() uint32 { return n.fs.sb.InodeSeed(n.ino, n.raw.Generation()) }

// ReadAt reads content; holes read as zeros.
func (n *Node) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, banger.Invalidf("offset %d", off)
	}
	if off >= n.Size() {
		return 0, io.EOF
	}
	var end error
	if rest := n.Size() - off; int64(len(p)) > rest {
		p, end = p[:rest], io.EOF
	}
	if err := n.fill(p, off); err != nil {
		return 0, fmt.Errorf("inode %d: %w", n.ino, err)
	}
	return len(p), end
}

// fill reads what lies below the size.
func (n *Node) fill(p []byte, off int64) error {
	if n.inline != nil {
		copy(p, n.inline[off:])
		return nil
	}
	size := int64(n.fs.sb.BlockSize)
	pos, end := off, off+int64(len(p))
	err := n.walk(uint64(off/size), nil, func(e ext4.Extent) error {
		from, to := max(pos, int64(e.Logical)*size), min(end, (int64(e.Logical)+int64(e.Len))*size)
		if from >= end {
			return errEnough
		}
		if e.Unwritten || to <= from {
			return nil
		}
		clear(p[pos-off : from-off])
		pos = to
		return n.fs.ReadBytes(p[from-off:to-off], int64(e.Physical)*size+from-int64(e.Logical)*size)
	})
	clear(p[pos-off:])
	return err
}

// NextData gives the first range of content at or after off that is not a hole, as SEEK_DATA and SEEK_HOLE do: runs of
// adjacent blocks are joined. Errors: io.EOF when there is none.
func (n *Node) NextData(off int64) (start, end int64, err error) {
	if n.inline != nil && off < n.Size() {
		return off, n.Size(), nil
	}
	size := int64(n.fs.sb.BlockSize)
	start = -1
	err = n.walk(uint64(max(off, 0)/size), nil, func(e ext4.Extent) error {
		from, to := int64(e.Logical)*size, (int64(e.Logical)+int64(e.Len))*size
		switch {
		case e.Unwritten || to <= off:
			return nil
		case start < 0:
			start = max(from, off)
		case from != end:
			return errEnough
		}
		end = to
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("inode %d: %w", n.ino, err)
	}
	if start < 0 || start >= n.Size() {
		return 0, 0, io.EOF
	}
	return start, min(end, n.Size()), nil
}

// Link gives the text of a symbolic link. Errors: ErrInvalid when the node is none, ErrCorrupt.
func (n *Node) Link() (string, error) {
	if !n.IsSymlink() {
		return "", banger.Invalidf("inode %d is no symbolic link", n.ino)
	}
	size := n.Size()
	if size == 0 || size >= int64(max(n.fs.sb.BlockSize, 4097)) {
		return "", corrupt("inode %d: symbolic link of %d bytes", n.ino, size)
	}
	if n.fastLink() {
		return string(n.raw.Block()[:size]), nil
	}
	text := make([]byte, size)
	if _, err := n.ReadAt(text, 0); err != nil {
		return "", err
	}
	return string(text), nil
}

// fastLink tells that a link's text lies where block numbers would.
func (n *Node) fastLink() bool {
	if n.inline != nil || n.Size() >= 60 {
		return false
	}
	var attributes uint64
	if n.raw.XattrBlock() != 0 {
		attributes = uint64(n.fs.sb.BlockSize / 512)
	}
	return n.sectors() <= attributes || n.fs.sb.Incompat&ext4.IncompatEAInode != 0
}

// Xattrs gives the extended attributes by full name, access control lists in the form of system calls.
func (n *Node) Xattrs() (map[string][]byte, error) {
	list, err := ext4.InodeXattrs(n.raw)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", n.ino, err)
	}
	if block := n.raw.XattrBlock(); block != 0 {
		more, err := n.blockXattrs(block)
		if err != nil {
			return nil, fmt.Errorf("inode %d: %w", n.ino, err)
		}
		list = append(list, more...)
	}
	if len(list) == 0 {
		return nil, nil
	}
	attrs := make(map[string][]byte, len(list))
	for _, x := range list {
		if x.Name == ext4.XattrInline {
			continue
		}
		if attrs[x.Name], err = n.xattrValue(x); err != nil {
			return nil, fmt.Errorf("inode %d: extended attribute %q: %w", n.ino, x.Name, err)
		}
	}
	return attrs, nil
}

func (n *Node) blockXattrs(block uint64) ([]ext4.Xattr, error) {
	b, err := n.fs.Block(block)
	if err != nil {
		return nil, err
	}
	if sb := n.fs.sb; sb.MetadataCsum() && sb.XattrBlockSum(block, b) != ext4.StoredXattrBlockSum(b) {
		return nil, corrupt("block %d of extended attributes: bad checksum", block)
	}
	return ext4.BlockXattrs(b)
}

// maxXattr is the kernel's limit.
const maxXattr = 64 << 10

func (n *Node) xattrValue(x ext4.Xattr) ([]byte, error) {
	switch {
	case x.Name == ext4.XattrACL || x.Name == ext4.XattrDefaultACL:
		return ext4.ACLFromDisk(x.Value)
	case x.Inode == 0:
		return append([]byte{}, x.Value...), nil
	case x.Size > maxXattr:
		return nil, corrupt("%d bytes", x.Size)
	}
	holder, err := n.fs.Node(x.Inode)
	if err != nil {
		return nil, err
	}
	if holder.raw.Flags()&ext4.InodeEAInode == 0 || holder.Size() != int64(x.Size) {
		return nil, corrupt("inode %d does not hold its value", x.Inode)
	}
	value := make([]byte, x.Size)
	if len(value) > 0 {
		_, err = holder.ReadAt(value, 0)
	}
	return value, err
}

// Parent gives the directory that a directory says it lies in.
func (n *Node) Parent() (uint32, error) {
	if n.inline != nil {
		return binary.LittleEndian.Uint32(n.inline), nil
	}
	b, _, err := n.dirBlock(0)
	if err != nil {
		return 0, err
	}
	dot, err := ext4.NextDirent(b, 0, n.hasTypes())
	if err != nil {
		return 0, err
	}
	dotdot, err := ext4.NextDirent(b, dot.Len, n.hasTypes())
	if err != nil || string(dot.Name) != "." || string(dotdot.Name) != ".." {
		return 0, corrupt("inode %d: directory without . and ..", n.ino)
	}
	return dotdot.Ino, nil
}
