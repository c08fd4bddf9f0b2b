package netstack

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"banger"
	"banger/internal/testenv"
)

func TestDNS(t *testing.T) {
	g := newGuest(t, "full")
	for _, test := range []struct {
		name  string
		kind  uint16
		rcode int
		want  string // in the first answer
	}{
		{"www.example.test", dns.TypeA, 0, originAddr}, {"www.example.test", dns.TypeAAAA, 0, originAddr6}, {"www.example.test", dns.TypeTXT, 0, "hello"},
		{"www.example.test", dns.TypeHTTPS, 0, "ech"}, {"nothing.example.test", dns.TypeA, dns.RcodeNameError, ""}, {"fail.example.test", dns.TypeA, dns.RcodeServerFailure, ""},
		{"host.banger", dns.TypeA, 0, Gateway4.String()}, {"db.vm", dns.TypeA, dns.RcodeRefused, ""},
		{"1.1.0.10.in-addr.arpa", dns.TypePTR, dns.RcodeNameError, ""},
	} {
		for _, proto := range []string{"udp", "tcp"} {
			query := new(dns.Msg)
			query.SetQuestion(dns.Fqdn(test.name), test.kind)
			answer := g.ask(query, proto)
			first := ""
			if len(answer.Answer) > 0 {
				first = answer.Answer[0].String()
			}
			if answer.Rcode != test.rcode || !strings.Contains(first, test.want) || (test.want == "") != (first == "") || answer.Id != query.Id {
				t.Errorf("%s %s by %s: %v", test.name, dns.TypeToString[test.kind], proto, answer)
			}
		}
	}
	if answer := g.lookup("big.example.test", dns.TypeA); !answer.Truncated {
		t.Errorf("a large answer by UDP: %d records", len(answer.Answer))
	}
	query := new(dns.Msg)
	query.SetQuestion("big.example.test.", dns.TypeA)
	if answer := g.ask(query, "tcp"); answer.Truncated || len(answer.Answer) != 100 {
		t.Errorf("a large answer by TCP: %d records", len(answer.Answer))
	}
	query.Opcode = dns.OpcodeUpdate
	if answer := g.ask(query, "udp"); answer.Rcode != dns.RcodeNotImplemented {
		t.Errorf("an update: %v", answer)
	}
	g.await(banger.NetFailed, "fail.example.test")
}

func TestBoundDNS(t *testing.T) {
	g := newGuest(t, "allow=*.example.test,vm:db")
	first := addresses(g.lookup("www.example.test", dns.TypeA))
	if len(first) != 1 || !namePool.Contains(first[0]) {
		t.Fatalf("addresses %v", first)
	}
	if again := addresses(g.lookup("WWW.example.test", dns.TypeA)); !slices.Equal(again, first) {
		t.Errorf("addresses %v, then %v", first, again)
	}
	if vm := addresses(g.lookup("db.vm", dns.TypeA)); len(vm) != 1 || !namePool.Contains(vm[0]) || vm[0] == first[0] {
		t.Errorf("db.vm: %v", vm)
	}
	for _, kind := range []uint16{dns.TypeAAAA, dns.TypeHTTPS, dns.TypeANY} {
		if answer := g.lookup("www.example.test", kind); answer.Rcode != 0 || len(answer.Answer) > 0 {
			t.Errorf("%s: %v", dns.TypeToString[kind], answer)
		}
	}
	if answer := g.lookup("www.example.test", dns.TypeTXT); len(answer.Answer) != 1 {
		t.Errorf("TXT: %v", answer)
	}
	if answer := g.lookup("six.example.test", dns.TypeA); len(addresses(answer)) != 1 {
		t.Errorf("a name with an IPv6 address only: %v", answer)
	}
	echoes(t, g.mustDial("six.example.test", portEcho), "by IPv6")
	reverse := fmt.Sprintf("%d.%d.18.198.in-addr.arpa", first[0].As4()[3], first[0].As4()[2])
	if answer := g.lookup(reverse, dns.TypePTR); len(answer.Answer) != 1 || !strings.HasSuffix(answer.Answer[0].String(), "www.example.test.") {
		t.Errorf("PTR: %v", answer)
	}
	query := new(dns.Msg)
	query.SetQuestion("evil.example.", dns.TypeA)
	query.SetEdns0(1232, false)
	if answer := g.ask(query, "udp"); answer.Rcode != dns.RcodeRefused || !strings.Contains(answer.String(), "no rule allows it") {
		t.Errorf("a name that no rule allows: %v", answer)
	}
}

func TestNames(t *testing.T) {
	var n names
	first := n.bind("first").fake
	given := map[netip.Addr]bool{first: true}
	for i := range maxBound {
		fake := n.bind(fmt.Sprintf("name%d", i)).fake
		if given[fake] || !namePool.Contains(fake) {
			t.Fatalf("address %s is given twice", fake)
		}
		given[fake] = true
	}
	if name, bound := n.lookup(first); bound {
		t.Errorf("%s is still %q: the names are not bounded", first, name)
	}
	if name, bound := n.lookup(n.bind("name7").fake); name != "name7" || !bound {
		t.Errorf("lookup = %q, %v", name, bound)
	}
	for i := range 3 * poolSize {
		n.bind(fmt.Sprint(i))
	}
	if len(n.addrs) != maxBound || len(n.bound.items) != maxBound {
		t.Errorf("%d and %d bindings", len(n.addrs), len(n.bound.items))
	}
	n.saw(netip.MustParseAddr("203.0.113.1"), "seen")
	for i := range maxSeen {
		n.saw(netip.AddrFrom4([4]byte{1, 2, byte(i >> 8), byte(i)}), "other")
	}
	if name, _ := n.lookup(netip.MustParseAddr("203.0.113.1")); name != "" || len(n.seen.items) != maxSeen {
		t.Errorf("seen %q of %d", name, len(n.seen.items))
	}
}

func TestHostServers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	servers := hostServers(path)
	if _, err := servers(); err == nil {
		t.Error("no file is no error")
	}
	if err := os.WriteFile(path, []byte("# comment\nsearch x\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver ::1\noptions edns0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.53:53"), netip.MustParseAddrPort("[fe80::1%eth0]:53"), netip.MustParseAddrPort("[::1]:53")}
	if got, err := servers(); err != nil || !slices.Equal(got, want) {
		t.Errorf("servers = %v, %v, want %v", got, err, want)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	time.Sleep(0)
	if got, err := servers(); err != nil || !slices.Equal(got, want) {
		t.Errorf("servers without the file = %v, %v", got, err)
	}
}

// Under an allow list data leaves neither in the questions for names that no rule allows, which nobody is asked, nor by another resolver.
func TestNoTunnel(t *testing.T) {
	g := newGuest(t, "allow=www.example.test")
	upstream, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 100)
	server := &dns.Server{PacketConn: upstream, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		asked <- query.Question[0].Name
		w.WriteMsg(new(dns.Msg).SetRcode(query, dns.RcodeNameError))
	})}
	go server.ActivateAndServe()
	defer server.Shutdown()
	g.net.resolver.servers = func() ([]netip.AddrPort, error) {
		return []netip.AddrPort{upstream.LocalAddr().(*net.UDPAddr).AddrPort()}, nil
	}
	for _, name := range []string{"c2VjcmV0.evil.example", "c2VjcmV0.www.example.test", "example.test", "test", ".", "wwwXexample.test"} {
		for _, kind := range []uint16{dns.TypeA, dns.TypeTXT, dns.TypeNULL, dns.TypeMX, dns.TypeHTTPS, dns.TypeANY} {
			if answer := g.lookup(name, kind); answer.Rcode != dns.RcodeRefused {
				t.Errorf("%s %s: %v", name, dns.TypeToString[kind], answer)
			}
		}
	}
	g.lookup("www.example.test", dns.TypeTXT) // what is allowed is asked for
	if len(asked) == 0 {
		t.Error("what is allowed is not asked for either")
	}
	for len(asked) > 0 {
		if name := <-asked; name != "www.example.test." {
			t.Errorf("%q is asked for elsewhere", name)
		}
	}
	for _, port := range []uint16{53, 853, 443} {
		g.refused(testenv.DNSAddr, port)
		g.refusedUDP(testenv.DNSAddr, port, "\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x00\x00\x01\x00\x01")
	}
}
