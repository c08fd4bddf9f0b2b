package guestagent

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"banger"
)

const ttyGroup = 5 // "tty" in every distribution

// terminal is a new pseudo-terminal: its master end, which can be waited for, and its slave for a process.
type terminal struct{ master, slave *os.File }

func openTerminal(size banger.PTY, owner account) (*terminal, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx")
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		master.Close()
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	name := fmt.Sprintf("/dev/pts/%d", number)
	slave, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		master.Close()
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	t := &terminal{master, os.NewFile(uintptr(slave), name)}
	t.resize(size)
	// A guest without devpts options still gives the terminal to its user; without root it is ours already.
	if unix.Fchown(slave, int(owner.UID), ttyGroup) == nil {
		unix.Fchmod(slave, 0o620)
	}
	return t, nil
}

// resize sets the window; the kernel tells the foreground process.
func (t *terminal) resize(size banger.PTY) {
	raw, err := t.master.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
	})
}
