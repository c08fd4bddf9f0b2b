package netstack

import (
	"io"
	"net"
	"syscall"
)

// readWhenReady reads into a chunk that it takes only once there is something to read: thousands of idle connections hold
// none. The caller gives it back by putChunk. It returns bytes, or an error, io.EOF at the end.
func readWhenReady(conn net.Conn, take func() []byte) ([]byte, error) {
	sys, ok := conn.(syscall.Conn)
	if !ok {
		chunk := take()
		n, err := conn.Read(chunk)
		return chunk[:n], err
	}
	raw, err := sys.SyscallConn()
	if err != nil {
		return nil, err
	}
	var chunk []byte
	var n int
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		chunk = take()
		for {
			if n, readErr = syscall.Read(int(fd), chunk); readErr != syscall.EINTR {
				break
			}
		}
		if readErr != nil {
			n = 0
			putChunk(chunk)
			chunk = nil
		}
		return readErr != syscall.EAGAIN
	})
	switch {
	case err != nil:
		return nil, err
	case readErr != nil:
		return nil, readErr
	case n == 0:
		putChunk(chunk)
		return nil, io.EOF
	}
	return chunk[:n], nil
}
