// Package netstack is the user-mode network of one VM: it takes the Ethernet frames of the guest's card, speaks TCP/IP with
// the guest, and carries what the policy allows through sockets of the host.
//
// netstack.go holds the parts together; link.go takes the card's frames from its wire (wire.go) and puts them on it, dhcp.go and ping.go
// answer what needs no stack; tcp.go and udp.go forward connections, each kept as a flow (flow.go) while it lives; dns.go is the guest's resolver, which
// hands out addresses of its own for names that a rule is about (names.go). Decisions are package egress's.
package netstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"banger"
	"banger/internal/egress"
)

// MTU of the link. Nothing but the gateway is on it, so packets may be as large as IP has them.
const MTU = 65520

// Addresses of the link. Every VM has the same: its link ends here. They are of the range for benchmarks and of a private
// one of our own, so that they hide nothing a guest may want to reach.
var (
	Guest4   = netip.MustParsePrefix("198.19.0.2/24")
	Gateway4 = netip.MustParseAddr("198.19.0.1")
	Guest6   = netip.PrefixFrom(netip.MustParseAddr("fd62:616e:6765:7200::2"), egress.LinkPrefix6.Bits())
	Gateway6 = netip.MustParseAddr("fd62:616e:6765:7200::1")
)

var gatewayMAC = tcpip.LinkAddress("\x02bngr\x01")

// What the stack finds odd in packets of a guest is no news, and its text no line of our log.
func init() { log.SetTarget(log.GoogleEmitter{Writer: &log.Writer{Next: io.Discard}}) }

// Config wires a Stack.
type Config struct {
	Policy banger.NetPolicy
	// Log is told what is decided; it must not block.
	Log func(banger.NetEvent)
	// Ended is told, from any goroutine, when a connection has ended. Optional.
	Ended func()
	// Peer connects to a port of another VM.
	Peer func(ctx context.Context, vm string, port uint16) (net.Conn, error)
	// Servers are the resolvers that the guest's one asks. Optional: those of the host's resolv.conf.
	Servers func() ([]netip.AddrPort, error)
}

// Stack is the network of one VM. It takes memory from the guest's first frame on.
type Stack struct {
	cfg      Config
	policy   atomic.Pointer[egress.Policy]
	host     egress.HostReader
	names    names
	flows    flows
	resolver resolver
	patience time.Duration // with a guest that has asked for a connection and does not complete it

	life   context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu   sync.Mutex
	ip   *stack.Stack // nil before the first frame
	link *link
}

// New makes a Stack. It does no I/O.
func New(cfg Config) *Stack {
	if cfg.Log == nil {
		cfg.Log = func(banger.NetEvent) {}
	}
	if cfg.Servers == nil {
		cfg.Servers = hostServers(resolvConf)
	}
	if cfg.Ended == nil {
		cfg.Ended = func() {}
	}
	s := &Stack{cfg: cfg, patience: handshakeTimeout, flows: flows{open: map[*flow]bool{}, ended: cfg.Ended}}
	s.policy.Store(&egress.Policy{NetPolicy: cfg.Policy})
	s.resolver = resolver{servers: cfg.Servers, tokens: make(chan struct{}, maxQueries)}
	s.life, s.cancel = context.WithCancel(context.Background())
	return s
}

// Serve is the network of the card behind conn, a stream of Ethernet frames on a socket, until that or the Stack ends. It owns conn.
// One card at a time.
func (s *Stack) Serve(conn net.Conn) error {
	w, err := newWire(conn)
	if err != nil {
		return err
	}
	defer w.close()
	defer context.AfterFunc(s.life, w.hangUp)()
	l := newLink(w, s)
	s.mu.Lock()
	if s.link != nil {
		s.mu.Unlock()
		return &banger.Error{Kind: banger.ErrConflict, Op: "serve the network card", Err: errors.New("another one is served")}
	}
	s.link = l
	s.mu.Unlock()
	err = l.read()
	s.reset()
	if s.life.Err() != nil {
		return nil
	}
	return err
}

// reset ends all flows and the stack itself; the next card begins anew.
func (s *Stack) reset() {
	s.mu.Lock()
	ip := s.ip
	s.ip, s.link = nil, nil
	s.mu.Unlock()
	s.flows.closeAll()
	if ip != nil {
		ip.Destroy()
	}
}

// Close ends everything and waits for it.
func (s *Stack) Close() {
	s.cancel()
	s.flows.closeAll()
	s.work.Wait()
}

// Flows is how many connections are carried now.
func (s *Stack) Flows() int { return s.flows.count() }

// Traffic is what has been carried since New.
func (s *Stack) Traffic() banger.NetTraffic {
	return banger.NetTraffic{SentBytes: s.flows.sent.Load(), ReceivedBytes: s.flows.received.Load()}
}

// SetPolicy changes the policy. Flows that it does not allow end.
func (s *Stack) SetPolicy(p banger.NetPolicy) {
	policy := egress.Policy{NetPolicy: p}
	s.policy.Store(&policy)
	s.flows.judge(func(t target) bool { return s.verdict(&policy, t).Allowed })
}

// verdict judges a target again that was reached before: by what is known of it.
func (s *Stack) verdict(p *egress.Policy, t target) egress.Verdict {
	v := s.first(p, t)
	if !v.Allowed || !t.reached.IsValid() {
		return v
	}
	host, err := s.host.Get()
	if err != nil {
		return egress.Verdict{Reason: err.Error()}
	}
	return p.Resolved(t.reached, t.port, host)
}

// DialGuest connects to a port of the guest, as from the gateway.
func (s *Stack) DialGuest(ctx context.Context, port uint16) (*GuestConn, error) {
	ip, err := s.started()
	if err != nil {
		return nil, err
	}
	conn, err := gonet.DialTCPWithBind(ctx, ip, fullAddress(Gateway4, 0), fullAddress(Guest4.Addr(), port), ipv4.ProtocolNumber)
	if err != nil {
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "connect to the guest", Subject: fmt.Sprintf("port %d", port), Err: err}
	}
	return &GuestConn{TCPConn: conn, flows: &s.flows}, nil
}

// GuestConn is a connection into the guest; what goes through it is counted.
type GuestConn struct {
	*gonet.TCPConn
	flows *flows
}

func (c *GuestConn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.flows.sent.Add(int64(n))
	return n, err
}

func (c *GuestConn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	c.flows.received.Add(int64(n))
	return n, err
}

var errNoCard = &banger.Error{Kind: banger.ErrUnavailable, Op: "use the network", Err: errors.New("the VM has no network card connected")}

// started gives the stack, which is made when it is first needed.
func (s *Stack) started() (*stack.Stack, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return nil, errNoCard
	}
	if s.ip != nil {
		return s.ip, nil
	}
	ip, err := s.build(s.link)
	if err != nil {
		return nil, err
	}
	s.ip = ip
	return ip, nil
}

const nic = 1

// Limits of what a guest can make us hold. Beyond them connections are refused.
const (
	maxDialing = 512 // TCP connections that are being made
	maxTCP     = 2048
	maxUDP     = 1024
	minBuffer  = 4 << 10
	timeWait   = 5 * time.Second

	handshakeTimeout = 10 * time.Second // of a guest that has its turn late
	finWait          = 30 * time.Second
)

func (s *Stack) build(l *link) (*stack.Stack, error) {
	ip := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{arp.NewProtocol, ipv4.NewProtocol, newIPv6},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	var first tcpip.Error
	try := func(err tcpip.Error) {
		if first == nil {
			first = err
		}
	}
	set := func(option tcpip.SettableTransportProtocolOption) {
		try(ip.SetTransportProtocolOption(tcp.ProtocolNumber, option))
	}
	set(&tcpip.TCPSendBufferSizeRangeOption{Min: minBuffer, Default: bufferSizes[0].size, Max: bufferSizes[0].size})
	set(&tcpip.TCPReceiveBufferSizeRangeOption{Min: minBuffer, Default: bufferSizes[0].size, Max: bufferSizes[0].size})
	moderate, linger, wait := tcpip.TCPModerateReceiveBufferOption(false), tcpip.TCPLingerTimeoutOption(finWait), tcpip.TCPTimeWaitTimeoutOption(timeWait)
	sack := tcpip.TCPSACKEnabled(true)
	set(&moderate)
	set(&linger)
	set(&wait)
	set(&sack)
	try(ip.CreateNIC(nic, l))
	for _, gateway := range []netip.Addr{Gateway4, Gateway6} {
		bits := Guest4.Bits()
		if gateway.Is6() {
			bits = Guest6.Bits()
		}
		try(ip.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: protocolOf(gateway),
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(gateway.AsSlice()), PrefixLen: bits}}, stack.AddressProperties{}))
	}
	try(ip.SetSpoofing(nic, true))
	try(ip.SetPromiscuousMode(nic, true))
	ip.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic},
		{Destination: header.IPv6EmptySubnet, NIC: nic},
	})
	if first != nil {
		ip.Destroy()
		return nil, fmt.Errorf("set up the network stack: %s", first)
	}
	ip.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(ip, bufferSizes[0].size, maxDialing, s.acceptTCP).HandlePacket)
	ip.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(ip, s.acceptUDP).HandlePacket)
	if err := s.serveDNS(ip); err != nil {
		ip.Destroy()
		return nil, err
	}
	return ip, nil
}

// newIPv6 is IPv6 without the second of doubt whether another machine has the gateway's address: there is none.
func newIPv6(s *stack.Stack) stack.NetworkProtocol {
	return ipv6.NewProtocolWithOptions(ipv6.Options{DADConfigs: stack.DADConfigurations{}})(s)
}

func protocolOf(addr netip.Addr) tcpip.NetworkProtocolNumber {
	if addr.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func fullAddress(addr netip.Addr, port uint16) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFromSlice(addr.AsSlice()), Port: port}
}

func addrOf(addr tcpip.Address) netip.Addr {
	a, _ := netip.AddrFromSlice(addr.AsSlice())
	return a
}
