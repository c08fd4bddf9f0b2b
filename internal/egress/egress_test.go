package egress

import (
	"net/netip"
	"strings"
	"testing"

	"banger"
)

func policy(t testing.TB, text string) Policy {
	t.Helper()
	p, err := banger.ParseNetPolicy(text)
	if err != nil {
		t.Fatal(err)
	}
	return Policy{p}
}

// testHost is 192.0.2.7, 203.0.113.1 and 2001:db8:1::7, each in its network.
var testHost = NewHost(prefixes("192.0.2.7/32", "203.0.113.1/32", "2001:db8:1::7/128", "192.168.1.5/32"),
	prefixes("192.0.2.0/24", "2001:db8:1::/64", "192.168.1.0/24"))

func TestAddr(t *testing.T) {
	for _, test := range []struct {
		policy, addr string
		port         uint16
		want         bool
	}{
		{"full", "8.8.8.8", 443, true}, {"full", "2600::1", 443, true}, {"full", "203.0.113.10", 80, true},
		{"none", "8.8.8.8", 443, false}, {"allow=github.com", "8.8.8.8", 443, false},
		{"allow=8.8.8.8", "8.8.8.8", 443, true}, {"allow=8.8.8.0/24:53", "8.8.8.8", 53, true}, {"allow=8.8.8.0/24:53", "8.8.8.8", 80, false},
		{"allow=0.0.0.0/0", "8.8.8.8", 1, true}, {"allow=0.0.0.0/0", "2600::1", 1, false},
		{"full,deny=8.8.0.0/16", "8.8.8.8", 1, false}, {"full,deny=8.8.8.8:53", "8.8.8.8", 53, false}, {"full,deny=8.8.8.8:53", "8.8.8.8", 54, true},
		{"allow=8.8.8.8,deny=8.8.8.8", "8.8.8.8", 1, false},

		// What needs a grant of its own.
		{"full", "10.1.2.3", 80, false}, {"full,allow=10.0.0.0/8", "10.1.2.3", 80, true}, {"full,allow=10.1.2.3:81", "10.1.2.3", 80, false},
		{"full,allow=0.0.0.0/0", "10.1.2.3", 80, false}, {"full,allow=8.0.0.0/5", "10.1.2.3", 80, false},
		{"full", "100.64.0.1", 80, false}, {"full", "172.16.0.1", 80, false}, {"full", "172.15.255.255", 80, true}, {"full", "172.32.0.0", 80, true},
		{"full", "169.254.169.254", 80, false}, {"full,allow=169.254.169.254", "169.254.169.254", 80, true},
		{"full", "192.0.0.1", 1, false}, {"full", "240.0.0.1", 1, false}, {"full", "0.1.2.3", 1, false},
		{"full", "fd00::1", 1, false}, {"full,allow=fd00::/8", "fd00::1", 1, true}, {"full", "fe80::1", 1, false}, {"full", "fec0::1", 1, false},
		{"full,allow=::/0", "fd00::1", 1, false},

		// What nothing grants.
		{"full,allow=127.0.0.0/8", "127.0.0.1", 1, false}, {"full,allow=127.0.0.1", "127.0.0.1", 1, false}, {"full,allow=::1", "::1", 1, false},
		{"full,allow=0.0.0.0", "0.0.0.0", 1, false}, {"full,allow=::", "::", 1, false}, {"full,allow=224.0.0.1", "224.0.0.1", 1, false},
		{"full,allow=ff02::1", "ff02::1", 1, false}, {"full,allow=255.255.255.255", "255.255.255.255", 1, false},
		{"full,allow=198.18.0.0/15", "198.18.0.1", 1, false}, {"full,allow=198.19.0.2", "198.19.0.2", 1, false},

		// The host itself, and its neighbours.
		{"full", "203.0.113.1", 22, false}, {"full,allow=203.0.113.0/24", "203.0.113.1", 22, false}, {"full,allow=203.0.113.1:22", "203.0.113.1", 22, true},
		{"full,allow=203.0.113.1:22", "203.0.113.1", 23, false},
		{"full", "192.0.2.9", 22, false}, {"full,allow=192.0.2.0/24", "192.0.2.9", 22, true}, {"full,allow=192.0.0.0/16", "192.0.2.9", 22, false},
		{"full,allow=192.0.2.0/24", "192.0.2.7", 22, false},
		{"full,allow=192.168.0.0/16", "192.168.1.5", 22, false}, {"full,allow=192.168.0.0/16", "192.168.1.6", 22, true},
		{"full", "2001:db8:1::9", 22, false}, {"full", "2001:db8:1::7", 22, false}, {"full", "2001:db8:2::7", 22, true},
		{"full,allow=2001:db8:1::9", "2001:db8:1::9", 22, true},

		// IPv4 in other clothes.
		{"full", "::ffff:127.0.0.1", 1, false}, {"full", "64:ff9b::127.0.0.1", 1, false}, {"full", "2002:7f00:1::", 1, false},
		{"full", "::ffff:10.0.0.1", 1, false}, {"full", "64:ff9b::10.0.0.1", 1, false}, {"full", "2002:a00:1::1", 1, false},
		{"full", "64:ff9b::8.8.8.8", 1, true}, {"full", "2002:808:808::1", 1, true}, {"full", "64:ff9b::203.0.113.1", 1, false},
		{"full", "::8.8.8.8", 1, false}, {"full", "::127.0.0.1", 1, false}, {"full", "64:ff9b:1::1", 1, false}, {"full", "2001::1", 1, false},
		{"full", "2002:c612:1::", 1, false},
	} {
		v := policy(t, test.policy).Addr(netip.MustParseAddr(test.addr), test.port, testHost)
		if v.Allowed != test.want || v.Allowed != (v.Reason == "") {
			t.Errorf("%s: Addr(%s, %d) = %+v, want %v", test.policy, test.addr, test.port, v, test.want)
		}
	}
	if v := policy(t, "full").Addr(netip.Addr{}, 1, testHost); v.Allowed {
		t.Error("no address is allowed")
	}
}

// TestDesign holds the list of design.md, section 5, against the tables here.
func TestDesign(t *testing.T) {
	for _, text := range []string{"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
		"192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3", "::/128", "::1/128", "fc00::/7", "fe80::/10", "ff00::/8"} {
		prefix := netip.MustParsePrefix(text)
		for _, addr := range []netip.Addr{prefix.Addr(), last(prefix)} {
			if policy(t, "full,allow=0.0.0.0/0,::/0").Addr(addr, 80, Host{}).Allowed {
				t.Errorf("%s of %s is allowed", addr, text)
			}
		}
	}
}

func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

func TestName(t *testing.T) {
	for _, test := range []struct {
		policy, name string
		port         uint16
		want, bound  bool
	}{
		{"full", "github.com", 443, true, false}, {"none", "github.com", 443, false, true},
		{"allow=github.com", "GitHub.com.", 443, true, true}, {"allow=github.com", "api.github.com", 443, false, true},
		{"allow=github.com", "notgithub.com", 443, false, true}, {"allow=github.com", "github.com.evil.example", 443, false, true},
		{"allow=*.pypi.org", "files.pypi.org", 443, true, true}, {"allow=*.pypi.org", "a.b.pypi.org", 443, true, true}, {"allow=*.pypi.org", "pypi.org", 443, false, true},
		{"allow=*.pypi.org", "evilpypi.org", 443, false, true},
		{"allow=*", "any.example", 1, true, true}, {"allow=*:443", "any.example", 80, false, true},
		{"allow=a.example:443", "a.example", 443, true, true}, {"allow=a.example:443", "a.example", 80, false, true}, {"allow=a.example:443", "a.example", 0, true, true},
		{"full,deny=evil.example", "evil.example", 443, false, true}, {"full,deny=evil.example", "www.evil.example", 443, true, false},
		{"full,deny=*.evil.example", "www.evil.example", 443, false, true},
		{"full,deny=evil.example:25", "evil.example", 443, true, true}, {"full,deny=evil.example:25", "evil.example", 25, false, true},
		{"full,deny=evil.example:25", "evil.example", 0, true, true},
		{"allow=a.example,deny=a.example", "a.example", 1, false, true}, {"allow=10.0.0.0/8", "a.example", 1, false, true},
		{"allow=vm:a,host:1", "a", 1, false, true},
	} {
		p := policy(t, test.policy)
		if v := p.Name(test.name, test.port); v.Allowed != test.want || v.Allowed != (v.Reason == "") {
			t.Errorf("%s: Name(%s, %d) = %+v, want %v", test.policy, test.name, test.port, v, test.want)
		}
		if got := p.Bound(CleanName(test.name)); got != test.bound {
			t.Errorf("%s: Bound(%s) = %v", test.policy, test.name, got)
		}
	}
}

func TestVMAndHost(t *testing.T) {
	p := policy(t, "full,allow=vm:db:5432,vm:web,host:8080")
	for _, test := range []struct {
		name string
		got  Verdict
		want bool
	}{
		{"vm port", p.VM("db", 5432), true}, {"vm other port", p.VM("db", 22), false}, {"vm look-up", p.VM("db", 0), true},
		{"vm any port", p.VM("web", 22), true}, {"other vm", p.VM("x", 22), false},
		{"host port", p.HostPort(8080), true}, {"other host port", p.HostPort(22), false}, {"host port 0", p.HostPort(0), false},
	} {
		if test.got.Allowed != test.want || test.want != (test.got.Reason == "") {
			t.Errorf("%s: %+v, want %v", test.name, test.got, test.want)
		}
	}
	if policy(t, "full,deny=8.8.8.8").Watched() || !policy(t, "full,deny=a").Watched() {
		t.Error("Watched is for denied names")
	}
}

func TestReadHost(t *testing.T) {
	host, err := ReadHost()
	if err != nil {
		t.Fatal(err)
	}
	if !host.Own(netip.MustParseAddr("127.0.0.1")) || !host.Own(netip.MustParseAddr("127.1.2.3")) {
		t.Errorf("the loopback is not the host's own: %+v", host)
	}
	if _, ok := host.Link(netip.MustParseAddr("8.8.8.8")); ok {
		t.Errorf("8.8.8.8 is on a link: %+v", host)
	}
	for _, r := range host.links {
		if strings.HasSuffix(r.String(), "/0") {
			t.Errorf("a link of everything: %v", r)
		}
	}
}

// FuzzAddr holds that no address outside of the internet is allowed by a policy that grants none, in any clothes.
func FuzzAddr(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1}, uint16(80))
	f.Add(netip.MustParseAddr("64:ff9b::127.0.0.1").AsSlice(), uint16(80))
	f.Add(netip.MustParseAddr("2002:7f00:1::").AsSlice(), uint16(1))
	open := policy(f, "full,allow=0.0.0.0/0,::/0")
	f.Fuzz(func(t *testing.T, b []byte, port uint16) {
		addr, ok := netip.AddrFromSlice(b)
		if !ok || !open.Addr(addr, port, testHost).Allowed {
			return
		}
		for _, a := range []netip.Addr{addr, addr.Unmap(), Unwrap(addr)} {
			_, link := testHost.Link(a)
			if a.IsLoopback() || a.IsPrivate() || a.IsMulticast() || a.IsUnspecified() || a.IsLinkLocalUnicast() || testHost.Own(a) || link {
				t.Fatalf("%s is allowed and is %s", addr, a)
			}
		}
	})
}
