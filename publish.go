package banger

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// MaxPublish is how many ports of one VM may be pinned.
const MaxPublish = 64

// Publish pins a TCP port of a VM to an address of the host: who connects there reaches it while the VM runs.
type Publish struct {
	Host  netip.AddrPort `json:"host"`  // "127.0.0.1:8080"; of IPv6 "[::1]:8080"
	Guest uint16         `json:"guest"` // port in the VM
}

// ParsePublish reads "8080:80", "127.0.0.1:8080:80", "[::1]:8080:80", or "80" for the same port on both sides. Without an address
// it is 127.0.0.1: other computers are let in only where an address says so. Errors: ErrInvalid.
func ParsePublish(text string) (Publish, error) {
	wrong := func(format string, args ...any) (Publish, error) {
		return Publish{}, &Error{Kind: ErrInvalid, Op: "port", Subject: fmt.Sprintf("%q", text), Err: fmt.Errorf(format, args...),
			Hint: "for example: -p 8080:80, or -p 127.0.0.1:8080:80"}
	}
	host, guest := text, text
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		host, guest = text[:i], text[i+1:]
	}
	guestPort, err := parsePort(guest)
	if err != nil {
		return wrong("the port in the VM: %w", err)
	}
	address, port := netip.AddrFrom4([4]byte{127, 0, 0, 1}), host
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		if address, err = parseHost(host[:i]); err != nil {
			return wrong("%w", err)
		}
		port = host[i+1:]
	}
	hostPort, err := parsePort(port)
	if err != nil {
		return wrong("the port here: %w", err)
	}
	return Publish{Host: netip.AddrPortFrom(address, hostPort), Guest: guestPort}, nil
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || text != strconv.FormatUint(n, 10) {
		return 0, fmt.Errorf("%.40q: want a number from 1 to 65535", text)
	}
	return uint16(n), nil
}

func parseHost(text string) (netip.Addr, error) {
	if text == "localhost" {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	bare := text
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if bare, ok = strings.CutSuffix(inner, "]"); !ok || !strings.Contains(bare, ":") {
			return netip.Addr{}, fmt.Errorf("address %.60q: want [IPv6 address]", text)
		}
	} else if strings.Contains(text, ":") {
		return netip.Addr{}, fmt.Errorf("address %.60q: an IPv6 address stands in brackets", text)
	}
	address, err := netip.ParseAddr(bare)
	if err != nil || address.Zone() != "" || address.Is4In6() {
		return netip.Addr{}, fmt.Errorf("address %.60q: want an IP address of this computer, or localhost", text)
	}
	return address, nil
}

// String is what ParsePublish reads.
func (p Publish) String() string { return fmt.Sprintf("%s:%d", p.Host, p.Guest) }

// validatePublish checks a VM's pins together.
func validatePublish(list []Publish) error {
	if len(list) > MaxPublish {
		return Invalidf("%d ports: at most %d of a VM can be pinned", len(list), MaxPublish)
	}
	for i, p := range list {
		if _, err := ParsePublish(p.String()); err != nil {
			return err
		}
		if slices.ContainsFunc(list[:i], func(q Publish) bool { return q.Host == p.Host }) {
			return Invalidf("port %s: it is pinned twice", p.Host)
		}
	}
	return nil
}
