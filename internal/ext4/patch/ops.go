package patch

import (
	"errors"
	"io"
	"strings"

	"banger"
	"banger/internal/ext4"
	"banger/internal/ext4/read"
)

// place is a name in a directory.
type place struct {
	dir  *read.Node
	name string
}

// locate finds the directory of a path, through symbolic links, and the name in it. Errors: ErrNotFound, ErrInvalid.
func (tx *Tx) locate(path string) (place, error) {
	path = strings.TrimRight(path, "/")
	parent, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		parent, name = path[:i], path[i+1:]
	}
	switch {
	case name == "" || name == "." || name == "..":
		return place{}, banger.Invalidf("%q names no entry of a directory", path)
	case len(name) > 255:
		return place{}, banger.Invalidf("a name of %d bytes, 255 is the most", len(name))
	case strings.ContainsRune(path, 0):
		return place{}, banger.Invalidf("a name with a NUL byte")
	}
	dir, err := tx.fs.Lookup(parent, true)
	if err != nil {
		return place{}, err
	}
	if !dir.IsDir() {
		return place{}, banger.Invalidf("%s is no directory", parent)
	}
	if dir.Raw().Flags()&ext4.InodeCasefold != 0 {
		return place{}, unsupported("changing a directory that ignores case")
	}
	return place{dir, name}, nil
}

// child opens what a place names; nil when nothing does.
func (tx *Tx) child(p place) (*read.Node, error) {
	d, ok, err := p.dir.Child(p.name)
	if !ok || err != nil {
		return nil, err
	}
	return tx.fs.Node(d.Ino)
}

// existing is child for what must be there.
func (tx *Tx) existing(path string) (place, *read.Node, error) {
	p, err := tx.locate(path)
	if err != nil {
		return p, nil, err
	}
	n, err := tx.child(p)
	if err == nil && n == nil {
		err = &banger.Error{Kind: banger.ErrNotFound, Err: errors.New("no such file or directory")}
	}
	return p, n, err
}

// enter gives a node a name and notes the change in its directory.
func (tx *Tx) enter(p place, n *read.Node) error {
	d, err := tx.dir(p.dir)
	if err == nil {
		err = d.add(p.name, n.Ino(), ext4.DirentType(n.Raw().Mode()))
	}
	if err != nil {
		return err
	}
	return tx.touch(p.dir)
}

// leave takes a name away.
func (tx *Tx) leave(p place) error {
	d, err := tx.dir(p.dir)
	if err == nil {
		err = d.remove(p.name)
	}
	if err != nil {
		return err
	}
	return tx.touch(p.dir)
}

// touch notes that the names of a directory changed.
func (tx *Tx) touch(dir *read.Node) error {
	return tx.change(dir.Ino(), func(raw ext4.Inode) { raw.SetTime(ext4.TimeMod, tx.opt.Now) })
}

const maxLinks = 65000

// linkParent counts a subdirectory more or less. Beyond 65,000 a directory says that it has one link.
func (tx *Tx) linkParent(dir *read.Node, by int) error {
	raw, err := tx.inode(dir.Ino())
	if err != nil {
		return err
	}
	links := int(raw.Links())
	switch {
	case links == 1:
		return nil
	case links+by < maxLinks:
		return tx.change(dir.Ino(), func(raw ext4.Inode) { raw.SetLinks(uint16(links + by)) })
	case tx.sb.ROCompat&ext4.ROCompatDirNlink == 0:
		return unavailable("a directory cannot have more than %d subdirectories here", maxLinks-2)
	}
	return tx.change(dir.Ino(), func(raw ext4.Inode) { raw.SetLinks(1) })
}

// vacant finds a place where nothing is.
func (tx *Tx) vacant(path string) (place, error) {
	p, err := tx.locate(path)
	if err != nil {
		return p, err
	}
	n, err := tx.child(p)
	if err == nil && n != nil {
		err = conflict("it exists")
	}
	return p, err
}

// Mkdir makes a directory. Errors: ErrConflict when the path exists, ErrNotFound when its parent does not.
func (tx *Tx) Mkdir(path string, a Attr) error {
	return tx.do("make directory", path, func() error { return tx.mkdir(path, a) })
}

func (tx *Tx) mkdir(path string, a Attr) error {
	p, err := tx.vacant(path)
	if err != nil {
		return err
	}
	n, err := tx.create(p.dir, ext4.TypeDir, a)
	if err != nil {
		return err
	}
	d := &dir{tx: tx, n: n}
	if err := d.initialize(p.dir.Ino()); err != nil {
		return err
	}
	if err := tx.enter(p, n); err != nil {
		return err
	}
	return tx.linkParent(p.dir, 1)
}

// MkdirAll makes a directory and those above it that are missing.
func (tx *Tx) MkdirAll(path string, a Attr) error {
	return tx.do("make directory", path, func() error {
		for i := 1; i <= len(path); i++ {
			if i < len(path) && path[i] != '/' || path[i-1] == '/' {
				continue
			}
			n, err := tx.fs.Lookup(path[:i], true)
			switch {
			case errors.Is(err, banger.ErrNotFound):
				err = tx.mkdir(path[:i], a)
			case err == nil && !n.IsDir():
				err = conflict("%s is no directory", path[:i])
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// WriteFile makes a file of size bytes of r, or gives the file that is there, also through a symbolic link, this content,
// owner and mode; it keeps its other names and its extended attributes. Errors: ErrConflict when the path is something
// else, ErrNotFound when its directory does not exist, ErrUnavailable when there is no room.
func (tx *Tx) WriteFile(path string, size int64, r io.Reader, a Attr) error {
	return tx.do("write", path, func() error {
		if size < 0 {
			return banger.Invalidf("size %d", size)
		}
		p, err := tx.locate(path)
		if err != nil {
			return err
		}
		n, err := tx.child(p)
		if err == nil && n != nil && n.IsSymlink() {
			n, err = tx.fs.Lookup(path, true)
		}
		switch {
		case err != nil:
			return err
		case n == nil:
			return tx.newFile(p, size, r, a)
		case !n.IsFile():
			return conflict("it is no regular file")
		}
		if err := tx.fill(n, size, r); err != nil {
			return err
		}
		return tx.change(n.Ino(), func(raw ext4.Inode) { tx.setAttr(raw, ext4.TypeFile, a) })
	})
}

func (tx *Tx) newFile(p place, size int64, r io.Reader, a Attr) error {
	n, err := tx.create(p.dir, ext4.TypeFile, a)
	if err == nil && size > 0 {
		err = tx.fill(n, size, r)
	}
	if err != nil {
		return err
	}
	return tx.enter(p, n)
}

// Symlink makes a symbolic link to text, with mode 0777 whatever a says.
func (tx *Tx) Symlink(text, path string, a Attr) error {
	return tx.do("make symbolic link", path, func() error {
		if most := min(4095, tx.sb.BlockSize-1); len(text) == 0 || len(text) > most || strings.ContainsRune(text, 0) {
			return banger.Invalidf("a link's text has 1 to %d bytes and no NUL", most)
		}
		p, err := tx.vacant(path)
		if err != nil {
			return err
		}
		a.Mode = 0o777
		n, err := tx.create(p.dir, ext4.TypeSymlink, a)
		if err != nil {
			return err
		}
		if len(text) >= 60 {
			err = tx.fillLink(n, text)
		} else {
			err = tx.change(n.Ino(), func(raw ext4.Inode) {
				raw.SetFlags(raw.Flags() &^ ext4.InodeExtents)
				clear(raw.Block())
				copy(raw.Block(), text)
				raw.SetSize(uint64(len(text)))
			})
		}
		if err != nil {
			return err
		}
		return tx.enter(p, n)
	})
}

// fillLink gives a link, whose size is not known yet, a block of text.
func (tx *Tx) fillLink(n *read.Node, text string) error {
	runs, err := tx.allocate((n.Ino()-1)/tx.sb.InodesPerGroup, 1)
	if err != nil {
		return err
	}
	if err := tx.stream(runs, int64(len(text)), strings.NewReader(text)); err != nil {
		return err
	}
	raw, err := tx.inode(n.Ino())
	if err != nil {
		return err
	}
	raw.SetSize(uint64(len(text)))
	return tx.setLayout(n, extentsOf(nil, 0, runs), nil)
}

// Remove removes a file, or a directory that is empty. Errors: ErrNotFound, ErrConflict.
func (tx *Tx) Remove(path string) error {
	return tx.do("remove", path, func() error {
		p, n, err := tx.existing(path)
		if err != nil {
			return err
		}
		return tx.remove(p, n)
	})
}

func (tx *Tx) remove(p place, n *read.Node) error {
	if err := tx.removable(p, n); err != nil {
		return err
	}
	if n.IsDir() {
		if err := tx.linkParent(p.dir, -1); err != nil {
			return err
		}
	}
	if err := tx.leave(p); err != nil {
		return err
	}
	return tx.drop(n)
}

// removable refuses directories that are not empty.
func (tx *Tx) removable(p place, n *read.Node) error {
	if !n.IsDir() {
		return nil
	}
	if p.dir.Ino() == ext4.RootInode && p.name == "lost+found" {
		return conflict("e2fsck needs it")
	}
	for _, err := range n.Entries() {
		if err != nil {
			return err
		}
		return conflict("the directory is not empty")
	}
	return nil
}

// RemoveAll removes a path and all below it. One that does not exist is no error.
func (tx *Tx) RemoveAll(path string) error {
	return tx.do("remove", path, func() error {
		p, n, err := tx.existing(path)
		if errors.Is(err, banger.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		return tx.removeAll(p, n, 0)
	})
}

// maxDepth bounds how deep directories are followed: hostile ones may go round in a circle.
const maxDepth = 10000

func (tx *Tx) removeAll(p place, n *read.Node, depth int) error {
	if depth > maxDepth {
		return corrupt("directories are more than %d deep", maxDepth)
	}
	if n.IsDir() {
		var names []string
		for d, err := range n.Entries() {
			if err != nil {
				return err
			}
			names = append(names, d.Name)
		}
		for _, name := range names {
			below := place{n, name}
			child, err := tx.child(below)
			if err == nil && child == nil {
				err = corrupt("directory inode %d has lost %q", n.Ino(), name)
			}
			if err == nil {
				err = tx.removeAll(below, child, depth+1)
			}
			if err != nil {
				return err
			}
		}
	}
	return tx.remove(p, n)
}

// Rename gives what from names the name to, in place of a file or an empty directory that may be there, as rename(2) does.
// Errors: ErrNotFound, ErrConflict, ErrInvalid for a directory that would go below itself.
func (tx *Tx) Rename(from, to string) error {
	return tx.do("rename", from, func() error {
		p, n, err := tx.existing(from)
		if err != nil {
			return err
		}
		q, err := tx.locate(to)
		if err != nil {
			return err
		}
		there, err := tx.child(q)
		if err != nil {
			return err
		}
		if there != nil && there.Ino() == n.Ino() {
			return nil
		}
		if err := tx.renameable(n, q, there); err != nil {
			return err
		}
		return tx.rename(p, n, q, there)
	})
}

func (tx *Tx) renameable(n *read.Node, q place, there *read.Node) error {
	if there != nil && there.IsDir() != n.IsDir() {
		return conflict("one is a directory and the other is not")
	}
	if there != nil {
		if err := tx.removable(q, there); err != nil {
			return err
		}
	}
	if !n.IsDir() {
		return nil
	}
	for ino, steps := q.dir.Ino(), 0; ino != ext4.RootInode; steps++ {
		if ino == n.Ino() || steps > maxDepth {
			return banger.Invalidf("a directory cannot lie below itself")
		}
		dir, err := tx.fs.Node(ino)
		if err != nil {
			return err
		}
		if ino, err = dir.Parent(); err != nil {
			return err
		}
	}
	return nil
}

func (tx *Tx) rename(p place, n *read.Node, q place, there *read.Node) error {
	moved := n.IsDir() && p.dir.Ino() != q.dir.Ino()
	if err := tx.leave(p); err != nil {
		return err
	}
	if there != nil {
		d, err := tx.dir(q.dir)
		if err == nil {
			err = d.retarget(q.name, n.Ino(), ext4.DirentType(n.Raw().Mode()))
		}
		if err == nil {
			err = tx.touch(q.dir)
		}
		if err == nil && there.IsDir() {
			err = tx.linkParent(q.dir, -1)
		}
		if err == nil {
			err = tx.drop(there)
		}
		if err != nil {
			return err
		}
	} else if err := tx.enter(q, n); err != nil {
		return err
	}
	if !moved {
		return tx.change(n.Ino(), func(ext4.Inode) {})
	}
	d, err := tx.dir(n)
	if err == nil {
		err = d.setParent(q.dir.Ino())
	}
	if err == nil {
		err = tx.linkParent(p.dir, -1)
	}
	if err == nil {
		err = tx.linkParent(q.dir, 1)
	}
	if err != nil {
		return err
	}
	return tx.change(n.Ino(), func(ext4.Inode) {})
}

// Chmod sets permissions, of what a symbolic link stands for.
func (tx *Tx) Chmod(path string, mode uint32) error {
	return tx.do("change mode of", path, func() error {
		n, err := tx.fs.Lookup(path, true)
		if err != nil {
			return err
		}
		attrs, err := n.Xattrs()
		if err != nil {
			return err
		}
		if attrs[ext4.XattrACL] != nil {
			return unsupported("it has an access control list")
		}
		return tx.change(n.Ino(), func(raw ext4.Inode) { raw.SetMode(raw.Type() | uint16(mode&0o7777)) })
	})
}

// Chown sets the owner, of what a symbolic link stands for.
func (tx *Tx) Chown(path string, uid, gid uint32) error {
	return tx.do("change owner of", path, func() error {
		n, err := tx.fs.Lookup(path, true)
		if err != nil {
			return err
		}
		return tx.change(n.Ino(), func(raw ext4.Inode) {
			raw.SetUID(uid)
			raw.SetGID(gid)
		})
	})
}
