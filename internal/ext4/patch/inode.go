package patch

import (
	"encoding/binary"
	"io"
	"time"

	"banger"
	"banger/internal/ext4"
	"banger/internal/ext4/read"
)

// inode gives an inode to change. Who changes it seals it.
func (tx *Tx) inode(ino uint32) (ext4.Inode, error) {
	block, off, err := tx.fs.InodeLocation(ino)
	if err != nil {
		return nil, err
	}
	b, err := tx.edit(block)
	if err != nil {
		return nil, err
	}
	return ext4.Inode(b[off : off+tx.sb.InodeSize]), nil
}

// change lets set change an inode, whose change time becomes now.
func (tx *Tx) change(ino uint32, set func(ext4.Inode)) error {
	raw, err := tx.inode(ino)
	if err != nil {
		return err
	}
	set(raw)
	raw.SetTime(ext4.TimeChange, tx.opt.Now)
	tx.sb.Seal(ino, raw)
	return nil
}

// create makes an inode without content and with one link; a directory starts with two.
func (tx *Tx) create(parent *read.Node, kind uint16, a Attr) (*read.Node, error) {
	ino, err := tx.allocateInode((parent.Ino()-1)/tx.sb.InodesPerGroup, kind == ext4.TypeDir)
	if err != nil {
		return nil, err
	}
	raw, err := tx.inode(ino)
	if err != nil {
		return nil, err
	}
	generation := raw.Generation() + 1
	clear(raw)
	raw.SetGeneration(generation)
	raw.SetLinks(1)
	if kind == ext4.TypeDir {
		raw.SetLinks(2)
	}
	if tx.sb.InodeSize > 128 {
		extra := max(tx.sb.WantExtraIsize, 28)
		if int(extra) > tx.sb.InodeSize-128 || extra%4 != 0 {
			extra = 28
		}
		binary.LittleEndian.PutUint16(raw[128:], extra)
	}
	if tx.sb.Incompat&ext4.IncompatExtents != 0 {
		raw.SetFlags(ext4.InodeExtents)
		ext4.EncodeExtents(raw.Block(), nil)
	}
	tx.setAttr(raw, kind, a)
	raw.SetTime(ext4.TimeAccess, raw.ModTime())
	raw.SetTime(ext4.TimeChange, tx.opt.Now)
	raw.SetTime(ext4.TimeBirth, tx.opt.Now)
	tx.sb.Seal(ino, raw)
	return tx.fs.Node(ino)
}

func (tx *Tx) setAttr(raw ext4.Inode, kind uint16, a Attr) {
	raw.SetMode(kind | uint16(a.Mode&0o7777))
	raw.SetUID(a.UID)
	raw.SetGID(a.GID)
	raw.SetTime(ext4.TimeMod, tx.timeOf(a))
}

func (tx *Tx) timeOf(a Attr) time.Time {
	if a.ModTime.IsZero() {
		return tx.opt.Now
	}
	return a.ModTime
}

// seed begins the checksums of what belongs to a node.
func (tx *Tx) seed(n *read.Node) uint32 { return tx.sb.InodeSeed(n.Ino(), n.Raw().Generation()) }

// fill writes a node's content, size bytes of r, to blocks that were free, in place of what it had.
func (tx *Tx) fill(n *read.Node, size int64, r io.Reader) error {
	old, meta, err := n.Layout()
	if err != nil {
		return err
	}
	blockSize := int64(tx.sb.BlockSize)
	blocks := (size + blockSize - 1) / blockSize
	if blocks >= 1<<32-1 || n.Raw().Flags()&ext4.InodeExtents == 0 && uint64(blocks) > tx.mostPointers() {
		return banger.Invalidf("%d bytes are more than a file can have", size)
	}
	runs, err := tx.allocate((n.Ino()-1)/tx.sb.InodesPerGroup, uint64(blocks))
	if err != nil {
		return err
	}
	if err := tx.stream(runs, size, r); err != nil {
		return err
	}
	raw, err := tx.inode(n.Ino())
	if err != nil {
		return err
	}
	raw.SetSize(uint64(size))
	tx.large = tx.large || size > 1<<31-1
	for _, e := range old {
		tx.release(e.Physical, uint64(e.Len))
	}
	return tx.setLayout(n, extentsOf(nil, 0, runs), meta)
}

// stream copies size bytes of r to runs of blocks and fills up the last block with zeros.
func (tx *Tx) stream(runs []run, size int64, r io.Reader) error {
	const chunk = 1 << 20
	blockSize := int64(tx.sb.BlockSize)
	buf := make([]byte, min(chunk, (size+blockSize-1)/blockSize*blockSize))
	for _, run := range runs {
		off, left := int64(run.block)*blockSize, int64(run.count)*blockSize
		for left > 0 {
			b := buf[:min(left, int64(len(buf)))]
			content := min(int64(len(b)), size)
			if _, err := io.ReadFull(r, b[:content]); err == io.EOF || err == io.ErrUnexpectedEOF {
				return banger.Invalidf("the content ends %d bytes early", size)
			} else if err != nil {
				return err
			}
			clear(b[content:])
			if _, err := tx.dev.WriteAt(b, off); err != nil {
				return err
			}
			off, left, size = off+int64(len(b)), left-int64(len(b)), size-content
		}
	}
	return nil
}

// drop takes one link from a node and, with the last, all it has.
func (tx *Tx) drop(n *read.Node) error {
	raw, err := tx.inode(n.Ino())
	if err != nil {
		return err
	}
	if !n.IsDir() && raw.Links() > 1 {
		return tx.change(n.Ino(), func(raw ext4.Inode) { raw.SetLinks(raw.Links() - 1) })
	}
	data, meta, err := n.Layout()
	if err != nil {
		return err
	}
	for _, e := range data {
		tx.release(e.Physical, uint64(e.Len))
	}
	for _, block := range meta {
		tx.release(block, 1)
	}
	if block := raw.XattrBlock(); block != 0 {
		if err := tx.dropXattrs(block); err != nil {
			return err
		}
	}
	if n.IsDir() {
		tx.fs.Forget(n.Ino())
	}
	generation, dir := raw.Generation(), n.IsDir()
	clear(raw)
	raw.SetGeneration(generation)
	raw.SetDeletedAt(uint32(tx.opt.Now.Unix()))
	tx.sb.Seal(n.Ino(), raw)
	return tx.releaseInode(n.Ino(), dir)
}

// dropXattrs takes one user from a block of attributes.
func (tx *Tx) dropXattrs(block uint64) error {
	b, err := tx.edit(block)
	if err != nil {
		return err
	}
	refs := ext4.XattrRefs(b)
	if refs <= 1 {
		tx.release(block, 1)
		return nil
	}
	ext4.SetXattrRefs(b, refs-1)
	tx.sb.SealXattrBlock(block, b)
	return nil
}
