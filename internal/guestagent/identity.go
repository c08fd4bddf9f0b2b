package guestagent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/channel"
)

const (
	machineIDFile = "/etc/machine-id"
	maxClockError = 500 * time.Millisecond
	ownAddress    = "127.0.1.1"
	emptyHosts    = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
)

// settings are the files of the system that an identity changes.
type settings struct{ hostname, hosts, localtime, timezone, zoneinfo string }

var systemSettings = settings{"/etc/hostname", "/etc/hosts", "/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo"}

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
	note("time zone", files.setZone(id.Locale))
	note("certificates", trustCA("/", id.CA))
	if id.HostName != "" {
		note("host name", unix.Sethostname([]byte(id.HostName)))
		note("host name", files.write(id.HostName))
	}
	note("network", applyNetwork(&id.Network))
	note("resolver", applyResolver(resolvConf, upperRoot(), id.Network.DNS))
}

// ensureMachineID gives a machine its id at its first boot. systemd would do so itself, but then takes the boot for the first of
// an installation: it enables services that the image has disabled, and some distributions ask questions on the console.
func ensureMachineID(path string) error {
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if id := strings.TrimSpace(string(content)); id != "" && id != "uninitialized" {
		return nil
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id)      // never fails: crypto/rand
	id[6] = id[6]&0x0f | 0x40 // machine-id(5): a UUID of version 4
	id[8] = id[8]&0x3f | 0x80
	if err := os.WriteFile(path, fmt.Appendf(nil, "%x\n", id), 0o444); err != nil {
		return err
	}
	return os.Chmod(path, 0o444)
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
