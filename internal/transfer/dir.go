package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/tree"
)

// Dir reads a directory of this machine, and what is below it: no symbolic link on the way is followed, whoever changes the directory
// meanwhile. It must be closed.
type Dir struct{ root int }

// OpenDir opens the directory at a path, in which symbolic links are followed.
func OpenDir(name string) (*Dir, error) {
	fd, err := openDir(unix.AT_FDCWD, name, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return &Dir{fd}, nil
}

// Close closes it.
func (d *Dir) Close() error { return unix.Close(d.root) }

// errChanged is for a path that is no longer what it was when the plan was made.
var errChanged = errors.New("it changed meanwhile")

// Entry gives the file or symbolic link at a path below the directory, and what closes it, which may be nil. Errors: fs.ErrNotExist for a
// path that has gone, or is neither by now.
func (d *Dir) Entry(name string) (tree.Entry, io.Closer, error) {
	dirFD, err := Beneath(d.root, path.Dir(name))
	if err != nil {
		return tree.Entry{}, nil, gone(err)
	}
	defer unix.Close(dirFD)
	base := path.Base(name)
	var st unix.Stat_t
	if err := unix.Fstatat(dirFD, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return tree.Entry{}, nil, gone(&os.PathError{Op: "stat", Path: name, Err: err})
	}
	e := tree.Entry{Path: name, Mode: st.Mode & 0o777, ModTime: timeOf(st.Mtim)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		e.Kind, e.Mode = tree.Symlink, 0o777
		e.Link, err = readLink(dirFD, base, name)
		return e, nil, err
	case unix.S_IFREG:
	default:
		return tree.Entry{}, nil, gone(&os.PathError{Op: "read", Path: name, Err: errChanged})
	}
	fd, err := OpenAt(dirFD, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return tree.Entry{}, nil, gone(err)
	}
	f := os.NewFile(uintptr(fd), name)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "read", Path: name, Err: errChanged}
	}
	if err != nil {
		f.Close()
		return tree.Entry{}, nil, gone(err)
	}
	e.Kind, e.Size, e.ModTime, e.Mode = tree.File, info.Size(), info.ModTime(), uint32(info.Mode().Perm())
	e.Content = &exactly{r: f, rest: e.Size}
	return e, f, nil
}

// exactly reads as many bytes as the entry says: a file that shrank is filled up with zeros, one that grew is cut.
type exactly struct {
	r    io.Reader
	rest int64
}

func (x *exactly) Read(p []byte) (int, error) {
	if x.rest == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > x.rest {
		p = p[:x.rest]
	}
	n, err := x.r.Read(p)
	if err == io.EOF {
		clear(p)
		n, err = len(p), nil
	}
	x.rest -= int64(n)
	return n, err
}

// gone gives what a path that is not there any more fails with.
func gone(err error) error {
	for _, cause := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV, errChanged} {
		if errors.Is(err, cause) {
			return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		}
	}
	return err
}

func readLink(dirFD int, base, name string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dirFD, base, b)
	if err != nil {
		return "", gone(&os.PathError{Op: "readlink", Path: name, Err: err})
	}
	return string(b[:n]), nil
}

// DirMode is the mode of a directory below, 0755 where there is none.
func (d *Dir) DirMode(name string) uint32 {
	fd, err := Beneath(d.root, name)
	if err != nil {
		return 0o755
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0o755
	}
	return st.Mode & 0o777
}

func timeOf(ts unix.Timespec) time.Time { return time.Unix(ts.Unix()) }

// Node gives what is at a path below the directory; nil is for nothing. No link is followed on the way.
func (d *Dir) Node(name string) (*Node, error) { return nodeAt(d.root, name) }

// Walk gives what is below dir ("." is the directory itself), parents first and names in order. It does not go below what skip tells, nor
// into other file systems unless enter, if given, lets pass.
func (d *Dir) Walk(ctx context.Context, skip func(name string) bool, enter func(dev uint64) bool, yield func(Node) error) error {
	var st unix.Stat_t
	if err := unix.Fstat(d.root, &st); err != nil {
		return err
	}
	w := &dirWalk{d: d, ctx: ctx, skip: skip, enter: enter, yield: yield, dev: st.Dev}
	return w.below(".", 0)
}

type dirWalk struct {
	d     *Dir
	ctx   context.Context
	skip  func(string) bool
	enter func(uint64) bool
	yield func(Node) error
	dev   uint64
}

func (w *dirWalk) below(at string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%.300q: deeper than %d directories", at, maxDepth)
	}
	fd, err := w.open(at)
	if fd < 0 {
		return err
	}
	defer func() { unix.Close(fd) }()
	names, err := namesIn(fd)
	if err != nil {
		return &os.PathError{Op: "read", Path: at, Err: err}
	}
	slices.Sort(names)
	for _, name := range names {
		if err := w.ctx.Err(); err != nil {
			return context.Cause(w.ctx)
		}
		below := Below(at, name)
		enter, err := w.node(fd, name, below)
		if err != nil {
			return err
		}
		if !enter {
			continue
		}
		unix.Close(fd) // a tree may be deeper than a process may have files open
		err = w.below(below, depth+1)
		var lost error
		if fd, lost = w.open(at); fd < 0 || err != nil {
			return errors.Join(err, lost)
		}
	}
	return nil
}

// open gives a directory, -1 for one that has gone.
func (w *dirWalk) open(at string) (int, error) {
	fd, err := Beneath(w.d.root, at)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(gone(err), fs.ErrNotExist):
		return -1, nil
	}
	return -1, &os.PathError{Op: "open", Path: at, Err: err}
}

// node yields what has a name in a directory and tells whether to go into it.
func (w *dirWalk) node(dir int, name, at string) (enter bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(gone(err), fs.ErrNotExist) {
			return false, nil
		}
		return false, &os.PathError{Op: "stat", Path: at, Err: err}
	}
	n := nodeOf(at, &st)
	if err := w.yield(n); err != nil {
		return false, err
	}
	return n.Kind == tree.Dir && !w.skip(at) && (st.Dev == w.dev || w.enter != nil && w.enter(st.Dev)), nil
}

// Below is path.Join for a directory of a walk and a name in it.
func Below(at, name string) string {
	if at == "." {
		return name
	}
	return at + "/" + name
}

func nodeOf(at string, st *unix.Stat_t) Node {
	return Node{Path: []byte(at), Kind: kinds[st.Mode&unix.S_IFMT], Mode: st.Mode & allModes, UID: st.Uid, GID: st.Gid, Ino: st.Ino, Size: st.Size, MTime: timeOf(st.Mtim).UnixNano(), CTime: timeOf(st.Ctim).UnixNano()}
}

var kinds = map[uint32]tree.Kind{unix.S_IFREG: tree.File, unix.S_IFDIR: tree.Dir, unix.S_IFLNK: tree.Symlink, unix.S_IFCHR: tree.CharDevice,
	unix.S_IFBLK: tree.BlockDevice, unix.S_IFIFO: tree.FIFO, unix.S_IFSOCK: tree.Socket}

// Remove removes files and symbolic links below the directory, and directories above them that are empty then. Missing ones are no error.
func (d *Dir) Remove(name string) error {
	dir, err := Beneath(d.root, path.Dir(name))
	if err == nil {
		err = unix.Unlinkat(dir, path.Base(name), 0)
		unix.Close(dir)
	}
	if err != nil && !errors.Is(gone(err), fs.ErrNotExist) {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	for above := path.Dir(name); above != "."; above = path.Dir(above) {
		dir, err := Beneath(d.root, path.Dir(above))
		if err != nil {
			return nil
		}
		err = unix.Unlinkat(dir, path.Base(above), unix.AT_REMOVEDIR)
		unix.Close(dir)
		if err != nil {
			return nil // not empty
		}
	}
	return nil
}
