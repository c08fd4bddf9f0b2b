package daemon

import (
	"log/slog"
	"net"

	"golang.org/x/sys/unix"
)

// peerKey is where a request's context holds the process id of its peer; 0 when it can't be seen.
type peerKey struct{}

// peerListener takes connections of one user only. Root may come too: it can do anything to the daemon anyway.
type peerListener struct {
	*net.UnixListener
	uid int
	log *slog.Logger
}

type peerConn struct {
	*net.UnixConn
	pid int
}

func (l *peerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		cred, err := peerOf(conn)
		if err == nil && (int(cred.Uid) == l.uid || cred.Uid == 0) {
			return &peerConn{conn, int(cred.Pid)}, nil
		}
		conn.Close()
		if err != nil {
			l.log.Warn("refused a connection", "err", err)
		} else {
			l.log.Warn("refused a connection of another user", "uid", cred.Uid, "pid", cred.Pid)
		}
	}
}

func peerOf(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return nil, err
	}
	return cred, credErr
}
