package dns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"banger"
	"banger/internal/testenv"
)

var devbox = netip.MustParseAddr("127.88.1.2")

func lookup(_ context.Context, name string) (netip.Addr, error) {
	switch name {
	case "devbox":
		return devbox, nil
	case "broken":
		return netip.Addr{}, banger.ErrUnavailable
	}
	return netip.Addr{}, banger.ErrNotFound
}

func newServer(t *testing.T, port int) *Server {
	t.Helper()
	s, err := Listen(Config{Lookup: lookup, Log: slog.New(slog.DiscardHandler)}, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestServer(t *testing.T) {
	s := newServer(t, 0)
	for _, tc := range []struct {
		name   string
		kind   uint16
		rcode  int
		answer string // of the first record
	}{
		{"devbox.vm.", dns.TypeA, dns.RcodeSuccess, devbox.String()},
		{"DevBox.VM.", dns.TypeA, dns.RcodeSuccess, devbox.String()},
		{"devbox.vm.", dns.TypeAAAA, dns.RcodeSuccess, ""},
		{"devbox.vm.", dns.TypeMX, dns.RcodeSuccess, ""},
		{"nobody.vm.", dns.TypeA, dns.RcodeNameError, ""},
		{"www.devbox.vm.", dns.TypeA, dns.RcodeNameError, ""},
		{"broken.vm.", dns.TypeA, dns.RcodeServerFailure, ""},
		{"vm.", dns.TypeA, dns.RcodeSuccess, ""},
		{"vm.", dns.TypeSOA, dns.RcodeSuccess, "localhost."},
		{"vm.", dns.TypeNS, dns.RcodeSuccess, "localhost."},
		{"example.org.", dns.TypeA, dns.RcodeRefused, ""},
		{"xvm.", dns.TypeA, dns.RcodeRefused, ""},
		{".", dns.TypeNS, dns.RcodeRefused, ""},
	} {
		for _, network := range []string{"udp", "tcp"} {
			query := new(dns.Msg).SetQuestion(tc.name, tc.kind)
			query.SetEdns0(1232, false)
			client := dns.Client{Net: network}
			reply, _, err := client.Exchange(query, s.Address())
			if err != nil {
				t.Fatalf("%s %s: %v", network, tc.name, err)
			}
			if reply.Rcode != tc.rcode || reply.Authoritative != (tc.rcode != dns.RcodeRefused) || reply.RecursionAvailable {
				t.Errorf("%s %s %s = %v, want %s", network, tc.name, dns.TypeToString[tc.kind], reply, dns.RcodeToString[tc.rcode])
			}
			if got := len(reply.Answer) > 0; got != (tc.answer != "") || got && !strings.Contains(reply.Answer[0].String(), tc.answer) {
				t.Errorf("%s %s answers %v, want %q", network, tc.name, reply.Answer, tc.answer)
			}
		}
	}
}

func TestPortTaken(t *testing.T) {
	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	_, text, _ := net.SplitHostPort(packets.LocalAddr().String())
	port, _ := strconv.Atoi(text)
	s := newServer(t, port)
	if s.Address() == packets.LocalAddr().String() || !strings.HasPrefix(s.Address(), "127.0.0.1:") {
		t.Errorf("with its port taken the server is on %s", s.Address())
	}
}

// Whatever is asked, the reply packs, belongs to the question, and says nothing about names outside of the zone.
func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"devbox.vm.", "example.org.", "vm.", "."} {
		wire, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	s := &Server{Config: Config{Lookup: lookup, Log: slog.New(slog.DiscardHandler)}}
	f.Fuzz(func(t *testing.T, wire []byte) {
		var query dns.Msg
		if query.Unpack(wire) != nil {
			return
		}
		reply := s.answer(t.Context(), &query)
		if _, err := reply.Pack(); err != nil {
			t.Fatalf("the reply to %v does not pack: %v", &query, err)
		}
		if reply.Id != query.Id || !reply.Response {
			t.Errorf("the reply to %v is %v", &query, reply)
		}
		for _, rr := range append(reply.Answer, reply.Ns...) {
			if !dns.IsSubDomain(Zone, dns.CanonicalName(rr.Header().Name)) {
				t.Errorf("the reply to %v has %v", &query, rr)
			}
		}
	})
}

// BIND's own client takes the answers without a complaint.
func TestDig(t *testing.T) {
	dig := testenv.RequireTool(t, "dig")
	s := newServer(t, 0)
	_, port, _ := net.SplitHostPort(s.Address())
	for _, tc := range []struct{ args, want string }{
		{"devbox.vm A", "status: NOERROR"}, {"devbox.vm A", "IN\tA\t" + devbox.String()}, {"devbox.vm AAAA", "IN\tSOA\t"}, {"nobody.vm", "status: NXDOMAIN"},
		{"+tcp devbox.vm", devbox.String()}, {"+dnssec +bufsize=4096 devbox.vm", devbox.String()}, {"+cookie devbox.vm", devbox.String()},
		{"+noedns devbox.vm", devbox.String()}, {"vm SOA", "localhost. nobody.localhost."}, {"example.org", "status: REFUSED"},
		{"-c CH version.bind TXT", "status: REFUSED"}, {"+noedns +opcode=UPDATE devbox.vm", "status: NOTIMP"}, {"vm AXFR", "Transfer failed"},
	} {
		out, err := exec.Command(dig, append([]string{"@127.0.0.1", "-p", port, "+tries=1", "+norecurse"}, strings.Fields(tc.args)...)...).CombinedOutput()
		text := string(out)
		if err != nil && !strings.Contains(tc.args, "AXFR") || !strings.Contains(text, tc.want) || strings.Contains(text, "WARNING") {
			t.Errorf("dig %s: %v, want %q\n%s", tc.args, err, tc.want, text)
		}
	}
}
