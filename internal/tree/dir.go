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

type inode struct{ dev, ino uint64 }

// errEnough ends a walk whose reader wants no more.
var errEnough = errors.New("enough")

type dirWalk struct {
	yield func(Entry, error) bool
	links map[inode]string // the first names of files with several
}

// directory yields dir and what is in it, and closes it.
func (w *dirWalk) directory(dir *os.File, at string) (err error) {
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	e := entryOf(at, &st)
	if e.Xattrs, err = xattrs(int(dir.Fd())); err != nil {
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
		if err := w.child(dir, name, path.Join(at, name)); err != nil {
			return err
		}
	}
	return nil
}

func (w *dirWalk) child(dir *os.File, name, at string) error {
	// O_PATH opens anything and waits for nothing; what was found is then opened through it.
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // removed meanwhile
	}
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	found := os.NewFile(uintptr(fd), at)
	defer found.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		inner, err := reopen(fd, at, unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		found.Close() // one descriptor for each level is enough
		return w.directory(inner, at)
	}
	if id := (inode{uint64(st.Dev), st.Ino}); st.Nlink > 1 {
		if first, ok := w.links[id]; ok {
			return w.give(Entry{Path: at, Kind: HardLink, Link: first})
		}
		w.links[id] = at
	}
	return w.leaf(fd, at, &st)
}

// leaf yields what is no directory.
func (w *dirWalk) leaf(fd int, at string, st *unix.Stat_t) (err error) {
	e := entryOf(at, st)
	if e.Xattrs, err = xattrs(fd); err != nil {
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
	case e.Kind == File && e.Size > 0:
		file, err := reopen(fd, at, 0)
		if err != nil {
			return err
		}
		defer file.Close()
		e.Content = &hostFile{file: file, size: e.Size}
	}
	return w.give(e)
}

func (w *dirWalk) give(e Entry) error {
	if !w.yield(e, nil) {
		return errEnough
	}
	return nil
}

// reopen opens for reading what an O_PATH descriptor stands for.
func reopen(fd int, at string, flags int) (*os.File, error) {
	opened, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return os.NewFile(uintptr(opened), at), nil
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

// xattrs reads the extended attributes that the caller may see; a file system without any has none. fd may be of O_PATH and
// of a symlink: the name in /proc leads to just that, and no further.
func xattrs(fd int) (map[string][]byte, error) {
	name := fmt.Sprintf("/proc/self/fd/%d", fd)
	list, err := grow(func(b []byte) (int, error) { return unix.Listxattr(name, b) })
	if errors.Is(err, unix.ENOTSUP) || err == nil && len(list) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	all := map[string][]byte{}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		value, err := grow(func(b []byte) (int, error) { return unix.Getxattr(name, attr, b) })
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

// hostFile is a file's content of the size it had when it was found. What was added since is not part of it.
type hostFile struct {
	file *os.File
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

func (f *hostFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= f.size {
		return 0, io.EOF
	}
	end := false
	if int64(len(p)) > f.size-off {
		p, end = p[:f.size-off], true
	}
	n, err := f.file.ReadAt(p, off)
	switch {
	case err == io.EOF && n < len(p):
		err = f.shrunk()
	case (err == nil || err == io.EOF) && end:
		err = io.EOF
	case err == io.EOF:
		err = nil
	}
	return n, err
}

func (f *hostFile) shrunk() error {
	return &banger.Error{Kind: banger.ErrConflict, Op: "read", Subject: f.file.Name(), Err: fmt.Errorf("it became shorter than %d bytes meanwhile", f.size)}
}

// NextData finds data with SEEK_DATA; where that is not known the rest of the file is data.
func (f *hostFile) NextData(off int64) (start, end int64, err error) {
	if off >= f.size {
		return 0, 0, io.EOF
	}
	start, err = unix.Seek(int(f.file.Fd()), off, unix.SEEK_DATA)
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
	end, err = unix.Seek(int(f.file.Fd()), start, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, f.shrunk()
	}
	if err != nil {
		return 0, 0, err
	}
	return start, min(end, f.size), nil
}

// onlyHole tells the hole at a file's end from the end of one that shrank: seeking does not.
func (f *hostFile) onlyHole() error {
	info, err := f.file.Stat()
	if err == nil && info.Size() < f.size {
		err = f.shrunk()
	}
	if err != nil {
		return err
	}
	return io.EOF
}
