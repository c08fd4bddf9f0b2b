// Package egress decides what a VM's network may reach. It opens no connection.
//
// policy.go judges names, addresses and VMs by a [banger.NetPolicy]; ranges.go are the addresses that nobody reaches
// without a grant; host.go asks the kernel which ones are this host's own or its neighbours'; hello.go reads the name
// from the beginning of a TLS connection.
package egress

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"banger"
)

// HostName is the host's loopback address for a VM, as far as its ports are allowed; other VMs are NAME and VMSuffix.
const (
	HostName = "host.banger"
	VMSuffix = ".vm"
)

// Policy judges. It is immutable.
type Policy struct{ banger.NetPolicy }

// Verdict is a decision and, for a denial, why: one line for people.
type Verdict struct {
	Allowed bool
	Reason  string
}

var allowed = Verdict{Allowed: true}

func denied(format string, args ...any) Verdict { return Verdict{Reason: fmt.Sprintf(format, args...)} }

// CleanName is a name as rules and verdicts have it: lower case, without the last dot.
func CleanName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func nameMatches(r banger.NetRule, name string) bool {
	switch {
	case r.Name == "":
		return false
	case r.Name == "*":
		return true
	case strings.HasPrefix(r.Name, "*."):
		return strings.HasSuffix(name, r.Name[1:])
	}
	return r.Name == name
}

func portMatches(r banger.NetRule, port uint16) bool {
	return r.Port == 0 || port == 0 || r.Port == port
}

// Bound tells whether connections to a name must be known as such: its addresses alone do not show what is allowed.
func (p Policy) Bound(name string) bool {
	return !p.Open || slices.ContainsFunc(p.Deny, func(r banger.NetRule) bool { return nameMatches(r, name) })
}

// Watched tells whether the names of TLS connections matter even to addresses.
func (p Policy) Watched() bool {
	return slices.ContainsFunc(p.Deny, func(r banger.NetRule) bool { return r.Name != "" })
}

// Name judges a connection to a name, or with port 0 the look-up of it: then one allowed port is enough, and a denial of
// one port does not count.
func (p Policy) Name(name string, port uint16) Verdict {
	name = CleanName(name)
	for _, r := range p.Deny {
		if nameMatches(r, name) && (r.Port == 0 || r.Port == port) {
			return denied("the rule deny=%s", r)
		}
	}
	if p.Open || slices.ContainsFunc(p.Allow, func(r banger.NetRule) bool { return nameMatches(r, name) && portMatches(r, port) }) {
		return allowed
	}
	if port != 0 && p.Name(name, 0).Allowed {
		return denied("no rule allows port %d of it", port)
	}
	return denied("no rule allows it")
}

// VM judges a connection to another VM, or with port 0 the look-up of its name.
func (p Policy) VM(name string, port uint16) Verdict {
	if slices.ContainsFunc(p.Allow, func(r banger.NetRule) bool { return r.VM == name && portMatches(r, port) }) {
		return allowed
	}
	return denied("VMs do not reach each other unless a rule allows vm:%s", name)
}

// HostPort judges a connection to a port on the host's loopback address.
func (p Policy) HostPort(port uint16) Verdict {
	if slices.ContainsFunc(p.Allow, func(r banger.NetRule) bool { return r.Host && r.Port == port }) {
		return allowed
	}
	return denied("no rule allows host:%d", port)
}

// Addr judges a connection to an address that the guest itself named.
func (p Policy) Addr(addr netip.Addr, port uint16, host Host) Verdict {
	if v := p.Resolved(addr, port, host); !v.Allowed || p.Open {
		return v
	}
	if p.granted(Unwrap(addr), port) {
		return allowed
	}
	return denied("no rule allows this address")
}

// Resolved judges an address of a name that is allowed. Port 0 asks for any port.
func (p Policy) Resolved(addr netip.Addr, port uint16, host Host) Verdict {
	plain := Unwrap(addr)
	for _, r := range p.Deny {
		if r.Prefix.IsValid() && r.Prefix.Contains(plain) && (r.Port == 0 || r.Port == port) {
			return denied("the rule deny=%s", r)
		}
	}
	if never(plain) {
		return denied("%s is not reachable from a VM", describe(plain))
	}
	if host.Own(plain) {
		if p.grants(port, func(prefix netip.Prefix) bool { return prefix.IsSingleIP() && prefix.Addr() == plain }) {
			return allowed
		}
		return denied("%s is an address of this host; a rule must name it alone", plain)
	}
	if zone, ok := reserved(plain); ok {
		if p.within(zone, plain, port) {
			return allowed
		}
		return denied("%s is %s; a rule within %s must allow it", plain, describe(plain), zone)
	}
	if link, ok := host.Link(plain); ok {
		if p.within(link, plain, port) {
			return allowed
		}
		return denied("%s is in this host's own network %s; a rule within it must allow it", plain, link)
	}
	return allowed
}

// within tells whether a rule that lies inside zone grants addr: a wide rule such as 0.0.0.0/0 says nothing about the
// addresses that need a grant.
func (p Policy) within(zone netip.Prefix, addr netip.Addr, port uint16) bool {
	return p.grants(port, func(prefix netip.Prefix) bool {
		return prefix.Contains(addr) && prefix.Bits() >= zone.Bits()
	})
}

func (p Policy) granted(addr netip.Addr, port uint16) bool {
	return p.grants(port, func(prefix netip.Prefix) bool { return prefix.Contains(addr) })
}

func (p Policy) grants(port uint16, fits func(netip.Prefix) bool) bool {
	return slices.ContainsFunc(p.Allow, func(r banger.NetRule) bool {
		return r.Prefix.IsValid() && fits(r.Prefix) && portMatches(r, port)
	})
}
