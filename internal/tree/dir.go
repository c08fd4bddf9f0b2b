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
// follows no symlink but those on the way to name itself, and needs no path longer than a name, so that depth is no limit.
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
		return w.directory(inner, at)
	}
	e := entryOf(at, &st)
	if id := (inode{uint64(st.Dev), st.Ino}); st.Nlink > 1 {
		if first, ok := w.links[id]; ok {
			return w.give(Entry{Path: at, Kind: HardLink, Link: first})
		}
		w.links[id] = at
	}
	if e.Kind == Symlink {
		link := make([]byte, 4096)
		n, err := unix.Readlinkat(fd, "", link)
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		e.Link = string(link[:n])
	}
	if e.Kind != File {
		return w.give(e)
	}
	file, err := reopen(fd, at, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if e.Xattrs, err = xattrs(int(file.Fd())); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	if e.Size > 0 {
		e.Content = &hostFile{file, e.Size}
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

// xattrs reads the extended attributes that the caller may see; a file system without any has none.
func xattrs(fd int) (map[string][]byte, error) {
	size, err := unix.Flistxattr(fd, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil, nil
	}
	names := make([]byte, size)
	if err == nil {
		size, err = unix.Flistxattr(fd, names)
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	all := map[string][]byte{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:size]), "\x00"), "\x00") {
		value := make([]byte, 64<<10) // the kernel's limit
		n, err := unix.Fgetxattr(fd, name, value)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("extended attribute %s: %w", name, err)
		}
		all[name] = slices.Clone(value[:n])
	}
	return all, nil
}

// hostFile is a file's content of the size it had when it was found.
type hostFile struct {
	*os.File
	size int64
}

var _ HoleReader = (*hostFile)(nil)

func (f *hostFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if err == io.EOF && off+int64(n) < f.size {
		err = &banger.Error{Kind: banger.ErrConflict, Err: fmt.Errorf("it became shorter than %d bytes while it was read", f.size)}
	}
	return n, err
}

// NextData finds data with SEEK_DATA; where that is not known the rest of the file is data.
func (f *hostFile) NextData(off int64) (start, end int64, err error) {
	if off >= f.size {
		return 0, 0, io.EOF
	}
	start, err = unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return 0, 0, io.EOF
	case errors.Is(err, unix.EINVAL):
		return off, f.size, nil
	case err != nil:
		return 0, 0, err
	}
	if end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE); err != nil {
		return 0, 0, err
	}
	if start >= f.size {
		return 0, 0, io.EOF
	}
	return start, min(end, f.size), nil
}
