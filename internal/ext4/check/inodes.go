package check

import (
	"encoding/binary"
	"errors"

	"banger/internal/ext4"
	"banger/internal/ext4/read"
)

// Inodes that are in use without a name.
const (
	badBlocksInode = 1
	projectQuota   = 0x26C // offset in the superblock of the inode of project quotas
)

// allInodes visits the inodes of every table up to where it is unused.
func (c *checker) allInodes() error {
	raw := make([]byte, ext4.SuperSize)
	if err := c.f.ReadBytes(raw, ext4.SuperOffset); err != nil {
		return err
	}
	quota := binary.LittleEndian.Uint32(raw[projectQuota:])
	for group := range c.sb.Groups {
		g, err := c.f.Group(group)
		if isCorrupt(err) {
			continue // noted already
		} else if err != nil {
			return err
		}
		count := c.sb.InodesPerGroup
		if c.sb.GroupCsum() {
			if g.Flags()&ext4.GroupInodeUninit != 0 {
				continue
			}
			if g.UnusedInodes() > count {
				if err := c.fault(Group, groupName(group), "%d of %d inodes were never used", g.UnusedInodes(), count); err != nil {
					return err
				}
				continue
			}
			count -= g.UnusedInodes()
		}
		for i := range count {
			ino := group*c.sb.InodesPerGroup + i + 1
			raw, err := c.f.RawInode(ino)
			if err != nil {
				if err := c.judge(Group, groupName(group), err); err != nil {
					return err
				}
				break
			}
			used := raw.Links() > 0 || c.orphans[ino] || ino < c.sb.FirstIno && raw.Mode() != 0 || ino == badBlocksInode || ino == ext4.ResizeInode && raw.Sectors() > 0
			if !used {
				continue
			}
			in := &inode{mode: raw.Mode(), links: raw.Links()}
			in.special = ino < c.sb.FirstIno && ino != ext4.RootInode || c.orphans[ino] || raw.Flags()&ext4.InodeEAInode != 0 ||
				ino == c.sb.OrphanFileIno || ino == quota
			c.inodes[ino] = in
			c.order = append(c.order, ino)
			if err := c.inode(ino, raw, in); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) inode(ino uint32, raw ext4.Inode, in *inode) error {
	where := inodeName(ino)
	if err := c.judge(Checksum, where, c.f.VerifyInode(ino, raw)); err != nil {
		return err
	}
	n, err := c.f.Unverified(ino)
	if err != nil {
		return c.judge(Inode, where, err)
	}
	if n.IsDir() {
		c.dirs[(ino-1)/c.sb.InodesPerGroup]++
	}
	switch {
	case ino == badBlocksInode || ino == ext4.ResizeInode:
		return c.resizeInode(ino, raw, where)
	case ext4.DirentType(raw.Mode()) == 0:
		return c.fault(Inode, where, "mode %#o", raw.Mode())
	case raw.DeletedAt() != 0 && !c.orphans[ino]:
		return c.fault(Inode, where, "is in use and was deleted")
	}
	attributes, shared, err := c.attributes(raw, where)
	if err != nil {
		return err
	}
	if n.IsSymlink() {
		if _, err := n.Link(); err != nil {
			return c.judge(Size, where, err)
		}
	}
	return c.content(n, raw, where, attributes, shared)
}

// resizeInode claims the one block that names the descriptors in reserve, which were claimed already.
func (c *checker) resizeInode(ino uint32, raw ext4.Inode, where string) error {
	if double := binary.LittleEndian.Uint32(raw.Block()[13*4:]); ino == ext4.ResizeInode && double != 0 {
		return c.claim(where, uint64(double), 1)
	}
	return nil
}

// content claims an inode's blocks and compares them with its sizes.
func (c *checker) content(n *read.Node, raw ext4.Inode, where string, attributes uint64, shared bool) error {
	data, meta, err := n.Layout()
	broken := err != nil
	if err := c.judge(Mapping, where, err); err != nil {
		return err
	}
	blocks, end := attributes+uint64(len(meta)), uint64(0)
	for _, block := range meta {
		if err := c.claim(where, block, 1); err != nil {
			return err
		}
	}
	for _, e := range data {
		if err := c.claim(where, e.Physical, uint64(e.Len)); err != nil {
			return err
		}
		blocks += uint64(e.Len)
		if !e.Unwritten {
			end = uint64(e.Logical) + uint64(e.Len)
		}
	}
	if broken {
		return nil
	}
	size := uint64(c.sb.BlockSize)
	if sectors := uint64(n.Stat().Sectors); sectors != blocks*size/512 && !shared {
		if err := c.fault(Sectors, where, "%d sectors, its blocks have %d", sectors, blocks*size/512); err != nil {
			return err
		}
	}
	if inline := raw.Flags()&ext4.InodeInline != 0; n.IsDir() && !inline && raw.Size() != end*size {
		return c.fault(Size, where, "directory of %d bytes, its blocks have %d", raw.Size(), end*size)
	}
	if n.IsFile() && end > 0 && raw.Size() <= (end-1)*size && !c.orphans[n.Ino()] {
		return c.fault(Size, where, "file of %d bytes has data in block %d", raw.Size(), end-1)
	}
	return nil
}

// attributes checks extended attributes and gives the blocks that they add to the inode; shared tells that other inodes
// hold values, which are counted elsewhere.
func (c *checker) attributes(raw ext4.Inode, where string) (blocks uint64, shared bool, err error) {
	list, err := ext4.InodeXattrs(raw)
	if err != nil {
		return 0, false, c.judge(Xattr, where, err)
	}
	if block := raw.XattrBlock(); block != 0 {
		blocks = 1
		x := c.xattrs[block]
		if x == nil {
			x = &xattrBlock{}
			c.xattrs[block] = x
			if err := c.claim(where, block, 1); err != nil {
				return blocks, false, err
			}
		}
		x.found++
		b, err := c.f.Block(block)
		if err != nil {
			return blocks, false, c.judge(Xattr, where, err)
		}
		x.stored = ext4.XattrRefs(b)
		if sum := c.sb.XattrBlockSum(block, b); c.sb.MetadataCsum() && sum != ext4.StoredXattrBlockSum(b) {
			if err := c.fault(Checksum, where, "attributes in block %d have %#x, computed %#x", block, ext4.StoredXattrBlockSum(b), sum); err != nil {
				return blocks, false, err
			}
		}
		more, err := ext4.BlockXattrs(b)
		if err != nil {
			return blocks, false, c.judge(Xattr, where, err)
		}
		list = append(list, more...)
	}
	for _, x := range list {
		shared = shared || x.Inode != 0
		if x.Name == ext4.XattrACL || x.Name == ext4.XattrDefaultACL {
			_, aclErr := ext4.ACLFromDisk(x.Value)
			err = errors.Join(err, c.judge(Xattr, where, aclErr))
		}
	}
	return blocks, shared, err
}
