package guestagent

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/channel"
)

const (
	maxClockError = 500 * time.Millisecond
	ownAddress    = "127.0.1.1"
	emptyHosts    = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
)

// settings are the files of the system that an identity changes.
type settings struct{ hostname, hosts string }

var systemSettings = settings{"/etc/hostname", "/etc/hosts"}

// applyIdentity changes what the kernel and the system's files know of the host name, the clock and entropy. What
// cannot be changed (a read-only file) is told on the console: it does not keep the guest from serving.
func applyIdentity(files settings, id *channel.Identify) {
	note := func(what string, err error) {
		if err != nil {
			logf("%s: %v", what, err)
		}
	}
	note("clock", setClock(id.Clock))
	note("entropy", addEntropy(id.Entropy))
	if id.HostName != "" {
		note("host name", unix.Sethostname([]byte(id.HostName)))
		note("host name", files.write(id.HostName))
	}
}

func setClock(now time.Time) error {
	if now.IsZero() || time.Since(now).Abs() <= maxClockError {
		return nil
	}
	ts := unix.NsecToTimespec(now.UnixNano())
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}

func (s settings) write(name string) error {
	hosts, err := os.ReadFile(s.hosts)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(writeChanged(s.hostname, name+"\n"), writeChanged(s.hosts, hostsWith(string(hosts), name)))
}

// hostsWith gives the content of /etc/hosts with name as the only one of this machine's own address.
func hostsWith(hosts, name string) string {
	own := ownAddress + "\t" + name
	var lines []string
	placed := false
	for line := range strings.Lines(hosts) {
		line = strings.TrimSuffix(line, "\n")
		if f := strings.Fields(line); len(f) > 0 && f[0] == ownAddress {
			if placed {
				continue
			}
			line, placed = own, true
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return emptyHosts + own + "\n"
	}
	if !placed {
		lines = append(lines, own)
	}
	return strings.Join(lines, "\n") + "\n"
}

// writeChanged leaves a file alone that has this content.
func writeChanged(path, content string) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == content {
		return nil
	}
	return os.WriteFile(path, []byte(content), 0o644)
}
