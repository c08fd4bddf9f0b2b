package netstack

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// smallWrite is what goes out without a word to Go's runtime. A larger write may keep a processor for long.
const smallWrite = 16 << 10

// socket is a connection of the host whose small writes and reads Go's runtime is not told of, for they never wait: it would wake a thread
// that watches over calls that do, and that takes longer than a small packet.
type socket struct {
	net.Conn
	raw syscall.RawConn // nil: the connection is no socket
}

func newSocket(conn net.Conn) socket {
	s := socket{Conn: conn}
	if sys, ok := conn.(syscall.Conn); ok {
		s.raw, _ = sys.SyscallConn()
	}
	return s
}

// readWhenReady reads into a chunk that it takes only once there is something to read: thousands of idle connections hold
// none. The caller gives it back by putChunk. It returns bytes, or an error, io.EOF at the end.
func (s socket) readWhenReady(take func() []byte) ([]byte, error) {
	if s.raw == nil {
		chunk := take()
		n, err := s.Conn.Read(chunk)
		return chunk[:n], err
	}
	var chunk []byte
	var n int
	var errno syscall.Errno
	err := s.raw.Read(func(fd uintptr) bool {
		chunk = take()
		if n, errno = receive(fd, chunk); errno != 0 {
			putChunk(chunk)
		}
		return errno != syscall.EAGAIN
	})
	switch {
	case err != nil:
		return nil, err
	case errno != 0:
		return nil, errno
	case n == 0:
		putChunk(chunk)
		return nil, io.EOF
	}
	return chunk[:n], nil
}

// Write implements io.Writer.
func (s socket) Write(b []byte) (n int, err error) {
	if s.raw == nil || len(b) > smallWrite {
		return s.Conn.Write(b)
	}
	var errno syscall.Errno
	err = s.raw.Write(func(fd uintptr) bool {
		for n < len(b) {
			var part int
			if part, errno = send(fd, b[n:]); errno != 0 {
				return errno != syscall.EAGAIN
			}
			n += part
		}
		return true
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return n, err
}

// receive is recv(2). It never waits. Where there is no more, it gives no bytes and no error.
func receive(fd uintptr, b []byte) (int, syscall.Errno) {
	return transfer(syscall.SYS_RECVFROM, fd, b)
}

// send is send(2). It never waits.
func send(fd uintptr, b []byte) (int, syscall.Errno) {
	return transfer(syscall.SYS_SENDTO, fd, b)
}

func transfer(call, fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
