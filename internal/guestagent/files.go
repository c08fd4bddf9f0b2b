package guestagent

import (
	"bufio"
	"errors"
	"net"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/transfer"
	"banger/internal/twoway"
)

// maxTransfers bounds how many files or trees travel at once.
const maxTransfers = 16

var errTransfers = errors.New("too many copies at once")

// ServeFiles serves one connection to the port for files and closes it. The channel is the host's alone, so nobody signs in.
func (s *Server) ServeFiles(conn net.Conn) {
	select {
	case s.transfers <- struct{}{}:
		defer func() { <-s.transfers }()
	default:
		_ = transfer.Refuse(conn, &banger.Error{Kind: banger.ErrUnavailable, Op: "copy", Err: errTransfers, Hint: "wait until one of them is done"})
		conn.Close()
		return
	}
	transfer.Server{Owner: s.owner, Enter: isOwnDevice, Sync: true, BringUpToDate: s.bringUpToDate, Watch: watchFiles}.Serve(conn)
}

// watchFiles keeps a directory like one of the host.
func watchFiles(conn net.Conn, r *bufio.Reader, dir string, owner transfer.Owner, begin func() error) error {
	l, err := twoway.OpenLocal(dir, twoway.GuestSide, &owner)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := begin(); err != nil {
		return err
	}
	return twoway.Serve(conn, r, l)
}

// owner is the default user.
func (s *Server) owner() (transfer.Owner, error) {
	_, _, user := s.settings()
	acct, err := s.accounts.find(user)
	return transfer.Owner{UID: acct.UID, GID: acct.GID}, err
}

// isOwnDevice tells the file systems that stay when the VM stops, its root and its disk, from others that are mounted in it.
func isOwnDevice(dev uint64) bool {
	for _, own := range []string{"/", diskMount} {
		var st unix.Stat_t
		if unix.Stat(own, &st) == nil && uint64(st.Dev) == dev {
			return true
		}
	}
	return false
}
