package egress

import "net/netip"

// What is neither the internet nor anybody's to grant: our own loopback, groups, and the link between guest and gateway.
var unreachable = prefixes("0.0.0.0/32", "127.0.0.0/8", "198.18.0.0/15", "224.0.0.0/4", "255.255.255.255/32",
	"::/128", "::1/128", "ff00::/8", LinkPrefix6.String())

// LinkPrefix6 is what the IPv6 addresses of guest and gateway are from.
var LinkPrefix6 = netip.MustParsePrefix("fd62:616e:6765:7200::/64")

// zones are special ranges (RFC 6890): private networks, links, and what is set aside. A rule may grant a part of one.
var zones = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "an address of \"this network\""},
	{netip.MustParsePrefix("10.0.0.0/8"), "a private address"},
	{netip.MustParsePrefix("100.64.0.0/10"), "an address shared by carriers"},
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address (cloud metadata)"},
	{netip.MustParsePrefix("172.16.0.0/12"), "a private address"},
	{netip.MustParsePrefix("192.0.0.0/24"), "a special address"},
	{netip.MustParsePrefix("192.168.0.0/16"), "a private address"},
	{netip.MustParsePrefix("240.0.0.0/4"), "a reserved address"},
	{netip.MustParsePrefix("::/96"), "a special address"},
	{netip.MustParsePrefix("100::/64"), "a special address"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "an address that a local translator maps"},
	{netip.MustParsePrefix("2001::/32"), "a tunnel's address"},
	{netip.MustParsePrefix("fc00::/7"), "a private address"},
	{netip.MustParsePrefix("fe80::/10"), "a link-local address"},
	{netip.MustParsePrefix("fec0::/10"), "a private address"},
}

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

var (
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
	sixTo = netip.MustParsePrefix("2002::/16")
)

// Unwrap is the IPv4 address that an IPv6 one stands for (mapped, NAT64, 6to4), else addr itself; always without a zone.
func Unwrap(addr netip.Addr) netip.Addr {
	addr = addr.WithZone("").Unmap()
	b := addr.As16()
	switch {
	case addr.Is4():
		return addr
	case nat64.Contains(addr):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case sixTo.Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return addr
}

func never(addr netip.Addr) bool {
	if !addr.IsValid() {
		return true
	}
	for _, p := range unreachable {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func reserved(addr netip.Addr) (netip.Prefix, bool) {
	for _, z := range zones {
		if z.prefix.Contains(addr) {
			return z.prefix, true
		}
	}
	return netip.Prefix{}, false
}

func describe(addr netip.Addr) string {
	switch {
	case !addr.IsValid():
		return "no address"
	case addr.IsLoopback():
		return "the host's loopback address " + addr.String()
	case addr.IsMulticast():
		return "the group " + addr.String()
	}
	for _, z := range zones {
		if z.prefix.Contains(addr) {
			return z.what
		}
	}
	return addr.String()
}
