package machine

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
)

// Listen makes the socket of a machine, mode 0600; a stale one of this user is replaced. Closing the listener leaves the
// socket's name, so that a process which got a copy of the descriptor goes on with it.
// Errors: ErrConflict when something else has that name; ErrUnavailable.
func Listen(path string) (*net.UnixListener, error) {
	fail := func(kind, err error) (*net.UnixListener, error) {
		return nil, &banger.Error{Kind: kind, Op: "listen on", Subject: path, Err: err}
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fail(banger.ErrUnavailable, err)
	case info.Mode().Type() != fs.ModeSocket || int(info.Sys().(*syscall.Stat_t).Uid) != os.Getuid():
		return fail(banger.ErrConflict, errors.New("the path is taken, by no socket of this user"))
	default:
		if err := os.Remove(path); err != nil {
			return fail(banger.ErrUnavailable, err)
		}
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fail(banger.ErrUnavailable, err)
	}
	listener.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return fail(banger.ErrUnavailable, err)
	}
	return listener, nil
}

// Accept waits for a process of this user; others are hung up on.
func Accept(listener *net.UnixListener) (*net.UnixConn, error) {
	for {
		conn, err := listener.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(conn); err == nil && uid == os.Getuid() {
			return conn, nil
		}
		conn.Close()
	}
}

func peerUID(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}
