// Package listening finds out which TCP ports of a machine have a listener, and whose: from /proc, on the host and in a guest alike.
package listening

import (
	"bufio"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// What is read is bounded: in a guest anybody may make it large.
const (
	MaxListeners = 1024
	maxName      = 64       // bytes of a process name
	maxTable     = 64 << 20 // bytes of /proc/net/tcp
	stateListen  = "0A"
	socketPrefix = "socket:["
)

// Listener is a port that somebody listens on. Process is what the process calls itself: any bytes.
type Listener struct {
	Address netip.Addr `json:"address"` // unspecified: all addresses
	Port    uint16     `json:"port"`
	Process string     `json:"process,omitempty"` // empty: not to be seen
	PID     int        `json:"pid,omitempty"`
	UID     int        `json:"uid"`
}

// List gives the listeners that proc (usually "/proc") shows, by port and address. Names are missing of processes that the caller
// may not look into.
func List(proc string) ([]Listener, error) {
	inodes := map[string]*Listener{}
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(filepath.Join(proc, "net", name))
		if errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
			continue
		}
		if err != nil {
			return nil, err
		}
		err = parseTable(io.LimitReader(f, maxTable), inodes)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
	}
	nameOwners(proc, inodes)
	list := make([]Listener, 0, len(inodes))
	for _, l := range inodes {
		list = append(list, *l)
	}
	slices.SortFunc(list, func(a, b Listener) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), a.Address.Compare(b.Address), cmp.Compare(a.PID, b.PID))
	})
	return slices.Compact(list), nil
}

// parseTable adds the listeners of a table in the format of proc(5), by inode.
func parseTable(r io.Reader, inodes map[string]*Listener) error {
	s := bufio.NewScanner(r)
	for s.Scan() && len(inodes) < MaxListeners {
		f := strings.Fields(s.Text())
		if len(f) < 10 || f[3] != stateListen {
			continue
		}
		address, port, err := parseEndpoint(f[1])
		if err != nil {
			return err
		}
		uid, err := strconv.Atoi(f[7])
		if err != nil {
			return err
		}
		inodes[f[9]] = &Listener{Address: address, Port: port, UID: uid}
	}
	return s.Err()
}

// parseEndpoint reads "0100007F:0050": words of 32 bits in the machine's order, which is little-endian on what banger runs on.
func parseEndpoint(text string) (netip.Addr, uint16, error) {
	host, port, ok := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	number, portErr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || portErr != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.Addr{}, 0, fmt.Errorf("malformed address %.60q", text)
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	address, _ := netip.AddrFromSlice(raw)
	return address.Unmap(), uint16(number), nil
}

// nameOwners finds the processes that hold the sockets. The first one counts.
func nameOwners(proc string, inodes map[string]*Listener) {
	left := len(inodes)
	dirs, _ := filepath.Glob(filepath.Join(proc, "[0-9]*"))
	for _, dir := range dirs {
		if left == 0 {
			return
		}
		fds, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			continue
		}
		for _, fd := range fds {
			link, err := os.Readlink(filepath.Join(dir, "fd", fd.Name()))
			inode, ok := strings.CutPrefix(link, socketPrefix)
			if err != nil || !ok {
				continue
			}
			l := inodes[strings.TrimSuffix(inode, "]")]
			if l == nil || l.PID != 0 {
				continue
			}
			l.PID, _ = strconv.Atoi(filepath.Base(dir))
			l.Process = processName(dir)
			left--
		}
	}
}

func processName(dir string) string {
	name, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(name[:min(len(name), maxName)]), "\n")
}

// Owner says who keeps others from listening on address and port here, for people; "" when that can't be seen.
func Owner(address netip.Addr, port uint16) string {
	list, err := List("/proc")
	if err != nil {
		return ""
	}
	for _, l := range list {
		if l.Port != port || l.Address != address && !l.Address.IsUnspecified() && !address.IsUnspecified() {
			continue
		}
		at := netip.AddrPortFrom(l.Address, l.Port)
		if l.PID == 0 {
			return fmt.Sprintf("a process of user %d on %s", l.UID, at)
		}
		return fmt.Sprintf("%s (process %d) on %s", l.Process, l.PID, at)
	}
	return ""
}
