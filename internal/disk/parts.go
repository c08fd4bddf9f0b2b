package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"banger"
	"banger/internal/ext4"
	"banger/internal/transfer"
	"banger/internal/tree"
)

// Parts is a directory of a stopped VM whose files are asked for by name.
type Parts struct{ dir *Node }

// Parts opens a directory of the guest, in whose path symbolic links are followed. Errors: ErrNotFound, ErrInvalid, ErrCorrupt.
func (f *FS) Parts(name string) (Parts, error) {
	n, err := f.Lookup(name, true)
	if err == nil && !n.IsDir() {
		err = &banger.Error{Kind: banger.ErrInvalid, Op: "look up", Subject: name, Err: errors.New("it is no directory")}
	}
	return Parts{n}, err
}

// Entry gives the file or symbolic link at a path below the directory; no link is followed on the way. Errors: ErrNotFound for what is
// not there or neither of them; ErrCorrupt.
func (p Parts) Entry(name string) (tree.Entry, io.Closer, error) {
	n, err := p.dir.at(name)
	if errors.Is(err, banger.ErrInvalid) || err == nil && !n.IsFile() && !n.IsSymlink() {
		err = &banger.Error{Kind: banger.ErrNotFound, Err: fmt.Errorf("%.300q: no file", name)}
	}
	if err != nil {
		return tree.Entry{}, nil, err
	}
	if n.IsFile() {
		blocks, err := n.DataBlocks()
		if err == nil && blocks > n.fs.of(n.layer).Super().BlocksCount {
			err = corrupt("%.300q has more blocks than the file system", name)
		}
		if err != nil {
			return tree.Entry{}, nil, err
		}
	}
	e, err := n.Node.Entry(name)
	return e, nil, err
}

// at finds a path below a directory without following links.
func (n *Node) at(name string) (_ *Node, err error) {
	for part := range strings.SplitSeq(name, "/") {
		if n, err = n.Child(part); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// Walk gives what is below the directory, parents first and names in order. It does not go below what skip tells. There are no other
// file systems in a VM that does not run.
func (p Parts) Walk(ctx context.Context, skip func(name string) bool, _ func(dev uint64) bool, yield func(transfer.Node) error) error {
	w := &partsWalk{ctx: ctx, skip: skip, yield: yield, dirs: map[inode]bool{}}
	return w.below(p.dir, ".")
}

type partsWalk struct {
	ctx   context.Context
	skip  func(string) bool
	yield func(transfer.Node) error
	dirs  map[inode]bool // seen: hostile ones could be without end
}

func (w *partsWalk) below(dir *Node, at string) error {
	if w.dirs[dir.id()] {
		return corrupt("%.300q: the directory was here before", dir.path)
	}
	w.dirs[dir.id()] = true
	list, err := dir.list()
	if err != nil {
		return fmt.Errorf("%.300q: %w", dir.path, err)
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if err := w.ctx.Err(); err != nil {
			return context.Cause(w.ctx)
		}
		child, err := dir.resolve(name, list[name])
		if errors.Is(err, banger.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		below := transfer.Below(at, name)
		if err := w.yield(child.part(below)); err != nil {
			return err
		}
		if child.IsDir() && !w.skip(below) {
			if err := w.below(child, below); err != nil {
				return err
			}
		}
	}
	return nil
}

var partKinds = map[uint16]tree.Kind{ext4.TypeFile: tree.File, ext4.TypeDir: tree.Dir, ext4.TypeSymlink: tree.Symlink, ext4.TypeChar: tree.CharDevice,
	ext4.TypeBlock: tree.BlockDevice, ext4.TypeFIFO: tree.FIFO, ext4.TypeSocket: tree.Socket}

// part describes a node as the guest's own kernel would.
func (n *Node) part(at string) transfer.Node {
	st := n.Stat()
	return transfer.Node{Path: []byte(at), Kind: partKinds[n.Raw().Type()], Mode: uint32(st.Mode & 0o7777), UID: st.UID, GID: st.GID, Ino: uint64(n.Ino()), Size: n.Size(),
		MTime: st.Mod.UnixNano(), CTime: st.Change.UnixNano()}
}
