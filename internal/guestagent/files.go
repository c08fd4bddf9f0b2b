package guestagent

import (
	"bufio"
	"errors"
	"net"
	"runtime"
	"sync"

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
	transfer.Server{Owner: s.owner, Enter: isOwnDevice, Sync: true, ManyFiles: s.spare.take, BringUpToDate: s.bringUpToDate, Watch: watchFiles}.Serve(conn)
}

// spare gives Go a second processor in a guest of one CPU while many files are looked at or written. With one, it takes it away from every
// system call that lasts longer than 20 µs and gives it back afterwards, by another thread; with one to spare, from those of 10 ms: many files
// take 0.6 of the time. Streams of large pieces pass from goroutine to goroutine, which two processors do by waking each other's thread: they
// take 1.3 times as long.
type spare struct {
	mu    sync.Mutex
	users int
}

func (s *spare) take() (giveBack func()) {
	s.add(1)
	return func() { s.add(-1) }
}

func (s *spare) add(n int) {
	if runtime.NumCPU() > 1 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users += n
	if want := min(1+s.users, 2); want != runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(want)
	}
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
