package netstack

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// wire is a stream that QEMU reads and writes. Go's poller watches a connection for both ways at once, and so would wake a thread whenever
// QEMU has taken a frame. A wire is watched for what can be read, and for room only while there is none.
type wire struct {
	fd       int
	readable *watch

	writing sync.Mutex // frames are written whole; a guest that takes none holds up its own network
	small   []byte

	ending sync.Mutex // after writing
	closed bool       // guarded by both
}

// newWire takes over a connection, which must be a socket of the host.
func newWire(conn net.Conn) (*wire, error) {
	defer conn.Close()
	sys, ok := conn.(syscall.Conn)
	if !ok {
		return nil, errors.New("the wire is no socket")
	}
	raw, err := sys.SyscallConn()
	if err != nil {
		return nil, err
	}
	w := &wire{}
	var dupErr error
	if err := raw.Control(func(fd uintptr) { w.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, dupErr
	}
	if w.readable, err = newWatch(w.fd, unix.EPOLLIN); err != nil {
		unix.Close(w.fd)
		return nil, err
	}
	return w, nil
}

// hangUp ends reading and writing. Any goroutine may call it.
func (w *wire) hangUp() {
	w.ending.Lock()
	defer w.ending.Unlock()
	if !w.closed {
		_ = unix.Shutdown(w.fd, unix.SHUT_RDWR)
	}
}

// close gives the descriptors back. Nobody may read any more.
func (w *wire) close() {
	w.hangUp() // and whoever waits for room goes on
	w.writing.Lock()
	defer w.writing.Unlock()
	w.ending.Lock()
	defer w.ending.Unlock()
	w.closed = true
	w.readable.close()
	unix.Close(w.fd)
}

// Read implements io.Reader, for one goroutine.
func (w *wire) Read(b []byte) (n int, err error) {
	var errno syscall.Errno
	err = w.readable.try(func() bool {
		n, errno = receive(uintptr(w.fd), b)
		return errno != unix.EAGAIN
	})
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, errno
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// write sends pieces whole, of so many bytes together. It takes the pieces apart.
func (w *wire) write(pieces net.Buffers, size int) error {
	w.writing.Lock()
	defer w.writing.Unlock()
	if w.closed {
		return net.ErrClosed
	}
	if size <= smallWrite {
		w.small = w.small[:0]
		for _, piece := range pieces {
			w.small = append(w.small, piece...)
		}
		pieces[0], pieces = w.small, pieces[:1]
	}
	for len(pieces) > 0 {
		n, err := w.writeSome(pieces)
		if err != nil {
			return err
		}
		for n > 0 {
			part := min(n, len(pieces[0]))
			n -= part
			if pieces[0] = pieces[0][part:]; len(pieces[0]) == 0 {
				pieces = pieces[1:]
			}
		}
	}
	return nil
}

// maxPieces is what Linux takes by one call.
const maxPieces = 1024

// writeSome waits until some of pieces is sent.
func (w *wire) writeSome(pieces net.Buffers) (n int, err error) {
	try := func() bool {
		if len(pieces) == 1 && len(pieces[0]) <= smallWrite {
			var errno syscall.Errno
			n, errno = send(uintptr(w.fd), pieces[0])
			if err = nil; errno != 0 {
				err = errno
			}
		} else {
			n, err = unix.SendmsgBuffers(w.fd, pieces[:min(len(pieces), maxPieces)], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}
		return err != unix.EAGAIN && err != unix.EINTR
	}
	if try() {
		return n, err
	}
	room, err := newWatch(w.fd, unix.EPOLLOUT)
	if err != nil {
		return 0, err
	}
	defer room.close()
	if err := room.try(try); err != nil {
		return 0, err
	}
	return n, err
}

// watch tells when a descriptor is ready for one thing. It is a set of epoll(7), for which Go's poller can wait.
type watch struct {
	set *os.File
	raw syscall.RawConn
}

func newWatch(fd int, events uint32) (*watch, error) {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(set, true) // else Go would not wait for it, but in it
	}
	if err != nil {
		return nil, fmt.Errorf("watch the wire: %w", err)
	}
	w := &watch{set: os.NewFile(uintptr(set), "epoll")}
	if w.raw, err = w.set.SyscallConn(); err == nil {
		err = unix.EpollCtl(set, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events})
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("watch the wire: %w", err)
	}
	return w, nil
}

// try calls do, and again whenever the descriptor may be ready, until it is true.
func (w *watch) try(do func() bool) error { return w.raw.Read(func(uintptr) bool { return do() }) }

func (w *watch) close() { w.set.Close() }
