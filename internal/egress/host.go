package egress

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// Host is what the kernel says of this host's own addresses and of the networks that it reaches without a router.
type Host struct {
	own   []netip.Prefix
	links []netip.Prefix
}

// NewHost makes one of known prefixes.
func NewHost(own, links []netip.Prefix) Host { return Host{own, links} }

// Own tells whether addr is the host itself.
func (h Host) Own(addr netip.Addr) bool {
	_, ok := find(h.own, addr)
	return ok
}

// Link gives the network of the host that addr is in.
func (h Host) Link(addr netip.Addr) (netip.Prefix, bool) { return find(h.links, addr) }

func find(list []netip.Prefix, addr netip.Addr) (netip.Prefix, bool) {
	for _, p := range list {
		if p.Contains(addr) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// Shorter prefixes of a route without a router are no network of neighbours but the way to the world, as a tunnel has it.
const (
	minLinkBits4 = 8
	minLinkBits6 = 16
)

// ReadHost asks the kernel by its routes: those of type local are the host's own addresses, those without a router its links.
func ReadHost() (Host, error) {
	var h Host
	for _, family := range []int{syscall.AF_INET, syscall.AF_INET6} {
		rib, err := syscall.NetlinkRIB(syscall.RTM_GETROUTE, family)
		if err != nil {
			return h, fmt.Errorf("read the host's routes: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(rib)
		if err != nil {
			return h, fmt.Errorf("read the host's routes: %w", err)
		}
		for i := range messages {
			h.addRoute(&messages[i])
		}
	}
	return h, nil
}

// Offsets in struct rtmsg (linux/rtnetlink.h).
const (
	rtFamily = 0
	rtDstLen = 1
	rtType   = 7
	rtSize   = 12
)

// rtaVia is a router of another family, rtaMultipath several of them.
const rtaVia, rtaMultipath = 18, syscall.RTA_MULTIPATH

func (h *Host) addRoute(m *syscall.NetlinkMessage) {
	if m.Header.Type != syscall.RTM_NEWROUTE || len(m.Data) < rtSize {
		return
	}
	attrs, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		return
	}
	family, bits := m.Data[rtFamily], int(m.Data[rtDstLen])
	var dst netip.Addr
	routed := false
	for _, a := range attrs {
		switch a.Attr.Type {
		case syscall.RTA_DST:
			dst, _ = netip.AddrFromSlice(a.Value)
		case syscall.RTA_GATEWAY, rtaVia:
			routed = true
		case rtaMultipath:
			routed = routed || multipathRouted(a.Value)
		}
	}
	if !dst.IsValid() {
		return // the default route
	}
	prefix := netip.PrefixFrom(dst, bits).Masked()
	minBits := minLinkBits4
	if family == syscall.AF_INET6 {
		minBits = minLinkBits6
	}
	switch m.Data[rtType] {
	case syscall.RTN_LOCAL, syscall.RTN_ANYCAST, syscall.RTN_BROADCAST:
		h.own = append(h.own, prefix)
	case syscall.RTN_UNICAST:
		if !routed && bits >= minBits {
			h.links = append(h.links, prefix)
		}
	}
}

// multipathRouted tells whether the first hop of a route has a router: struct rtnexthop (8 bytes), then attributes.
func multipathRouted(b []byte) bool {
	const nexthopSize, attrSize = 8, 4
	if len(b) < nexthopSize+attrSize {
		return false
	}
	end := min(len(b), int(binary.NativeEndian.Uint16(b)))
	for at := nexthopSize; at+attrSize <= end; {
		size, kind := int(binary.NativeEndian.Uint16(b[at:])), binary.NativeEndian.Uint16(b[at+2:])
		if kind == syscall.RTA_GATEWAY || kind == rtaVia {
			return true
		}
		if size < attrSize {
			return false
		}
		at += (size + 3) &^ 3
	}
	return false
}

// hostAge is how old the answer of a HostReader may be: connections come in bursts, networks change by hand.
const hostAge = time.Second

// HostReader reads the host's addresses, not more often than they can change. It is safe for concurrent use.
type HostReader struct {
	mu   sync.Mutex
	host Host
	at   time.Time
}

// Get gives the host as it is.
func (r *HostReader) Get() (Host, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.at.IsZero() && time.Since(r.at) < hostAge {
		return r.host, nil
	}
	host, err := ReadHost()
	if err != nil {
		return Host{}, err
	}
	r.host, r.at = host, time.Now()
	return host, nil
}
