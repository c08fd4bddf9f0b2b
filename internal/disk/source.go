package disk

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"

	"banger"
	"banger/internal/ext4/read"
	"banger/internal/tree"
)

// Source yields a node as name, and a directory's tree below it: parents first, names in order, further names of a file as hard
// links, files with their holes (tree.HoleReader).
func (n *Node) Source(name string) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		w := &walk{fs: n.fs, yield: yield, names: map[inode]string{}, dirs: map[inode]bool{}, data: map[*read.FS]uint64{}}
		if err := w.node(n, name); err != nil && err != errEnough {
			yield(tree.Entry{}, err)
		}
	}
}

// errEnough ends a walk whose reader wants no more.
var errEnough = errors.New("enough")

// inode is which file of which file system.
type inode struct {
	base bool
	ino  uint32
}

func (n *Node) id() inode { return inode{n.layer == inBase, n.Ino()} }

type walk struct {
	fs    *FS
	yield func(tree.Entry, error) bool
	names map[inode]string    // first names of files with several
	dirs  map[inode]bool      // seen, also those that are joined with others
	data  map[*read.FS]uint64 // blocks, to see those that are used twice
}

func (w *walk) node(n *Node, at string) error {
	if n.IsDir() {
		return w.directory(n, at)
	}
	if first, ok := w.names[n.id()]; ok {
		return w.give(tree.Entry{Path: at, Kind: tree.HardLink, Link: first})
	}
	if n.Stat().Links > 1 {
		w.names[n.id()] = at
	}
	if n.IsFile() {
		if err := w.count(n); err != nil {
			return fmt.Errorf("%.300q: %w", n.path, err)
		}
	}
	return w.entry(n, at)
}

// directory walks each directory of either file system once. The guest's kernel never makes a second way to one, and hostile ones could
// be without end.
func (w *walk) directory(n *Node, at string) error {
	ids := []inode{n.id()}
	if n.below != nil {
		ids = append(ids, inode{true, n.below.Ino()})
	}
	for _, id := range ids {
		if w.dirs[id] {
			return corrupt("%.300q: the directory was here before", n.path)
		}
		w.dirs[id] = true
	}
	if err := w.entry(n, at); err != nil {
		return err
	}
	list, err := n.list()
	if err != nil {
		return fmt.Errorf("%.300q: %w", n.path, err)
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		child, err := n.resolve(name, list[name])
		if errors.Is(err, banger.ErrNotFound) {
			continue
		}
		if err == nil {
			err = w.node(child, path.Join(at, name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// list gives the names in a directory, with those that turn out to be hidden.
func (n *Node) list() (map[string]names, error) {
	all := map[string]names{}
	for d, err := range entries(n.fs.of(n.layer), n.Node) {
		if err != nil {
			return nil, err
		}
		if all[d.Name].own != 0 {
			return nil, corrupt("the name %.300q twice", d.Name)
		}
		all[d.Name] = names{own: d.Ino}
	}
	if n.below == nil {
		return all, nil
	}
	for d, err := range entries(n.fs.base, n.below) {
		if err != nil {
			return nil, err
		}
		both := all[d.Name]
		if both.below != 0 {
			return nil, corrupt("the name %.300q twice in the image", d.Name)
		}
		both.below = d.Ino
		all[d.Name] = both
	}
	return all, nil
}

// entries are those of a directory that is no larger than its file system.
func entries(fs *read.FS, dir *read.Node) iter.Seq2[read.Dirent, error] {
	if sb := fs.Super(); uint64(dir.Size())/uint64(sb.BlockSize) > sb.BlocksCount {
		return func(yield func(read.Dirent, error) bool) {
			yield(read.Dirent{}, corrupt("a directory of %d bytes", dir.Size()))
		}
	}
	return dir.Entries()
}

// count adds a file's blocks. More than there are mean that one is used twice: reading all would be a bomb.
func (w *walk) count(n *Node) error {
	fs := n.fs.of(n.layer)
	blocks, err := n.DataBlocks()
	w.data[fs] += blocks
	if err == nil && w.data[fs] > fs.Super().BlocksCount {
		return corrupt("files have more blocks than the file system")
	}
	return err
}

func (w *walk) entry(n *Node, at string) error {
	e, err := n.Entry(at)
	if err != nil {
		return fmt.Errorf("%.300q: %w", n.path, err)
	}
	return w.give(e)
}

func (w *walk) give(e tree.Entry) error {
	if !w.yield(e, nil) {
		return errEnough
	}
	return nil
}

// Entry describes a node as a step in making a tree.
func (n *Node) Entry(at string) (e tree.Entry, err error) {
	if e, err = n.Node.Entry(at); err == nil {
		e.Xattrs, err = n.Xattrs()
	}
	return e, err
}
