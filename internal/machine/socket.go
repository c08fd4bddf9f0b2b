package machine

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// socketWatch tells when a supervisor may have made its socket anew.
type socketWatch struct {
	made chan struct{} // holds one token when that has happened
	file *os.File
	done chan struct{}
}

// watchSocket begins to watch: what happens from now on is told. [Listen] sets the socket's mode when it takes connections, and
// that alone is watched, so that a busy disk beside the socket wakes nobody.
func watchSocket(path string) (*socketWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", path, err)
	}
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_ATTRIB|unix.IN_ONLYDIR); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch %s: %w", filepath.Dir(path), err)
	}
	w := &socketWatch{made: make(chan struct{}, 1), file: os.NewFile(uintptr(fd), "inotify"), done: make(chan struct{})}
	go w.read()
	return w, nil
}

// read takes every event for the one that is waited for: who connects then finds out.
func (w *socketWatch) read() {
	defer close(w.done)
	buf := make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for {
		if _, err := w.file.Read(buf); err != nil {
			return
		}
		select {
		case w.made <- struct{}{}:
		default:
		}
	}
}

func (w *socketWatch) close() {
	w.file.Close()
	<-w.done
}
