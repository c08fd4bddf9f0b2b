package patch

import (
	"encoding/binary"

	"banger/internal/ext4"
	"banger/internal/ext4/read"
)

// dir is a directory that is changed.
type dir struct {
	tx     *Tx
	n      *read.Node
	blocks []uint64 // by their number in the directory
	list   []ext4.Extent
	meta   []uint64
}

// dir opens a directory anew: nodes that were opened before a change show what was.
func (tx *Tx) dir(n *read.Node) (*dir, error) {
	if _, err := tx.inode(n.Ino()); err != nil {
		return nil, err
	}
	n, err := tx.fs.Node(n.Ino())
	if err != nil {
		return nil, err
	}
	list, meta, err := n.Layout()
	if err != nil {
		return nil, err
	}
	d := &dir{tx: tx, n: n, list: list, meta: meta}
	count := n.Raw().Size() / uint64(tx.sb.BlockSize)
	for _, e := range list {
		if uint64(e.Logical) != uint64(len(d.blocks)) && uint64(len(d.blocks)) < count {
			return nil, corrupt("directory inode %d: hole at block %d", n.Ino(), len(d.blocks))
		}
		for i := uint64(0); i < uint64(e.Len) && uint64(len(d.blocks)) < count; i++ {
			d.blocks = append(d.blocks, e.Physical+i)
		}
	}
	if uint64(len(d.blocks)) != count || count == 0 {
		return nil, corrupt("directory inode %d: %d blocks of %d", n.Ino(), len(d.blocks), count)
	}
	return d, nil
}

func (d *dir) hasTypes() bool { return d.tx.sb.Incompat&ext4.IncompatFiletype != 0 }
func (d *dir) indexed() bool  { return d.n.Raw().Flags()&ext4.InodeIndex != 0 }

// names is the part of a block that holds entries.
func (d *dir) names(b []byte) []byte {
	if d.tx.sb.MetadataCsum() {
		return b[:len(b)-ext4.TailSize]
	}
	return b
}

// block gives a block to look at.
func (d *dir) block(logical int) ([]byte, error) {
	if logical >= len(d.blocks) {
		return nil, corrupt("directory inode %d: block %d of %d", d.n.Ino(), logical, len(d.blocks))
	}
	b, err := d.tx.fs.Block(d.blocks[logical])
	if err != nil {
		return nil, err
	}
	return b, d.n.VerifyDirBlock(b, uint64(logical))
}

// seal makes a block of names verify, sealIndex one of an index.
func (d *dir) seal(b []byte) {
	if d.tx.sb.MetadataCsum() {
		ext4.SealDirBlock(b, d.tx.seed(d.n))
	}
}

func (d *dir) sealIndex(x ext4.Index) {
	if d.tx.sb.MetadataCsum() {
		x.Seal(d.tx.seed(d.n))
	}
}

// put writes an entry at off that reaches over length bytes.
func (d *dir) put(b []byte, off, length int, ino uint32, kind uint8, name string) {
	le := binary.LittleEndian
	le.PutUint32(b[off:], ino)
	le.PutUint16(b[off+4:], ext4.EncodeRecLen(length, d.tx.sb.BlockSize))
	le.PutUint16(b[off+6:], uint16(len(name)))
	if d.hasTypes() {
		b[off+7] = kind
	}
	copy(b[off+8:], name)
}

// add enters a name that is not there yet.
func (d *dir) add(name string, ino uint32, kind uint8) error {
	d.tx.fs.Renamed(d.n.Ino(), name, read.Dirent{Name: name, Ino: ino, Type: kind})
	if d.indexed() {
		done, err := d.addIndexed(name, ino, kind)
		if done || err != nil {
			return err
		}
		if err := d.dropIndex(); err != nil {
			return err
		}
	}
	for i := len(d.blocks) - 1; i >= 0; i-- {
		if done, err := d.insert(i, name, ino, kind); done || err != nil {
			return err
		}
	}
	_, b, err := d.grow()
	if err != nil {
		return err
	}
	d.put(b, 0, len(d.names(b)), ino, kind, name)
	d.seal(b)
	return nil
}

// insert enters a name in a block of names; done is false when it has no room.
func (d *dir) insert(logical int, name string, ino uint32, kind uint8) (done bool, err error) {
	b, err := d.block(logical)
	if err != nil {
		return false, err
	}
	if d.indexed() && (logical == 0 || isIndexNode(b)) {
		return false, corrupt("directory inode %d: index names itself", d.n.Ino())
	}
	area, need := d.names(b), ext4.DirentSize(len(name))
	for off := 0; off < len(area); {
		e, err := ext4.NextDirent(area, off, d.hasTypes())
		if err != nil {
			return false, err
		}
		used := 0
		if e.Ino != 0 {
			used = ext4.DirentSize(len(e.Name))
		}
		if e.Len-used < need {
			off += e.Len
			continue
		}
		if b, err = d.tx.edit(d.blocks[logical]); err != nil {
			return false, err
		}
		if used > 0 {
			binary.LittleEndian.PutUint16(b[off+4:], ext4.EncodeRecLen(used, len(b)))
		}
		d.put(b, off+used, e.Len-used, ino, kind, name)
		d.seal(b)
		return true, nil
	}
	return false, nil
}

// grow adds an empty block at the end.
func (d *dir) grow() (logical int, b []byte, err error) {
	block, err := d.tx.allocateOne((d.n.Ino() - 1) / d.tx.sb.InodesPerGroup)
	if err != nil {
		return 0, nil, err
	}
	b = d.tx.fresh(block)
	logical = len(d.blocks)
	d.list = extentsOf(d.list, uint32(logical), []run{{block, 1}})
	d.blocks = append(d.blocks, block)
	raw, err := d.tx.inode(d.n.Ino())
	if err != nil {
		return 0, nil, err
	}
	raw.SetSize(uint64(len(d.blocks)) * uint64(len(b)))
	if err := d.tx.setLayout(d.n, d.list, d.meta); err != nil {
		return 0, nil, err
	}
	d.list, d.meta, err = d.n.Layout()
	return logical, b, err
}

// remove takes a name out.
func (d *dir) remove(name string) error {
	return d.change(name, func(b []byte, e ext4.Dirent, before int) {
		le := binary.LittleEndian
		if before < 0 {
			le.PutUint32(b[e.Offset:], 0)
			return
		}
		le.PutUint16(b[before+4:], ext4.EncodeRecLen(e.Offset+e.Len-before, len(b)))
	}, read.Dirent{})
}

// retarget makes a name stand for another inode.
func (d *dir) retarget(name string, ino uint32, kind uint8) error {
	return d.change(name, func(b []byte, e ext4.Dirent, _ int) { d.point(b, e.Offset, ino, kind) }, read.Dirent{Name: name, Ino: ino, Type: kind})
}

func (d *dir) point(b []byte, off int, ino uint32, kind uint8) {
	binary.LittleEndian.PutUint32(b[off:], ino)
	if d.hasTypes() {
		b[off+7] = kind
	}
}

// change finds a name and lets set change it; before is the offset of the entry before it, -1 when it is the block's first.
func (d *dir) change(name string, set func(b []byte, e ext4.Dirent, before int), now read.Dirent) error {
	for i := range d.blocks {
		b, err := d.block(i)
		if err != nil {
			return err
		}
		before := -1
		area := d.names(b)
		for off := 0; off < len(area); {
			if d.indexed() && (i == 0 || isIndexNode(b)) {
				break
			}
			e, err := ext4.NextDirent(area, off, d.hasTypes())
			if err != nil {
				return err
			}
			if e.Ino == 0 || string(e.Name) != name {
				before, off = off, off+e.Len
				continue
			}
			if b, err = d.tx.edit(d.blocks[i]); err != nil {
				return err
			}
			set(b, e, before)
			d.seal(b)
			d.tx.fs.Renamed(d.n.Ino(), name, now)
			return nil
		}
	}
	return corrupt("directory inode %d has lost %q", d.n.Ino(), name)
}

// isIndexNode tells an inner block of an index, which looks like one unused entry.
func isIndexNode(b []byte) bool {
	e, err := ext4.NextDirent(b, 0, true)
	return err == nil && e.Ino == 0 && e.Len == len(b)
}

// setParent changes what ".." stands for.
func (d *dir) setParent(ino uint32) error {
	if _, err := d.block(0); err != nil {
		return err
	}
	b, err := d.tx.edit(d.blocks[0])
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(b[12:], ino)
	if !d.indexed() {
		d.seal(b)
		return nil
	}
	x, err := ext4.DecodeIndex(b, true)
	if err != nil {
		return err
	}
	d.sealIndex(x)
	return nil
}

// initialize makes a new directory's first block.
func (d *dir) initialize(parent uint32) error {
	_, b, err := d.grow()
	if err != nil {
		return err
	}
	d.put(b, 0, 12, d.n.Ino(), ext4.DirentDir, ".")
	d.put(b, 12, len(d.names(b))-12, parent, ext4.DirentDir, "..")
	d.seal(b)
	return nil
}
