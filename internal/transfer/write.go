package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/tree"
)

const (
	keptModes = 0o1777 // without set-user-id and set-group-id
	allModes  = 0o7777
	chunk     = 128 << 10 // of content; one of zeros becomes a hole
	maxDepth  = 2000      // of a tree
	maxHop    = 4000      // bytes of a path that the kernel takes at once, less than PATH_MAX
)

// writer writes a tree into a directory of its own.
type writer struct {
	ctx    context.Context
	root   int
	opts   Options
	report *Report
	dirs   []tree.Entry // whose modes and times are set when all is in them
	buf    []byte
	alone  bool // one file

	parent   int // of the last entry; -1: none
	parentAt string
}

func (w *writer) write(src tree.Source) error {
	defer w.forget()
	for e, err := range src {
		if err == nil {
			err = w.ctx.Err()
		}
		if err == nil {
			err = w.entry(e)
		}
		if err != nil {
			return err
		}
	}
	for i := len(w.dirs) - 1; i >= 0; i-- { // children first: they change their directory's time, and its mode may forbid them
		if err := w.finishDir(w.dirs[i]); err != nil {
			return fmt.Errorf("%.300q: %w", w.dirs[i].Path, err)
		}
	}
	return nil
}

func (w *writer) forget() {
	if w.parent >= 0 {
		unix.Close(w.parent)
	}
	w.parent = -1
}

func (w *writer) entry(e tree.Entry) error {
	if !filepath.IsLocal(e.Path) || e.Path != path.Clean(e.Path) || strings.Count(e.Path, "/") > maxDepth {
		return banger.Invalidf("entry %.300q: a path that leads out of the tree, or deeper than %d directories", e.Path, maxDepth)
	}
	var err error
	switch e.Kind {
	case tree.Dir:
		err = w.directory(e)
	case tree.File, tree.Symlink, tree.HardLink:
		err = w.file(e)
	default:
		w.report.leave(e.Path)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%.300q: %w", e.Path, err)
	}
	w.report.Entries++
	w.report.Bytes += e.Size
	return nil
}

func (w *writer) directory(e tree.Entry) error {
	if e.Path == "." {
		return nil // one that is there, which keeps its own mode
	}
	w.dirs = append(w.dirs, e)
	dir, err := w.in(path.Dir(e.Path))
	if err != nil {
		return err
	}
	return makeDir(dir, path.Base(e.Path))
}

// makeDir makes a directory unless it is there.
func makeDir(dir int, name string) error {
	err := unix.Mkdirat(dir, name, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return err
		}
	}
	return err
}

// in gives the directory at a path of the tree and makes what is missing of it. It is good until the next call.
func (w *writer) in(at string) (int, error) {
	if w.parent >= 0 && w.parentAt == at {
		return w.parent, nil
	}
	w.forget()
	fd, err := Beneath(w.root, at)
	if errors.Is(err, unix.ENOENT) {
		fd, err = w.makeAll(at)
	}
	if err != nil {
		return -1, err
	}
	w.parent, w.parentAt = fd, at
	return fd, nil
}

func (w *writer) makeAll(at string) (int, error) {
	fd, err := Beneath(w.root, ".")
	for part := range strings.SplitSeq(at, "/") {
		if err != nil {
			return -1, err
		}
		up := fd
		if err = makeDir(up, part); err == nil {
			fd, err = Beneath(up, part)
		}
		unix.Close(up)
	}
	return fd, err
}

// Beneath opens the directory at a path below another one; no symbolic link is followed on the way.
func Beneath(root int, at string) (int, error) {
	fd := -1
	for at != "" {
		hop := at
		if len(at) > maxHop {
			hop = at[:strings.LastIndexByte(at[:maxHop], '/')+1] // a name has at most 255 bytes
		}
		at = at[len(hop):]
		from := root
		if fd >= 0 {
			from = fd
		}
		next, err := OpenAt(from, hop, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if fd >= 0 {
			unix.Close(fd)
		}
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

// OpenAt is openat2(2): it neither leaves the directory nor follows a symbolic link.
func OpenAt(dir int, name string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// file makes what is no directory. Of two entries with one name the later one counts.
func (w *writer) file(e tree.Entry) error {
	dir, err := w.in(path.Dir(e.Path))
	if err != nil {
		return err
	}
	name := path.Base(e.Path)
	err = w.make(dir, name, e)
	if errors.Is(err, unix.EEXIST) {
		if err = unix.Unlinkat(dir, name, 0); err == nil {
			err = w.make(dir, name, e)
		}
	}
	if err != nil || e.Kind == tree.HardLink {
		return err
	}
	return setTimes(dir, name, e)
}

// make fails with EEXIST, before anything has been read, when the name is taken.
func (w *writer) make(dir int, name string, e tree.Entry) error {
	switch e.Kind {
	case tree.Symlink:
		if err := unix.Symlinkat(e.Link, dir, name); err != nil {
			return err
		}
		return w.own(dir, name, e, nil)
	case tree.HardLink:
		if err := w.link(dir, name, e.Link); err != nil && !errors.Is(err, unix.EEXIST) {
			return &banger.Error{Kind: banger.ErrCorrupt, Err: fmt.Errorf("a link to %.300q: %w", e.Link, err)}
		} else if err != nil {
			return err
		}
		return nil
	}
	fd, err := OpenAt(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, e.Mode&0o777)
	if err != nil {
		return err
	}
	err = w.content(fd, e)
	if err == nil {
		err = w.settle(fd, dir, name, e)
	}
	if err == nil && w.alone {
		err = unix.Fsync(fd)
	}
	return errors.Join(err, unix.Close(fd))
}

// settle gives a file what it has not got by being made: each change costs, above all on an overlay.
func (w *writer) settle(fd, dir int, name string, e tree.Entry) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := errors.Join(w.own(dir, name, e, &st), w.attributes(fd, e)); err != nil {
		return err
	}
	if st.Mode&allModes == w.mode(e) {
		return nil
	}
	return unix.Fchmod(fd, w.mode(e))
}

// link makes another name of a file that was written before.
func (w *writer) link(dir int, name, first string) error {
	target, err := Beneath(w.root, path.Dir(first))
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return unix.Linkat(target, path.Base(first), dir, name, 0)
}

// content writes a file's bytes; those that are zero for long become holes.
func (w *writer) content(fd int, e tree.Entry) error {
	if w.buf == nil {
		w.buf = make([]byte, chunk)
	}
	hole := false
	for off := int64(0); off < e.Size; {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		part := w.buf[:min(chunk, e.Size-off)]
		if _, err := io.ReadFull(e.Content, part); err != nil {
			return err
		}
		if hole = len(part) == chunk && isZero(part); !hole {
			if err := writeAt(fd, part, off); err != nil {
				return err
			}
		}
		off += int64(len(part))
		if w.opts.Progress != nil {
			w.opts.Progress(int64(len(part)))
		}
	}
	if !hole {
		return nil
	}
	return unix.Ftruncate(fd, e.Size)
}

// writeAt writes all of p. With an os.File each of a tree's many small files would cost more than its bytes do.
func writeAt(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return io.ErrShortWrite
		default:
			p, off = p[n:], off+int64(n)
		}
	}
	return nil
}

func isZero(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), len(noData))
		if !bytes.Equal(p[:n], noData[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}

func (w *writer) mode(e tree.Entry) uint32 {
	if w.opts.Archive {
		return e.Mode & allModes
	}
	return e.Mode & keptModes
}

// own gives a copy its owner, unless st says that it has it, before its mode: a change of owner takes set-id bits away.
func (w *writer) own(dir int, name string, e tree.Entry, st *unix.Stat_t) error {
	owner := w.opts.Owner
	if w.opts.Archive && os.Geteuid() == 0 {
		owner = &Owner{e.UID, e.GID}
	}
	if owner == nil || st != nil && *owner == (Owner{st.Uid, st.Gid}) {
		return nil
	}
	return unix.Fchownat(dir, name, int(owner.UID), int(owner.GID), unix.AT_SYMLINK_NOFOLLOW)
}

// attributes sets extended attributes where they are wanted, as far as the file system has them.
func (w *writer) attributes(fd int, e tree.Entry) error {
	if !w.opts.Archive {
		return nil
	}
	for name, value := range e.Xattrs {
		if err := unix.Fsetxattr(fd, name, value, 0); err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("extended attribute %.100q: %w", name, err)
		}
	}
	return nil
}

func (w *writer) finishDir(e tree.Entry) error {
	fd, err := Beneath(w.root, e.Path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := errors.Join(w.own(fd, ".", e, nil), w.attributes(fd, e), unix.Fchmod(fd, w.mode(e))); err != nil {
		return err
	}
	return setTimes(fd, ".", e)
}

func setTimes(dir int, name string, e tree.Entry) error {
	access := e.AccessTime
	if access.IsZero() {
		access = e.ModTime
	}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{timespec(access), timespec(e.ModTime)}, unix.AT_SYMLINK_NOFOLLOW)
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}
