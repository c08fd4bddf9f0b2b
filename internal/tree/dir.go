package tree

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// FromDir yields the tree below a directory of the host: parents first, names in order, holes and hard links kept. It
// follows no symlink but those on the way to name itself, and hands no path to the kernel but single names, so that it takes
// trees deeper than PATH_MAX; each level needs a descriptor. What is removed meanwhile is left out.
// Errors: ErrConflict when a file shrinks while it is read.
func FromDir(name string) Source {
	return func(yield func(Entry, error) bool) {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			yield(Entry{}, &os.PathError{Op: "open", Path: name, Err: err})
			return
		}
		w := &dirWalk{yield: yield, links: map[inode]string{}}
		if err := w.directory(os.NewFile(uintptr(fd), name), "."); err != nil && err != errEnough {
			yield(Entry{}, fmt.Errorf("read %s: %w", name, err))
		}
	}
}

// FromPath is FromDir for anything that has a path, which becomes as in the tree. A symlink is followed with follow only, or when a
// slash ends name. A directory of another device than the first one is yielded without what is in it unless enter, if given, lets pass.
func FromPath(name, as string, follow bool, enter func(at string, dev uint64) bool) Source {
	return func(yield func(Entry, error) bool) {
		w := &dirWalk{yield: yield, links: map[inode]string{}, enter: enter}
		if err := w.top(name, as, follow); err != nil && err != errEnough {
			yield(Entry{}, fmt.Errorf("read %s: %w", name, err))
		}
	}
}

func (w *dirWalk) top(name, as string, follow bool) error {
	stat, flags := unix.Lstat, unix.O_NOFOLLOW|unix.O_CLOEXEC
	if follow || strings.HasSuffix(name, "/") {
		stat, flags = unix.Stat, unix.O_CLOEXEC
	}
	var st unix.Stat_t
	if err := stat(name, &st); err != nil {
		return err
	}
	fd, err := unix.Open(name, flags|openFlags(&st), 0)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	before := openFlags(&st)
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	w.dev = uint64(st.Dev)
	switch {
	case openFlags(&st) != before:
		return replaced(as)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return w.directory(file, as)
	}
	return w.file(fd, as, &st)
}

func replaced(at string) error {
	return &banger.Error{Kind: banger.ErrConflict, Op: "read", Subject: at, Err: errors.New("it is replaced again and again")}
}

type inode struct{ dev, ino uint64 }

// errEnough ends a walk whose reader wants no more.
var errEnough = errors.New("enough")

type dirWalk struct {
	yield func(Entry, error) bool
	links map[inode]string // the first names of files with several
	dev   uint64
	enter func(at string, dev uint64) bool // nil: every directory
}

// directory yields dir and what is in it, and closes it.
func (w *dirWalk) directory(dir *os.File, at string) (err error) {
	defer dir.Close()
	fd := int(dir.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	e := entryOf(at, &st)
	if e.Xattrs, err = xattrs(fd, false); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	if !w.yield(e, nil) {
		return errEnough
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := w.child(fd, name, path.Join(at, name)); err != nil {
			return err
		}
	}
	return nil
}

// child yields what a directory has under name.
func (w *dirWalk) child(dir int, name, at string) error {
	const tries = 8
	for range tries {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return removed(at, err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR && w.enter != nil && uint64(st.Dev) != w.dev && !w.enter(at, uint64(st.Dev)) {
			return w.give(entryOf(at, &st))
		}
		flags := openFlags(&st)
		fd, err := unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		switch {
		case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENXIO), errors.Is(err, unix.EINTR):
			continue // another one has its name by now, or a signal came
		case err != nil:
			return removed(at, err)
		case flags&unix.O_DIRECTORY != 0:
			return w.directory(os.NewFile(uintptr(fd), at), at)
		}
		err = unix.Fstat(fd, &st)
		same := openFlags(&st) == flags
		if err == nil && same {
			err = w.file(fd, at, &st)
		}
		unix.Close(fd)
		if err != nil || same {
			return err
		}
	}
	return replaced(at)
}

// openFlags opens what has something to read, and waits for nothing even if a FIFO has taken its name. The rest is only
// looked at: O_PATH opens anything and has no effect.
func openFlags(st *unix.Stat_t) int {
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return unix.O_RDONLY | unix.O_DIRECTORY
	case st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size > 0:
		return unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY
	}
	return unix.O_PATH
}

// removed takes it that what is gone by now was never there.
func removed(at string, err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fmt.Errorf("%s: %w", at, err)
}

// file yields what is no directory, from a descriptor that was opened as openFlags says.
func (w *dirWalk) file(fd int, at string, st *unix.Stat_t) (err error) {
	if id := (inode{uint64(st.Dev), st.Ino}); st.Nlink > 1 {
		if first, ok := w.links[id]; ok {
			return w.give(Entry{Path: at, Kind: HardLink, Link: first})
		}
		w.links[id] = at
	}
	e := entryOf(at, st)
	if e.Xattrs, err = xattrs(fd, openFlags(st) == unix.O_PATH); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	switch {
	case e.Kind == Symlink:
		link := make([]byte, maxLink+1)
		n, err := unix.Readlinkat(fd, "", link)
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		e.Link = string(link[:n])
	case e.Kind != File || e.Size == 0:
	case st.Blocks*512 >= st.Size: // it has no holes
		e.Content = &hostFile{fd: fd, path: at, size: e.Size}
	default:
		e.Content = &sparseFile{hostFile{fd: fd, path: at, size: e.Size}}
	}
	return w.give(e)
}

func (w *dirWalk) give(e Entry) error {
	if !w.yield(e, nil) {
		return errEnough
	}
	return nil
}

var hostKinds = map[uint32]Kind{unix.S_IFREG: File, unix.S_IFDIR: Dir, unix.S_IFLNK: Symlink, unix.S_IFCHR: CharDevice, unix.S_IFBLK: BlockDevice,
	unix.S_IFIFO: FIFO, unix.S_IFSOCK: Socket}

func entryOf(at string, st *unix.Stat_t) Entry {
	e := Entry{Path: at, Kind: hostKinds[st.Mode&unix.S_IFMT], Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		ModTime: time.Unix(st.Mtim.Unix()), AccessTime: time.Unix(st.Atim.Unix()), ChangeTime: time.Unix(st.Ctim.Unix())}
	switch e.Kind {
	case File:
		e.Size = st.Size
	case CharDevice, BlockDevice:
		e.Major, e.Minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
	}
	return e
}

// xattrs reads the extended attributes that the caller may see; a file system without any has none. Of what was only looked
// at they come by the name in /proc, which leads to just that and no further, also when it is a symlink.
func xattrs(fd int, looked bool) (map[string][]byte, error) {
	listOf := func(b []byte) (int, error) { return unix.Flistxattr(fd, b) }
	valueOf := func(attr string, b []byte) (int, error) { return unix.Fgetxattr(fd, attr, b) }
	if looked {
		name := fmt.Sprintf("/proc/self/fd/%d", fd)
		listOf = func(b []byte) (int, error) { return unix.Listxattr(name, b) }
		valueOf = func(attr string, b []byte) (int, error) { return unix.Getxattr(name, attr, b) }
	}
	list, err := grow(listOf)
	if errors.Is(err, unix.ENOTSUP) || err == nil && len(list) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	all := map[string][]byte{}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		value, err := grow(func(b []byte) (int, error) { return valueOf(attr, b) })
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("extended attribute %s: %w", attr, err)
		}
		all[attr] = value
	}
	return all, nil
}

// grow asks for the size of a value, then for the value, until it did not grow in between.
func grow(get func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := get(nil)
		if err != nil || n == 0 {
			return []byte{}, err
		}
		b := make([]byte, n)
		if n, err = get(b); !errors.Is(err, unix.ERANGE) {
			return b[:max(n, 0)], err
		}
	}
}

// hostFile is the content of a file without holes, of the size it had when it was found. What was added since is not part of it.
type hostFile struct {
	fd   int
	path string
	size int64
	at   int64 // where Read goes on
}

var _ HoleReader = (*hostFile)(nil)

func (f *hostFile) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.at)
	f.at += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (f *hostFile) ReadAt(p []byte, off int64) (n int, err error) {
	p = p[:max(min(int64(len(p)), f.size-off), 0)]
	for n < len(p) {
		m, err := unix.Pread(f.fd, p[n:], off+int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return n, &os.PathError{Op: "read", Path: f.path, Err: err}
		case m == 0:
			return n, f.shrunk()
		}
		n += m
	}
	if off+int64(n) >= f.size {
		return n, io.EOF
	}
	return n, nil
}

// NextData implements HoleReader.
func (f *hostFile) NextData(off int64) (start, end int64, err error) {
	if off >= f.size {
		return 0, 0, io.EOF
	}
	return off, f.size, nil
}

func (f *hostFile) shrunk() error {
	return &banger.Error{Kind: banger.ErrConflict, Op: "read", Subject: f.path, Err: fmt.Errorf("it became shorter than %d bytes meanwhile", f.size)}
}

// sparseFile is a hostFile that may have holes.
type sparseFile struct{ hostFile }

// NextData finds data with SEEK_DATA; where that is not known the rest of the file is data.
func (f *sparseFile) NextData(off int64) (start, end int64, err error) {
	if off >= f.size {
		return 0, 0, io.EOF
	}
	start, err = unix.Seek(f.fd, off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return 0, 0, f.onlyHole()
	case errors.Is(err, unix.EINVAL):
		return off, f.size, nil
	case err != nil:
		return 0, 0, err
	}
	if start >= f.size {
		return 0, 0, io.EOF
	}
	end, err = unix.Seek(f.fd, start, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, f.shrunk()
	}
	if err != nil {
		return 0, 0, err
	}
	return start, min(end, f.size), nil
}

// onlyHole tells the hole at a file's end from the end of one that shrank: seeking does not.
func (f *sparseFile) onlyHole() error {
	var st unix.Stat_t
	err := unix.Fstat(f.fd, &st)
	if err == nil && st.Size < f.size {
		err = f.shrunk()
	}
	if err != nil {
		return err
	}
	return io.EOF
}
