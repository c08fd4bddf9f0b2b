// Package dns answers for the names of VMs: NAME.vm is the address of a running VM on this computer's loopback.
//
// It is authoritative for vm and nothing else: a name in it that no VM has does not exist, any other name is refused, so that a
// resolver which asks here by mistake asks elsewhere.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"banger"
)

const (
	// Zone is what the server is authoritative for.
	Zone = "vm."
	// DefaultPort is where resolvers are told to ask.
	DefaultPort = 42069

	ttl         = 5 // seconds: a VM may stop
	maxLookups  = 64
	lookTimeout = 3 * time.Second
	ioTimeout   = 5 * time.Second
	// forever is how long the next datagram may take: each end of that time would wake an idle daemon.
	forever = 1000 * time.Hour
)

// Config wires a Server.
type Config struct {
	// Lookup gives the address of the running VM of that name. It may make the VM reachable there. Errors: ErrNotFound.
	Lookup func(ctx context.Context, name string) (netip.Addr, error)
	Log    *slog.Logger
}

// Server answers over UDP and TCP on one address.
type Server struct {
	Config
	address string
	udp     *dns.Server
	tcp     *dns.Server
	slots   chan struct{}
}

// Listen begins to answer on 127.0.0.1 and port, or on another port when that is taken: see [Server.Address].
func Listen(cfg Config, port int) (*Server, error) {
	s := &Server{Config: cfg, slots: make(chan struct{}, maxLookups)}
	packets, listener, err := bind(port)
	if err != nil {
		packets, listener, err = bind(0)
	}
	if err != nil {
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "answer for .vm names", Err: err}
	}
	s.address = listener.Addr().String()
	s.udp = &dns.Server{PacketConn: packets, Handler: s, ReadTimeout: forever, WriteTimeout: ioTimeout}
	s.tcp = &dns.Server{Listener: listener, Handler: s, ReadTimeout: ioTimeout, WriteTimeout: ioTimeout}
	for _, server := range []*dns.Server{s.udp, s.tcp} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		ended := make(chan error, 1)
		go func() { ended <- server.ActivateAndServe() }()
		select {
		case <-started:
		case err := <-ended:
			return nil, errors.Join(err, packets.Close(), listener.Close())
		}
	}
	return s, nil
}

// bind takes one port for both protocols.
func bind(port int) (net.PacketConn, net.Listener, error) {
	var failed error
	for range 10 {
		listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return nil, nil, err
		}
		packets, err := net.ListenPacket("udp4", listener.Addr().String())
		if err == nil {
			return packets, listener, nil
		}
		listener.Close()
		failed = err
		if port != 0 {
			break
		}
	}
	return nil, nil, failed
}

// Address is where the server answers.
func (s *Server) Address() string { return s.address }

// Close ends answering.
func (s *Server) Close() error { return errors.Join(s.udp.Shutdown(), s.tcp.Shutdown()) }

// ServeDNS answers one message.
func (s *Server) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return // who asks again is answered then
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	if err := w.WriteMsg(s.answer(ctx, query)); err != nil {
		s.Log.Debug("answer for .vm names", "err", err)
	}
}

func (s *Server) answer(ctx context.Context, query *dns.Msg) *dns.Msg {
	reply := new(dns.Msg)
	if query.Opcode != dns.OpcodeQuery {
		return reply.SetRcode(query, dns.RcodeNotImplemented)
	}
	if len(query.Question) != 1 {
		return reply.SetRcode(query, dns.RcodeFormatError)
	}
	reply.SetReply(query)
	if opt := query.IsEdns0(); opt != nil {
		reply.SetEdns0(dns.MinMsgSize, false)
	}
	q := query.Question[0]
	if name := dns.CanonicalName(q.Name); q.Qclass != dns.ClassINET || !dns.IsSubDomain(Zone, name) {
		reply.Rcode = dns.RcodeRefused
	} else {
		reply.Authoritative = true
		s.fill(ctx, reply, q, name)
	}
	return reply
}

// fill answers a question about the zone.
func (s *Server) fill(ctx context.Context, reply *dns.Msg, q dns.Question, name string) {
	head := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: q.Name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
	}
	if name == Zone {
		switch q.Qtype {
		case dns.TypeSOA:
			reply.Answer = []dns.RR{soa()}
		case dns.TypeNS:
			reply.Answer = []dns.RR{&dns.NS{Hdr: head(dns.TypeNS), Ns: "localhost."}}
		default:
			reply.Ns = []dns.RR{soa()}
		}
		return
	}
	address, err := s.Lookup(ctx, strings.TrimSuffix(name, "."+Zone))
	switch {
	case errors.Is(err, banger.ErrNotFound):
		reply.Rcode = dns.RcodeNameError
		reply.Ns = []dns.RR{soa()}
	case err != nil:
		reply.Rcode = dns.RcodeServerFailure
		s.Log.Warn("look up a VM's address", "name", name, "err", err)
	case q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY:
		reply.Answer = []dns.RR{&dns.A{Hdr: head(dns.TypeA), A: address.AsSlice()}}
	default:
		reply.Ns = []dns.RR{soa()}
	}
}

// soa also says how long an answer that there is no such name holds.
func soa() dns.RR {
	return &dns.SOA{Hdr: dns.RR_Header{Name: Zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns: "localhost.", Mbox: "nobody.localhost.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl}
}
