package netstack

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"banger"
	"banger/internal/testenv"
)

// patience is far more than anything takes here.
const patience = 60 * time.Second

// guest is a machine with a TCP/IP of its own at the other end of a Stack's wire.
type guest struct {
	t     testing.TB
	net   *Stack
	ip    *stack.Stack
	wire  net.Conn
	ended chan error                              // of Serve
	loses atomic.Pointer[func(frame []byte) bool] // what does not arrive; nil: nothing

	mu     sync.Mutex
	events []banger.NetEvent
	more   chan struct{} // closed with each new event
}

func newGuest(t testing.TB, policy string) *guest {
	t.Helper()
	p, err := banger.ParseNetPolicy(policy)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, ended: make(chan error, 1), more: make(chan struct{})}
	g.net = New(Config{Policy: p, Log: g.record, Peer: testPeer, Servers: worldServers})
	g.plug()
	t.Cleanup(func() {
		g.wire.Close()
		g.net.Close()
		g.ip.Destroy()
	})
	return g
}

// plug connects a card to the Stack.
func (g *guest) plug() {
	g.t.Helper()
	ours, theirs := testenv.SocketPair(g.t)
	g.wire = ours
	go func() { g.ended <- g.net.Serve(theirs) }()
	g.ip = guestStack(g.t, ours, func(frame []byte) bool {
		loses := g.loses.Load()
		return loses != nil && (*loses)(frame)
	})
	g.eventually("the card is served", func() bool {
		g.net.mu.Lock()
		defer g.net.mu.Unlock()
		return g.net.link != nil
	})
}

func (g *guest) eventually(what string, holds func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func guestStack(t testing.TB, wire net.Conn, loses func([]byte) bool) *stack.Stack {
	t.Helper()
	ip := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{arp.NewProtocol, ipv4.NewProtocol, newIPv6},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	ep := channel.New(4096, MTU, "\x52\x54\x00\x01\x02\x03")
	ep.LinkEPCapabilities = stack.CapabilityResolutionRequired
	card := ethernet.New(ep)
	if err := ip.CreateNIC(nic, card); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []netip.Prefix{Guest4, Guest6} {
		if err := ip.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: protocolOf(prefix.Addr()),
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(prefix.Addr().AsSlice()), PrefixLen: prefix.Bits()}}, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
	}
	ip.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, Gateway: tcpip.AddrFromSlice(Gateway4.AsSlice()), NIC: nic},
		{Destination: header.IPv6EmptySubnet, Gateway: tcpip.AddrFromSlice(Gateway6.AsSlice()), NIC: nic},
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for pkt := ep.ReadContext(ctx); pkt != nil; pkt = ep.ReadContext(ctx) {
			frame := pkt.ToView().AsSlice()
			if _, err := wire.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)); err != nil {
				return
			}
		}
	}()
	go func() {
		defer cancel()
		for r := bufio.NewReader(wire); ; {
			frame, err := readFrame(r)
			if err != nil {
				return
			}
			if loses(frame) {
				continue
			}
			pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
			ep.InjectInbound(0, pkt)
			pkt.DecRef()
		}
	}()
	return ip
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [lengthSize]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(r, frame)
	return frame, err
}

func (g *guest) record(e banger.NetEvent) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events = append(g.events, e)
	close(g.more)
	g.more = make(chan struct{})
}

// await waits for an event of this verdict and target, and gives it.
func (g *guest) await(verdict, target string) banger.NetEvent {
	g.t.Helper()
	for timeout := time.After(patience); ; {
		g.mu.Lock()
		for _, e := range g.events {
			if e.Verdict == verdict && e.Target() == target {
				g.mu.Unlock()
				return e
			}
		}
		more, all := g.more, slices.Clone(g.events)
		g.mu.Unlock()
		select {
		case <-more:
		case <-timeout:
			g.t.Fatalf("no event %s %s among %+v", verdict, target, all)
		}
	}
}

// dial connects by TCP to an address or a name.
func (g *guest) dial(host string, port uint16) (*gonet.TCPConn, error) {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		answer := g.lookup(host, dns.TypeA)
		addrs := addresses(answer)
		if len(addrs) == 0 {
			return nil, fmt.Errorf("look-up of %s: %s, no address", host, dns.RcodeToString[answer.Rcode])
		}
		addr = addrs[0]
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := gonet.DialContextTCP(ctx, g.ip, fullAddress(addr, port), protocolOf(addr))
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	return conn, nil
}

func (g *guest) mustDial(host string, port uint16) *gonet.TCPConn {
	g.t.Helper()
	conn, err := g.dial(host, port)
	if err != nil {
		g.t.Fatalf("dial %s port %d: %v", host, port, err)
	}
	g.t.Cleanup(func() { conn.Close() })
	return conn
}

// refused wants a connection to be refused, not lost.
func (g *guest) refused(host string, port uint16) {
	g.t.Helper()
	conn, err := g.dial(host, port)
	if err == nil {
		conn.Close()
		g.t.Errorf("%s port %d is reached", host, port)
		return
	}
	if !strings.Contains(err.Error(), "refused") && !strings.Contains(err.Error(), "no address") {
		g.t.Errorf("%s port %d: %v, want a refusal", host, port, err)
	}
}

// echoes sends text and wants it back.
func echoes(t testing.TB, conn net.Conn, text string) {
	t.Helper()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("echo = %.40q, %v, want %.40q", got, err, text)
	}
}

func (g *guest) udp(host string, port uint16) *gonet.UDPConn {
	g.t.Helper()
	addr := netip.MustParseAddr(host)
	to := fullAddress(addr, port)
	conn, err := gonet.DialUDP(g.ip, nil, &to, protocolOf(addr))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// refusedUDP sends a datagram until the answer is that nobody takes it.
func (g *guest) refusedUDP(host string, port uint16, text string) {
	g.t.Helper()
	conn := g.udp(host, port)
	g.eventually("UDP to "+host+" is refused", func() bool {
		_, err := io.WriteString(conn, text)
		return err != nil && strings.Contains(err.Error(), "refused")
	})
}

func (g *guest) lookup(name string, kind uint16) *dns.Msg {
	g.t.Helper()
	query := new(dns.Msg)
	query.SetQuestion(dns.Fqdn(name), kind)
	return g.ask(query, "udp")
}

func (g *guest) ask(query *dns.Msg, proto string) *dns.Msg {
	g.t.Helper()
	var conn net.Conn = g.udp(Gateway4.String(), dnsPort)
	if proto == "tcp" {
		conn = g.mustDial(Gateway4.String(), dnsPort)
	}
	c := &dns.Conn{Conn: conn, UDPSize: dns.MaxMsgSize}
	if err := c.WriteMsg(query); err != nil {
		g.t.Fatal(err)
	}
	answer, err := c.ReadMsg()
	if err != nil {
		g.t.Fatalf("look-up of %v: %v", query.Question, err)
	}
	return answer
}

func (g *guest) listen(port uint16) net.Listener {
	g.t.Helper()
	l, err := gonet.ListenTCP(g.ip, fullAddress(Guest4.Addr(), port), ipv4.ProtocolNumber)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { l.Close() })
	return l
}
