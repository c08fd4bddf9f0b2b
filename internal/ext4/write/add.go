package write

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"banger/internal/ext4"
	"banger/internal/tree"
)

const (
	maxName  = 255
	maxLinks = 65000 // of a file; a directory has any number
	maxHops  = 40    // symlinks on the way to an entry
	// maxFile is what block numbers of 32 bits reach.
	maxFile = (1<<32 - 1) * blockSize
)

// writer holds a file system while it is made.
type writer struct {
	output
	layout layout
	opts   Options
	super  ext4.Superblock // for checksums

	root, lost *node
	arena      []node // nodes not handed out yet
	inodes     uint64 // in use, the reserved ones too
	layer      uint16
	freed      []span // of entries that were replaced
	resizeMap  uint64 // block of the resize inode

	lastDir  string // a directory found before
	lastNode *node
}

func newWriter(ctx context.Context, f *os.File, opts Options) (*writer, error) {
	l, err := newLayout(opts)
	if err != nil {
		return nil, err
	}
	if opts.Time.IsZero() {
		opts.Time = time.Unix(0, 0)
	}
	if err := f.Truncate(int64(l.blocks) * blockSize); err != nil {
		return nil, err
	}
	w := &writer{output: output{ctx: ctx, file: f, end: l.blocks, reserved: l.reserved(), buf: make([]byte, 0, firstBuffer)}, layout: l, opts: opts, inodes: ext4.FirstInode}
	w.left = w.end
	for _, s := range w.reserved {
		w.left -= s.to - s.from
	}
	w.super = ext4.Superblock{Seed: ext4.Checksum(^uint32(0), opts.UUID[:]), ROCompat: roCompat, DescSize: ext4.DescSize}
	w.root = w.directory(nil, 0o755)
	w.root.parent = w.root
	w.lost = w.directory(w.root, 0o700)
	w.root.kids["lost+found"] = w.lost
	if l.reservedGDT > 0 {
		s, err := w.take(1)
		if err != nil {
			return nil, err
		}
		w.resizeMap = s.from
	}
	return w, nil
}

func (w *writer) node() *node {
	if len(w.arena) == 0 {
		w.arena = make([]node, 256)
	}
	n := &w.arena[0]
	w.arena = w.arena[1:]
	n.layer = w.layer
	return n
}

// directory makes one that nothing was said about yet.
func (w *writer) directory(parent *node, mode uint16) *node {
	n := w.node()
	n.mode, n.links, n.kids, n.parent = ext4.TypeDir|mode, 2, map[string]*node{}, parent
	now := newStamp(w.opts.Time)
	n.modTime, n.changed, n.access = now, now, now
	if parent != nil {
		parent.links++
	}
	return n
}

// add makes one entry.
func (w *writer) add(e tree.Entry) error {
	switch {
	case e.Kind == tree.Layer:
		w.layer++
		return nil
	case e.Path == "." && e.Kind == tree.Dir:
		return w.describe(w.root, e)
	case e.Path == "." && e.Kind != tree.Opaque:
		return bad(e.Path, "the root is a directory")
	case e.Kind == tree.Delete:
		return w.remove(e.Path)
	case e.Kind == tree.Opaque:
		dir, err := w.walk(e.Path, false)
		if err == nil && dir != nil {
			w.prune(dir)
		}
		return err
	}
	parent, name, err := w.locate(e.Path, true)
	if err != nil {
		return err
	}
	old := parent.kids[name]
	switch {
	case e.Kind == tree.Dir && old != nil && old.isDir():
		old.layer = w.layer
		return w.describe(old, e)
	case old == w.lost:
		return bad(e.Path, "lost+found must be a directory")
	case e.Kind == tree.HardLink:
		return w.link(parent, name, e)
	}
	n, err := w.make(parent, e)
	if err != nil {
		return err
	}
	w.drop(parent, name)
	parent.kids[strings.Clone(name)] = n
	return nil
}

// make makes the inode of an entry.
func (w *writer) make(parent *node, e tree.Entry) (*node, error) {
	if w.inodes >= uint64(w.layout.groups)*uint64(w.layout.inodesPerGroup) {
		return nil, bad(e.Path, "%w", full("inodes"))
	}
	kind, ok := types[e.Kind]
	if !ok {
		return nil, bad(e.Path, "kind %d", e.Kind)
	}
	w.inodes++
	if e.Kind == tree.Dir {
		n := w.directory(parent, 0)
		return n, w.describe(n, e)
	}
	n := w.node()
	n.mode, n.links = kind, 1
	if err := w.describe(n, e); err != nil {
		return nil, err
	}
	var err error
	switch e.Kind {
	case tree.File:
		if e.Size < 0 || e.Size > maxFile {
			return nil, bad(e.Path, "a size of %d bytes", e.Size)
		}
		n.size = e.Size
		err = w.content(n, e)
	case tree.Symlink:
		if e.Link == "" || len(e.Link) >= blockSize || strings.IndexByte(e.Link, 0) >= 0 {
			return nil, bad(e.Path, "a symbolic link to %.80q of %d bytes: from 1 to %d, none of them zero", e.Link, len(e.Link), blockSize-1)
		}
		n.mode |= 0o777
		n.size, n.extra().link = int64(len(e.Link)), strings.Clone(e.Link)
		if len(e.Link) >= inodeBlockSize {
			err = w.text(n, e.Link)
		}
	case tree.CharDevice, tree.BlockDevice:
		if e.Major > 1<<12-1 || e.Minor > 1<<20-1 {
			return nil, bad(e.Path, "device %d:%d: numbers up to 4095:1048575", e.Major, e.Minor)
		}
		n.size = int64(e.Major)<<32 | int64(e.Minor)
	}
	if err != nil {
		return nil, fmt.Errorf("entry %q: %w", e.Path, err)
	}
	return n, nil
}

var types = map[tree.Kind]uint16{tree.File: ext4.TypeFile, tree.Dir: ext4.TypeDir, tree.Symlink: ext4.TypeSymlink, tree.CharDevice: ext4.TypeChar,
	tree.BlockDevice: ext4.TypeBlock, tree.FIFO: ext4.TypeFIFO, tree.Socket: ext4.TypeSocket}

// describe gives n the attributes of an entry.
func (w *writer) describe(n *node, e tree.Entry) error {
	if e.Kind != tree.Symlink {
		n.mode = n.kind() | uint16(e.Mode&0o7777)
	}
	n.uid, n.gid = e.UID, e.GID
	n.modTime = newStamp(first(e.ModTime, w.opts.Time))
	n.access = newStamp(first(e.AccessTime, e.ModTime, w.opts.Time))
	n.changed = newStamp(first(e.ChangeTime, e.ModTime, w.opts.Time))
	if err := w.setXattrs(n, e.Xattrs); err != nil {
		return bad(e.Path, "%w", err)
	}
	return nil
}

func first(times ...time.Time) time.Time {
	return times[slices.IndexFunc(times, func(t time.Time) bool { return !t.IsZero() })]
}

func (w *writer) link(parent *node, name string, e tree.Entry) error {
	dir, base, err := w.locate(e.Link, false)
	if err != nil {
		return err
	}
	var target *node
	if dir != nil {
		target = dir.kids[base]
	}
	switch {
	case target == nil:
		return bad(e.Path, "a link to %q, which is not there", e.Link)
	case target.isDir():
		return bad(e.Path, "a link to the directory %q", e.Link)
	case target == parent.kids[name]:
		return nil
	case target.links >= maxLinks:
		return bad(e.Path, "%q has %d links already", e.Link, maxLinks)
	}
	target.links++
	target.layer = w.layer
	w.drop(parent, name)
	parent.kids[strings.Clone(name)] = target
	return nil
}

func (w *writer) remove(path string) error {
	parent, name, err := w.locate(path, false)
	if err != nil || parent == nil || parent.kids[name] == w.lost {
		return err
	}
	w.drop(parent, name)
	return nil
}

// prune removes what earlier layers put below dir.
func (w *writer) prune(dir *node) {
	for name, n := range dir.kids {
		if n.isDir() {
			w.prune(n)
		}
		if n.layer < w.layer && len(n.kids) == 0 && n != w.lost {
			w.drop(dir, name)
		}
	}
}

// drop removes a name, and what it named with its last name.
func (w *writer) drop(dir *node, name string) {
	n := dir.kids[name]
	if n == nil {
		return
	}
	w.lastNode = nil
	delete(dir.kids, name)
	n.links--
	if n.isDir() {
		for kid := range n.kids {
			w.drop(n, kid)
		}
		dir.links--
		n.links = 0
	}
	if n.links > 0 {
		return
	}
	w.inodes--
	for _, e := range n.extents() {
		w.freed = append(w.freed, span{e.Physical, e.Physical + uint64(e.Len)})
	}
	w.freeXattrs(n)
}

func (w *writer) freeXattrs(n *node) {
	if n.more != nil && n.more.xattrBlock != 0 {
		w.freed = append(w.freed, span{n.more.xattrBlock, n.more.xattrBlock + 1})
		n.more.xattrBlock = 0
		n.blocks--
	}
}

// locate gives the directory an entry belongs in, and its name there. Symlinks on the way are followed inside the root.
// What is missing is made, or the directory is nil.
func (w *writer) locate(path string, create bool) (*node, string, error) {
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	switch {
	case name == "" || name == "." || name == "..":
		return nil, "", bad(path, "the name %q", name)
	case len(name) > maxName:
		return nil, "", bad(path, "a name of %d bytes: at most %d", len(name), maxName)
	case strings.IndexByte(name, 0) >= 0:
		return nil, "", bad(path, "a zero byte in its name")
	}
	if dir == "" {
		return w.root, name, nil
	}
	if w.lastNode != nil && w.lastDir == dir {
		return w.lastNode, name, nil
	}
	n, err := w.walk(dir, create)
	if n != nil && n.layer == w.layer {
		w.lastDir, w.lastNode = strings.Clone(dir), n
	}
	return n, name, err
}

// walk finds a directory.
func (w *writer) walk(path string, create bool) (*node, error) {
	at, rest, hops := w.root, path, 0
	for rest != "" {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		switch {
		case name == "" || name == ".":
			continue
		case name == "..":
			at = at.parent
			continue
		case len(name) > maxName || strings.IndexByte(name, 0) >= 0:
			return nil, bad(path, "the name %.300q", name)
		}
		next := at.kids[name]
		switch {
		case next == nil && !create:
			return nil, nil
		case next == nil:
			next, err := w.make(at, tree.Entry{Path: path, Kind: tree.Dir, Mode: 0o755})
			if err != nil {
				return nil, err
			}
			at.kids[strings.Clone(name)] = next
			at = next
		case next.isDir():
			at = next
		case next.kind() == ext4.TypeSymlink:
			if hops++; hops > maxHops {
				return nil, bad(path, "more than %d symbolic links on the way", maxHops)
			}
			if strings.HasPrefix(next.more.link, "/") {
				at = w.root
			}
			rest = next.more.link + "/" + rest
		case !create:
			return nil, nil
		default:
			return nil, bad(path, "%q on the way is no directory", name)
		}
	}
	return at, nil
}
