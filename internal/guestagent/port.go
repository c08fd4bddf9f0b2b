package guestagent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const portName = "banger.channel"

// port is the guest's end of the channel: a virtio-serial port. It is opened once; each session gets a duplicate, since
// closing a port throws away what the host has sent already.
type port struct {
	fd   int
	name string
}

func openPort() (*port, error) {
	const patience, pause = 20 * time.Second, 2 * time.Millisecond
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		if name := findPort("/sys/class/virtio-ports"); name != "" {
			fd, err := unix.Open("/dev/"+name, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err == nil {
				return &port{fd, name}, nil
			}
			if !errors.Is(err, unix.ENOENT) {
				return nil, fmt.Errorf("open channel: %w", err)
			}
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no virtio port is named %s", portName)
		}
	}
}

func findPort(class string) string {
	names, err := filepath.Glob(filepath.Join(class, "*", "name"))
	if err != nil {
		return ""
	}
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(b)) == portName {
			return filepath.Base(filepath.Dir(name))
		}
	}
	return ""
}

// await waits until a host is connected and gives the port for one session. Reading and polling a port without a host
// return at once; a blocking write waits. The byte that it writes means nothing: the hello skips it.
func (p *port) await() (io.ReadWriteCloser, error) {
	if err := unix.SetNonblock(p.fd, false); err != nil {
		return nil, err
	}
	for {
		_, err := unix.Write(p.fd, []byte{'\n'})
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("write to channel: %w", err)
		}
	}
	fd, err := unix.FcntlInt(uintptr(p.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open channel: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), p.name), nil
}
