package netstack

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"banger"
	"banger/internal/egress"
)

const (
	dnsPort      = 53
	maxQueries   = 64 // answered at one time
	maxDNSConns  = 64
	dnsIdle      = 20 * time.Second
	fakeTTL      = 60 // seconds
	maxUDPAnswer = 1232
)

// serveDNS listens on the gateway's addresses.
func (s *Stack) serveDNS(ip *stack.Stack) error {
	for _, addr := range []netip.Addr{Gateway4, Gateway6} {
		at := fullAddress(addr, dnsPort)
		packets, err := gonet.DialUDP(ip, &at, nil, protocolOf(addr))
		if err != nil {
			return fmt.Errorf("listen for DNS: %w", err)
		}
		listener, err := gonet.ListenTCP(ip, at, protocolOf(addr))
		if err != nil {
			packets.Close()
			return fmt.Errorf("listen for DNS: %w", err)
		}
		go s.dnsPackets(packets)
		go s.dnsConns(listener)
	}
	return nil
}

func (s *Stack) dnsPackets(conn *gonet.UDPConn) {
	defer conn.Close()
	buf := make([]byte, dns.MaxMsgSize)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		query := new(dns.Msg)
		if query.Unpack(buf[:n]) != nil || query.Response {
			continue
		}
		select {
		case s.resolver.tokens <- struct{}{}:
		default:
			continue // the guest asks again
		}
		go func() {
			defer func() { <-s.resolver.tokens }()
			answer := s.answer(query, "udp")
			answer.Truncate(udpSize(query))
			if packed, err := answer.Pack(); err == nil {
				_, _ = conn.WriteTo(packed, from)
			}
		}()
	}
}

func udpSize(query *dns.Msg) int {
	if opt := query.IsEdns0(); opt != nil {
		return max(dns.MinMsgSize, int(opt.UDPSize()))
	}
	return dns.MinMsgSize
}

func (s *Stack) dnsConns(listener *gonet.TCPListener) {
	defer listener.Close()
	open := make(chan struct{}, maxDNSConns)
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		select {
		case open <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		go func() {
			defer func() { <-open }()
			defer conn.Close()
			s.dnsConn(conn)
		}()
	}
}

// dnsConn answers the queries of one connection, one after the other.
func (s *Stack) dnsConn(conn net.Conn) {
	for {
		conn.SetDeadline(time.Now().Add(dnsIdle))
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		message := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, message); err != nil {
			return
		}
		query := new(dns.Msg)
		if query.Unpack(message) != nil || query.Response {
			return
		}
		packed, err := s.answer(query, "tcp").Pack()
		if err != nil || len(packed) > dns.MaxMsgSize {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)); err != nil {
			return
		}
	}
}

// answer is what the guest's query gets.
func (s *Stack) answer(query *dns.Msg, proto string) *dns.Msg {
	if len(query.Question) != 1 || query.Opcode != dns.OpcodeQuery || query.Question[0].Qclass != dns.ClassINET {
		return reply(query, dns.RcodeNotImplemented)
	}
	q := query.Question[0]
	name := egress.CleanName(q.Name)
	policy := s.policy.Load()
	switch {
	case name == egress.HostName:
		return addressReply(query, Gateway4, Gateway6)
	case isVMName(name):
		if v := policy.VM(vmOf(name), 0); !v.Allowed {
			return s.refuse(query, name, v)
		}
		return addressReply(query, s.names.bind(name).fake)
	case q.Qtype == dns.TypePTR:
		return s.pointer(query, policy, proto)
	}
	if v := policy.Name(name, 0); !v.Allowed {
		return s.refuse(query, name, v)
	}
	if !policy.Bound(name) {
		return s.openAnswer(query, name, proto)
	}
	return s.boundAnswer(query, name, proto)
}

func (s *Stack) refuse(query *dns.Msg, name string, v egress.Verdict) *dns.Msg {
	s.cfg.Log(banger.NetEvent{Time: time.Now().UTC(), Verdict: banger.NetDenied, Proto: "dns", Name: name, Reason: v.Reason})
	answer := reply(query, dns.RcodeRefused)
	if opt := answer.IsEdns0(); opt != nil {
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeProhibited, ExtraText: "banger: " + v.Reason})
	}
	return answer
}

// reply is an empty answer with EDNS if the query has it.
func reply(query *dns.Msg, rcode int) *dns.Msg {
	m := new(dns.Msg)
	m.SetRcode(query, rcode)
	m.RecursionAvailable = true
	if query.IsEdns0() != nil {
		m.SetEdns0(maxUDPAnswer, false)
	}
	return m
}

// addressReply answers with those of addrs that are asked for.
func addressReply(query *dns.Msg, addrs ...netip.Addr) *dns.Msg {
	m := reply(query, dns.RcodeSuccess)
	q := query.Question[0]
	for _, addr := range addrs {
		head := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: fakeTTL}
		switch {
		case q.Qtype == dns.TypeA && addr.Is4():
			m.Answer = append(m.Answer, &dns.A{Hdr: head, A: addr.AsSlice()})
		case q.Qtype == dns.TypeAAAA && addr.Is6():
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: head, AAAA: addr.AsSlice()})
		}
	}
	return m
}

// openAnswer passes on what the host's resolver says, and remembers it for the log. A host without IPv6 has no use for its
// addresses.
func (s *Stack) openAnswer(query *dns.Msg, name, proto string) *dns.Msg {
	if query.Question[0].Qtype == dns.TypeAAAA && !hostHasIPv6() {
		return reply(query, dns.RcodeSuccess)
	}
	answer, err := s.resolver.ask(s.life, query, proto)
	if err != nil {
		return s.noAnswer(query, name, err)
	}
	for _, addr := range addresses(answer) {
		s.names.saw(addr, name)
	}
	return answer
}

func (s *Stack) noAnswer(query *dns.Msg, name string, err error) *dns.Msg {
	s.cfg.Log(banger.NetEvent{Time: time.Now().UTC(), Verdict: banger.NetFailed, Proto: "dns", Name: name, Reason: fmt.Sprintf("%.200v", err)})
	return reply(query, dns.RcodeServerFailure)
}

// boundAnswer gives a name an address of ours. Other records pass without what leads past it: addresses, and those that
// bring keys to hide the name of a TLS connection.
func (s *Stack) boundAnswer(query *dns.Msg, name, proto string) *dns.Msg {
	switch query.Question[0].Qtype {
	case dns.TypeA:
		b := s.names.bind(name)
		addrs, rcode, err := s.refresh(s.life, b)
		switch {
		case err != nil:
			return s.noAnswer(query, name, err)
		case len(addrs) == 0:
			return reply(query, rcode)
		}
		return addressReply(query, b.fake)
	case dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeANY:
		return reply(query, dns.RcodeSuccess)
	}
	answer, err := s.resolver.ask(s.life, query, proto)
	if err != nil {
		return s.noAnswer(query, name, err)
	}
	for _, section := range []*[]dns.RR{&answer.Answer, &answer.Ns, &answer.Extra} {
		*section = withoutAddresses(*section)
	}
	return answer
}

func withoutAddresses(list []dns.RR) []dns.RR {
	var rest []dns.RR
	for _, rr := range list {
		switch rr.Header().Rrtype {
		case dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB:
		default:
			rest = append(rest, rr)
		}
	}
	return rest
}

// pointer answers the question for an address's name: ours by what is bound, others by the host's resolver.
func (s *Stack) pointer(query *dns.Msg, policy *egress.Policy, proto string) *dns.Msg {
	q := query.Question[0]
	addr := reverseAddr(q.Name)
	if name, bound := s.names.lookup(addr); bound {
		m := reply(query, dns.RcodeSuccess)
		m.Answer = []dns.RR{&dns.PTR{Hdr: dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: fakeTTL}, Ptr: dns.Fqdn(name)}}
		return m
	}
	host, err := s.host.Get()
	if !addr.IsValid() || err != nil || !policy.Addr(addr, 0, host).Allowed {
		return reply(query, dns.RcodeNameError)
	}
	answer, err := s.resolver.ask(s.life, query, proto)
	if err != nil {
		return reply(query, dns.RcodeServerFailure)
	}
	return answer
}

// reverseAddr reads "4.3.2.1.in-addr.arpa."; the zero Addr for other names.
func reverseAddr(name string) netip.Addr {
	var b [4]byte
	labels := dns.SplitDomainName(name)
	if len(labels) != 6 || egress.CleanName(labels[4]+"."+labels[5]) != "in-addr.arpa" {
		return netip.Addr{}
	}
	for i := range b {
		var n int
		if _, err := fmt.Sscanf(labels[3-i], "%d", &n); err != nil || n < 0 || n > 255 {
			return netip.Addr{}
		}
		b[i] = byte(n)
	}
	return netip.AddrFrom4(b)
}
