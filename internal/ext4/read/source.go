package read

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"banger"
	"banger/internal/ext4"
	"banger/internal/tree"
)

// maxPath bounds the length of a path, which grows with the depth of a hostile tree.
const maxPath = 64 << 10

// Content is what a Source's files are read from. NextData tells where holes are.
type Content struct {
	*io.SectionReader
	n *Node
}

// NextData gives the next range of data at or after off, as [Node.NextData] does.
func (c *Content) NextData(off int64) (start, end int64, err error) { return c.n.NextData(off) }

// NewContent reads a node's content from its start.
func NewContent(n *Node) *Content { return &Content{io.NewSectionReader(n, 0, n.Size()), n} }

// Source yields the tree below a directory: parents first, names in order, further names of an inode as hard links. An
// empty lost+found in the root is left out. Content is a *Content.
func (f *FS) Source(dir string) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		w := &sourceWalk{f: f, yield: yield, names: map[uint32]string{}, dirs: map[uint32]bool{}}
		n, err := f.Lookup(dir, true)
		if err == nil && !n.IsDir() {
			err = banger.Invalidf("%s is no directory", dir)
		}
		if err == nil {
			err = w.directory(n, ".")
		}
		if err != nil && err != errEnough {
			yield(tree.Entry{}, err)
		}
	}
}

type sourceWalk struct {
	f      *FS
	yield  func(tree.Entry, error) bool
	names  map[uint32]string // of inodes with more than one link
	dirs   map[uint32]bool   // seen
	blocks uint64            // of data, to see blocks that are used twice
}

func (w *sourceWalk) directory(n *Node, path string) error {
	if w.dirs[n.ino] || len(path) > maxPath {
		return corrupt("directory %.200q: inode %d was here before or is too deep", path, n.ino)
	}
	w.dirs[n.ino] = true
	if err := w.entry(n, path); err != nil {
		return err
	}
	var list []Dirent
	for d, err := range n.Entries() {
		if err != nil {
			return fmt.Errorf("%.200q: %w", path, err)
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b Dirent) int { return cmp.Compare(a.Name, b.Name) })
	for i, d := range list {
		if i > 0 && list[i-1].Name == d.Name {
			return corrupt("directory %.200q has %q twice", path, d.Name)
		}
		if err := w.child(n, path, d); err != nil {
			return err
		}
	}
	return nil
}

func (w *sourceWalk) child(dir *Node, path string, d Dirent) error {
	name := d.Name
	if path != "." {
		name = path + "/" + name
	}
	if first, ok := w.names[d.Ino]; ok {
		return w.give(tree.Entry{Path: name, Kind: tree.HardLink, Link: first})
	}
	n, err := w.f.Node(d.Ino)
	if err != nil {
		return fmt.Errorf("%.200q: %w", name, err)
	}
	if n.IsDir() {
		if dir.ino == ext4.RootInode && d.Name == "lost+found" && n.empty() {
			return nil
		}
		return w.directory(n, name)
	}
	if n.raw.Links() > 1 {
		w.names[d.Ino] = name
	}
	return w.entry(n, name)
}

// empty tells that a directory holds nothing and can be read.
func (n *Node) empty() bool {
	for range n.Entries() {
		return false
	}
	return true
}

var kinds = map[uint16]tree.Kind{ext4.TypeFile: tree.File, ext4.TypeDir: tree.Dir, ext4.TypeSymlink: tree.Symlink, ext4.TypeChar: tree.CharDevice,
	ext4.TypeBlock: tree.BlockDevice, ext4.TypeFIFO: tree.FIFO, ext4.TypeSocket: tree.Socket}

func (w *sourceWalk) entry(n *Node, path string) error {
	e, err := n.Entry(path)
	if err == nil && n.IsFile() {
		err = w.count(n)
	}
	if err != nil {
		return fmt.Errorf("%.200q: %w", path, err)
	}
	return w.give(e)
}

// Entry describes a node as a step in making a tree.
func (n *Node) Entry(path string) (tree.Entry, error) {
	s := n.Stat()
	e := tree.Entry{Path: path, Kind: kinds[n.raw.Type()], Mode: uint32(s.Mode & 0o7777), UID: s.UID, GID: s.GID, ModTime: s.Mod, AccessTime: s.Access,
		ChangeTime: s.Change, Major: s.Major, Minor: s.Minor}
	var err error
	switch e.Kind {
	case 0:
		return e, corrupt("inode %d: mode %#o", n.ino, s.Mode)
	case tree.Symlink:
		e.Link, err = n.Link()
	case tree.File:
		if e.Size = s.Size; e.Size > 0 {
			e.Content = NewContent(n)
		}
	}
	if err == nil {
		e.Xattrs, err = n.Xattrs()
	}
	return e, err
}

// count adds a file's blocks of data. More than there are means that one is used twice: reading all would be a bomb.
func (w *sourceWalk) count(n *Node) error {
	blocks, err := n.DataBlocks()
	w.blocks += blocks
	if err == nil && w.blocks > w.f.sb.BlocksCount {
		return corrupt("files have more blocks than the file system")
	}
	return err
}

// DataBlocks is how many blocks the content takes.
func (n *Node) DataBlocks() (blocks uint64, err error) {
	err = n.walk(0, nil, func(e ext4.Extent) error {
		blocks += uint64(e.Len)
		return nil
	})
	return blocks, err
}

func (w *sourceWalk) give(e tree.Entry) error {
	if !w.yield(e, nil) {
		return errEnough
	}
	return nil
}
