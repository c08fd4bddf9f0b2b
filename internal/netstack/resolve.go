package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"

	"banger"
)

const (
	resolvConf = "/etc/resolv.conf"
	askTimeout = 3 * time.Second // one server, one try
	askTries   = 2               // of all servers
	minTTL     = 5 * time.Second
	maxTTL     = 5 * time.Minute
)

// resolver asks the host's resolvers.
type resolver struct {
	servers func() ([]netip.AddrPort, error)
	tokens  chan struct{} // queries of the guest at one time
}

// hostServers reads the host's resolvers from a resolv.conf, again when it has changed; they last when it cannot be read.
func hostServers(path string) func() ([]netip.AddrPort, error) {
	var mu sync.Mutex
	var last []netip.AddrPort
	var read time.Time
	return func() ([]netip.AddrPort, error) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(read) < time.Second {
			return last, nil
		}
		conf, err := dns.ClientConfigFromFile(path)
		if err != nil && last == nil {
			return nil, err
		}
		if err != nil {
			return last, nil
		}
		var list []netip.AddrPort
		for _, text := range conf.Servers {
			if addr, err := netip.ParseAddr(text); err == nil {
				list = append(list, netip.AddrPortFrom(addr, dnsPort))
			}
		}
		last, read = list, time.Now()
		return last, nil
	}
}

// ask passes a query on, over the transport that the guest used, and gives the answer as one to that query.
func (r *resolver) ask(ctx context.Context, query *dns.Msg, proto string) (*dns.Msg, error) {
	servers, err := r.servers()
	if err != nil {
		return nil, err
	}
	if len(servers) == 0 {
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "resolve names", Err: errors.New("the host has no resolver in " + resolvConf)}
	}
	out := query.Copy()
	out.Id = dns.Id()
	client := dns.Client{Net: proto, Timeout: askTimeout, UDPSize: dns.MaxMsgSize}
	var errs []error
	for range askTries {
		for _, server := range servers {
			answer, _, err := client.ExchangeContext(ctx, out, server.String())
			if err == nil && (len(answer.Question) != 1 || answer.Question[0] != out.Question[0]) {
				err = errors.New("the resolver answers another question")
			}
			if err == nil && answer.Rcode != dns.RcodeServerFailure {
				answer.Id = query.Id
				return answer, nil
			}
			if err == nil {
				err = errors.New("the resolver fails")
			}
			errs = append(errs, err)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
	return nil, errors.Join(errs...)
}

// addresses are those of an answer.
func addresses(m *dns.Msg) []netip.Addr {
	var list []netip.Addr
	for _, rr := range m.Answer {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if addr, ok := netip.AddrFromSlice(ip); ok {
			list = append(list, addr.Unmap())
		}
	}
	return list
}

// resolve gives the addresses of a bound name. Errors: ErrNotFound when it has none.
func (s *Stack) resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	addrs, _, err := s.refresh(ctx, s.names.bind(name))
	if err == nil && len(addrs) == 0 {
		err = &banger.Error{Kind: banger.ErrNotFound, Op: "resolve", Subject: name, Err: errors.New("the name has no address")}
	}
	return addrs, err
}

// refresh gives the addresses behind a binding as its name server says, not older than that allows. When there are none,
// rcode says why.
func (s *Stack) refresh(ctx context.Context, b *binding) (addrs []netip.Addr, rcode int, err error) {
	select {
	case <-b.turn:
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	defer func() { b.turn <- struct{}{} }()
	if time.Now().Before(b.expires) {
		return b.real, dns.RcodeSuccess, nil
	}
	ttl := maxTTL
	types := []uint16{dns.TypeA}
	if hostHasIPv6() {
		types = append(types, dns.TypeAAAA)
	}
	for _, kind := range types {
		query := new(dns.Msg)
		query.SetQuestion(dns.Fqdn(b.name), kind)
		query.SetEdns0(maxUDPAnswer, false)
		answer, err := s.resolver.ask(ctx, query, "udp")
		if err == nil && answer.Truncated {
			answer, err = s.resolver.ask(ctx, query, "tcp")
		}
		if err != nil {
			return nil, 0, err
		}
		rcode = answer.Rcode
		addrs = append(addrs, addresses(answer)...)
		for _, rr := range answer.Answer {
			ttl = min(ttl, time.Duration(rr.Header().Ttl)*time.Second)
		}
		if rcode != dns.RcodeSuccess {
			break
		}
	}
	if len(addrs) > 0 {
		b.real, b.expires = addrs, time.Now().Add(max(ttl, minTTL))
	}
	return addrs, rcode, nil
}

// hostHasIPv6 tells whether the host has a way to the internet by IPv6: connecting a UDP socket sends nothing.
func hostHasIPv6() bool {
	conn, err := net.Dial("udp6", "[2000::1]:9")
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
