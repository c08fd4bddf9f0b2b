package disk

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"banger"
	"banger/internal/ext4"
	"banger/internal/ext4/read"
)

// FS is the file tree of a stopped VM as its guest saw it: the base, over it the upper directory of the root overlay, and over both
// the directories of the disk that are bound into the guest. What a guest mounts besides is not part of it: /proc, /sys, /dev, /run
// and the kernel's modules. It never writes; a disk that was not unmounted is read as its journal makes it.
//
// The disk is the guest's, so every byte of it may be made up: calls end, stay within bounds, and fail with ErrCorrupt.
// An FS is safe for concurrent use when its io.ReaderAts are.
type FS struct {
	base, disk *read.FS
	root       *Node
	binds      map[string]*Node // by path in the guest
}

// layer is where a node lies, which decides what overlay marks on it mean.
type layer uint8

const (
	inBase layer = iota
	inUpper
	inBind // no part of the overlay
)

// Node is one file of an FS.
type Node struct {
	*read.Node
	fs    *FS
	layer layer
	below *read.Node // in the base, of a directory of the upper layer whose names are joined with it; else nil
	path  string     // in the guest, without links: "/", "/etc"
}

// filledMark is what the guest leaves on a disk whose bind directories have what the image has there.
const filledMark = "data/.filled"

// OpenFS opens the tree from the image's root file system and the VM's disk. Errors: ErrCorrupt; ErrUnsupported for a disk of
// another layout.
func OpenFS(base io.ReaderAt, baseBytes int64, disk io.ReaderAt, diskBytes int64) (*FS, error) {
	f := &FS{binds: map[string]*Node{}}
	var err error
	if f.base, err = read.Open(base, baseBytes); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if f.disk, err = read.Open(disk, diskBytes); err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	if err := f.checkLayout(); err != nil {
		return nil, err
	}
	upper, err := f.disk.Lookup(banger.DiskUpperDir, false)
	if err != nil {
		return nil, diskError(err)
	}
	below, err := f.base.Root()
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	f.root = &Node{Node: upper, fs: f, layer: inUpper, below: below, path: "/"}
	if !upper.IsDir() {
		return nil, corrupt("disk: %s is no directory", banger.DiskUpperDir)
	}
	return f, f.bind()
}

func (f *FS) checkLayout() error {
	const limit = 20
	n, err := f.disk.Lookup(banger.DiskLayoutFile, false)
	if err != nil {
		return diskError(err)
	}
	text := make([]byte, min(n.Size(), limit))
	if _, err := n.ReadAt(text, 0); err != nil && !errors.Is(err, io.EOF) {
		return diskError(err)
	}
	if got := strings.TrimSpace(string(text)); got != fmt.Sprint(banger.DiskLayoutVersion) {
		return &banger.Error{Kind: banger.ErrUnsupported, Op: "disk", Err: fmt.Errorf("it has layout %q, this banger knows %d", got, banger.DiskLayoutVersion)}
	}
	return nil
}

// diskError is for what a disk of ours always has.
func diskError(err error) error {
	if errors.Is(err, banger.ErrNotFound) || errors.Is(err, banger.ErrInvalid) {
		err = corrupt("%w", err)
	}
	return fmt.Errorf("disk: %w", err)
}

// bind finds where the guest mounts the directories of the disk. Before its first boot a guest has none that it fills by itself.
func (f *FS) bind() error {
	_, err := f.disk.Lookup(filledMark, false)
	if err != nil && !errors.Is(err, banger.ErrNotFound) {
		return diskError(err)
	}
	booted := err == nil
	for _, b := range banger.DiskBinds {
		if !booted && b.Target != "/root" && b.Target != "/tmp" {
			continue
		}
		at, err := f.Lookup(b.Target, true)
		if errors.Is(err, banger.ErrNotFound) || errors.Is(err, banger.ErrInvalid) {
			continue // the guest has made it impossible, and would not boot
		}
		if err != nil {
			return err
		}
		dir, err := f.disk.Lookup(b.Dir, false)
		if err != nil {
			return diskError(err)
		}
		if !dir.IsDir() {
			return corrupt("disk: %s is no directory", b.Dir)
		}
		f.binds[at.path] = &Node{Node: dir, fs: f, layer: inBind, path: at.path}
	}
	return nil
}

// maxLinks is how many symbolic links one path may lead through, as Linux has it.
const maxLinks = 40

// Lookup finds a path of the guest, from its root. It follows symbolic links, the last one only when follow is set or a slash ends
// the path. Errors: ErrNotFound; ErrInvalid for a path through what is no directory and for too many links; ErrCorrupt.
func (f *FS) Lookup(name string, follow bool) (*Node, error) {
	n, err := f.lookup(name, follow)
	if err != nil {
		return nil, &banger.Error{Op: "look up", Subject: name, Err: err}
	}
	return n, nil
}

func (f *FS) lookup(name string, follow bool) (*Node, error) {
	trail, todo := []*Node{f.root}, strings.Split(name, "/")
	follow = follow || strings.HasSuffix(name, "/")
	for links := 0; len(todo) > 0; {
		dir, part := trail[len(trail)-1], todo[0]
		todo = todo[1:]
		switch {
		case part == "" || part == ".":
			if !dir.IsDir() {
				return nil, banger.Invalidf("it is no directory")
			}
			continue
		case part == "..":
			trail = trail[:max(len(trail)-1, 1)]
			continue
		}
		n, err := dir.Child(part)
		if err != nil {
			return nil, err
		}
		if !n.IsSymlink() || len(todo) == 0 && !follow {
			trail = append(trail, n)
			continue
		}
		if links++; links > maxLinks {
			return nil, banger.Invalidf("more than %d symbolic links", maxLinks)
		}
		text, err := n.Link()
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(text, "/") {
			trail = trail[:1]
		}
		todo = append(strings.Split(text, "/"), todo...)
	}
	return trail[len(trail)-1], nil
}

// maxPath bounds the length of a path, which grows with the depth of a hostile tree.
const maxPath = 64 << 10

// Child finds a name in a directory. Errors: ErrNotFound, ErrInvalid when n is no directory, ErrCorrupt.
func (n *Node) Child(name string) (*Node, error) {
	if !n.IsDir() {
		return nil, banger.Invalidf("no directory before %.300q", name)
	}
	var in names
	own, _, err := n.Node.Child(name)
	if err == nil && n.below != nil && own.Ino == 0 {
		var below read.Dirent
		below, _, err = n.below.Child(name)
		in.below = below.Ino
	}
	if err != nil {
		return nil, err
	}
	in.own = own.Ino
	return n.resolve(name, in)
}

// names are the inodes that a directory and the one below it have for one name; 0 is none.
type names struct{ own, below uint32 }

// resolve gives what the guest sees under a name of directory n. Errors: ErrNotFound when it is hidden.
func (n *Node) resolve(name string, in names) (*Node, error) {
	at := path.Join(n.path, name)
	if bound := n.fs.binds[at]; bound != nil {
		return bound, nil
	}
	if len(at) > maxPath {
		return nil, corrupt("a path of more than %d bytes", maxPath)
	}
	found := &Node{fs: n.fs, layer: n.layer, path: at}
	var err error
	switch {
	case in.own != 0:
		found.Node, err = n.fs.of(n.layer).Node(in.own)
	case in.below != 0:
		found.layer = inBase
		found.Node, err = n.fs.base.Node(in.below)
	}
	if err == nil && found.layer == inUpper && found.Node != nil && !isWhiteout(found.Node) {
		err = found.mark(n, name)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("%.300q: %w", at, err)
	case found.Node == nil, found.layer != inBind && isWhiteout(found.Node):
		return nil, &banger.Error{Kind: banger.ErrNotFound, Err: errors.New("no such file or directory")}
	}
	return found, nil
}

func (f *FS) of(l layer) *read.FS {
	if l == inBase {
		return f.base
	}
	return f.disk
}

// isWhiteout tells the mark that hides a name of the layer below. The overlay lets nobody make such a device. (The other form, a
// file with an attribute, is only for layers between others, which banger does not have.)
func isWhiteout(n *read.Node) bool {
	major, minor := n.Raw().Device()
	return n.Raw().Type() == ext4.TypeChar && major == 0 && minor == 0
}

// Attributes of overlayfs, https://docs.kernel.org/filesystems/overlayfs.html. A user's own attribute of such a name has overlayMark
// twice.
const (
	overlayMark   = "trusted.overlay."
	opaqueAttr    = overlayMark + "opaque"
	redirectAttr  = overlayMark + "redirect"
	metacopyAttr  = overlayMark + "metacopy"
	opaqueValue   = "y"
	maxNameLength = 255
)

// mark reads what the overlay has noted on a node of the upper layer, which is name in dir.
func (n *Node) mark(dir *Node, name string) error {
	marks, err := n.Node.Xattrs()
	if err != nil {
		return err
	}
	if !n.IsDir() {
		if _, ok := marks[metacopyAttr]; ok && n.IsFile() {
			return corrupt("its content is said to lie in the layer below, which banger never asks for")
		}
		return nil
	}
	if string(marks[opaqueAttr]) == opaqueValue {
		return nil
	}
	steps := []string{name}
	from := dir.below
	if redirect, ok := marks[redirectAttr]; ok {
		rest, absolute := strings.CutPrefix(string(redirect), "/")
		if steps = strings.Split(rest, "/"); absolute {
			if from, err = n.fs.base.Root(); err != nil {
				return err
			}
		} else if len(steps) > 1 {
			return corrupt("redirected to %.300q", redirect)
		}
	}
	for _, step := range steps {
		if step == "" || step == "." || step == ".." || len(step) > maxNameLength || strings.IndexByte(step, 0) >= 0 {
			return corrupt("redirected to a name %.300q", step)
		}
		if from == nil || !from.IsDir() {
			return nil
		}
		entry, ok, err := from.Child(step)
		if err != nil || !ok {
			return err
		}
		if from, err = n.fs.base.Node(entry.Ino); err != nil {
			return err
		}
	}
	if from.IsDir() {
		n.below = from
	}
	return nil
}

// Xattrs gives the extended attributes as the guest sees them: without the overlay's own.
func (n *Node) Xattrs() (map[string][]byte, error) {
	all, err := n.Node.Xattrs()
	if err != nil || n.layer == inBind {
		return all, err
	}
	seen := map[string][]byte{}
	for name, value := range all {
		rest, marked := strings.CutPrefix(name, overlayMark)
		switch {
		case !marked:
			seen[name] = value
		case strings.HasPrefix(rest, "overlay."):
			seen["trusted."+rest] = value
		}
	}
	if len(seen) == 0 {
		return nil, nil
	}
	return seen, nil
}

func corrupt(format string, args ...any) error {
	return &banger.Error{Kind: banger.ErrCorrupt, Err: fmt.Errorf(format, args...)}
}
