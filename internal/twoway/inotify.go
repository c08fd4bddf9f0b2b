package twoway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"banger"
)

// watcher tells which paths below a root may have changed. It is inotify itself: a directory is added by its descriptor, so that no link
// on the way to it is followed, and one that moves keeps its watch under its new name.
type watcher struct {
	side string
	file *os.File
	fd   int

	mu   sync.Mutex
	dirs map[int32]string // by watch descriptor
	changes
}

// changes collects paths for a Take.
type changes struct {
	dirty map[string]bool
	all   bool
	err   error
	rung  chan struct{}
}

// maxDirty bounds how many paths are remembered by name.
const maxDirty = 20_000

func newChanges() changes { return changes{dirty: map[string]bool{}, rung: make(chan struct{}, 1)} }

func (c *changes) mark(at string) {
	if c.all {
		return
	}
	if len(c.dirty) >= maxDirty {
		c.markAll()
		return
	}
	c.dirty[at] = true
	c.ring()
}

func (c *changes) markAll() {
	c.all = true
	clear(c.dirty)
	c.ring()
}

func (c *changes) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.ring()
}

func (c *changes) ring() {
	select {
	case c.rung <- struct{}{}:
	default:
	}
}

func (c *changes) take() (paths []string, all bool, err error) {
	for at := range c.dirty {
		paths = append(paths, at)
	}
	all, err = c.all, c.err
	clear(c.dirty)
	c.all = false
	return paths, all, err
}

const (
	watchMask = unix.IN_CREATE | unix.IN_CLOSE_WRITE | unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_ONLYDIR | unix.IN_EXCL_UNLINK
	rootMask  = watchMask | unix.IN_MOVE_SELF | unix.IN_DELETE_SELF
)

func newWatcher(side string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if errors.Is(err, unix.EMFILE) {
		return nil, limit(side, "instances", "fs.inotify.max_user_instances=1024")
	}
	if err != nil {
		return nil, fmt.Errorf("watch files: %w", err)
	}
	w := &watcher{side: side, file: os.NewFile(uintptr(fd), "inotify"), fd: fd, dirs: map[int32]string{}, changes: newChanges()}
	go w.read()
	return w, nil
}

func limit(side, what, sysctl string) error {
	return &banger.Error{Kind: banger.ErrUnavailable, Op: "watch files", Err: fmt.Errorf("the limit of inotify %s of the %s's kernel is reached", what, side),
		Hint: "raise it on the " + side + ": sysctl -w " + sysctl}
}

// add watches an open directory.
func (w *watcher) add(dir int, at string) error {
	mask := uint32(watchMask)
	if at == "." {
		mask = rootMask
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	wd, err := unix.InotifyAddWatch(w.fd, fmt.Sprintf("/proc/self/fd/%d", dir), mask)
	if errors.Is(err, unix.ENOSPC) {
		return limit(w.side, "watches", "fs.inotify.max_user_watches=1048576")
	}
	if err != nil {
		return fmt.Errorf("watch %.300q: %w", at, err)
	}
	w.dirs[int32(wd)] = at
	return nil
}

func (w *watcher) close() { w.file.Close() }

func (w *watcher) bell() <-chan struct{} { return w.rung }

func (w *watcher) read() {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		w.mu.Lock()
		if err != nil {
			w.fail(fmt.Errorf("watch files: %w", err))
			w.mu.Unlock()
			return
		}
		for rest := buf[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			wd, mask, size := int32(binary.NativeEndian.Uint32(rest)), binary.NativeEndian.Uint32(rest[4:]), int(binary.NativeEndian.Uint32(rest[12:]))
			rest = rest[unix.SizeofInotifyEvent:]
			w.event(wd, mask, unix.ByteSliceToString(rest[:size]))
			rest = rest[size:]
		}
		w.mu.Unlock()
	}
}

// event takes one event of a watched directory. mu is held.
func (w *watcher) event(wd int32, mask uint32, name string) {
	dir, known := w.dirs[wd]
	switch {
	case mask&unix.IN_Q_OVERFLOW != 0:
		w.markAll()
		return
	case mask&unix.IN_IGNORED != 0:
		delete(w.dirs, wd)
		return
	case !known:
		return
	case name == "":
		if mask&(unix.IN_MOVE_SELF|unix.IN_DELETE_SELF|unix.IN_UNMOUNT) != 0 && dir == "." {
			w.fail(&banger.Error{Kind: banger.ErrConflict, Op: "watch files", Err: errors.New("the directory itself was moved or removed")})
		}
		return
	case strings.HasPrefix(name, stagingPrefix):
		return
	}
	at := path.Join(dir, name)
	if mask&unix.IN_ISDIR != 0 && mask&(unix.IN_MOVED_FROM|unix.IN_DELETE) != 0 {
		w.forget(at)
	}
	if mask&unix.IN_ISDIR != 0 && mask&(unix.IN_CREATE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO|unix.IN_DELETE) == 0 {
		return // the mode of a directory
	}
	w.mark(at)
}

// forget ends the watches of a directory that has moved away. mu is held.
func (w *watcher) forget(at string) {
	for wd, dir := range w.dirs {
		if dir == at || strings.HasPrefix(dir, at+"/") {
			delete(w.dirs, wd)
			_, _ = unix.InotifyRmWatch(w.fd, uint32(wd)) // one that is gone already is fine
		}
	}
}

func (w *watcher) take() ([]string, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changes.take()
}
