package netstack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"banger"
	"banger/internal/testenv"
)

const guestMAC = tcpip.LinkAddress("\x52\x54\x00\x01\x02\x03")

// rawGuest writes and reads frames by hand.
type rawGuest struct {
	*guest
}

func newRawGuest(t testing.TB, policy string) *rawGuest {
	t.Helper()
	p, err := banger.ParseNetPolicy(policy)
	if err != nil {
		t.Fatal(err)
	}
	g := &rawGuest{&guest{t: t, ended: make(chan error, 1), more: make(chan struct{})}}
	g.net = New(Config{Policy: p, Log: g.record, Servers: worldServers})
	ours, theirs := testenv.SocketPair(t)
	g.wire = ours
	go func() { g.ended <- g.net.Serve(theirs) }()
	t.Cleanup(func() {
		g.wire.Close()
		g.net.Close()
	})
	return g
}

func (g *rawGuest) send(frame []byte) {
	g.t.Helper()
	g.wire.SetDeadline(time.Now().Add(patience))
	if _, err := g.wire.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)); err != nil {
		g.t.Fatal(err)
	}
}

// receive gives the next frame that matches; ARP requests are answered on the way.
func (g *rawGuest) receive(what string, matches func(frame []byte) bool) []byte {
	g.t.Helper()
	g.wire.SetDeadline(time.Now().Add(patience))
	for {
		frame, err := readFrame(g.wire)
		if err != nil {
			g.t.Fatalf("no %s: %v", what, err)
		}
		if matches(frame) {
			return frame
		}
		if header.Ethernet(frame).Type() == header.ARPProtocolNumber && header.ARP(frame[14:]).Op() == header.ARPRequest {
			g.send(arpFrame(header.ARPReply, Guest4.Addr(), Gateway4))
		}
	}
}

func arpFrame(op header.ARPOp, sender, target netip.Addr) []byte {
	frame := make([]byte, header.EthernetMinimumSize+header.ARPSize)
	header.Ethernet(frame).Encode(&header.EthernetFields{SrcAddr: guestMAC, DstAddr: gatewayMAC, Type: header.ARPProtocolNumber})
	a := header.ARP(frame[header.EthernetMinimumSize:])
	a.SetIPv4OverEthernet()
	a.SetOp(op)
	copy(a.HardwareAddressSender(), guestMAC)
	copy(a.ProtocolAddressSender(), sender.AsSlice())
	copy(a.ProtocolAddressTarget(), target.AsSlice())
	return frame
}

func synFrame(src, dst netip.Addr, srcPort, dstPort uint16) []byte {
	frame := ipv4Frame(gatewayMAC, src, dst, header.TCPProtocolNumber, header.TCPMinimumSize)
	segment := header.TCP(frame[header.EthernetMinimumSize+header.IPv4MinimumSize:])
	segment.Encode(&header.TCPFields{SrcPort: srcPort, DstPort: dstPort, SeqNum: 1, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagSyn, WindowSize: 1000})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, tcpip.AddrFromSlice(src.AsSlice()), tcpip.AddrFromSlice(dst.AsSlice()), uint16(len(segment)))
	segment.SetChecksum(^segment.CalculateChecksum(sum))
	return frame
}

// syn6Frame is synFrame by IPv6.
func syn6Frame(dst netip.Addr, srcPort, dstPort uint16) []byte {
	frame := make([]byte, header.EthernetMinimumSize+header.IPv6MinimumSize+header.TCPMinimumSize)
	header.Ethernet(frame).Encode(&header.EthernetFields{SrcAddr: guestMAC, DstAddr: gatewayMAC, Type: header.IPv6ProtocolNumber})
	src, to := tcpip.AddrFromSlice(Guest6.Addr().AsSlice()), tcpip.AddrFrom16(dst.As16())
	header.IPv6(frame[14:]).Encode(&header.IPv6Fields{PayloadLength: header.TCPMinimumSize, TransportProtocol: header.TCPProtocolNumber, HopLimit: 64, SrcAddr: src, DstAddr: to})
	segment := header.TCP(frame[14+header.IPv6MinimumSize:])
	segment.Encode(&header.TCPFields{SrcPort: srcPort, DstPort: dstPort, SeqNum: 1, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagSyn, WindowSize: 1000})
	segment.SetChecksum(^segment.CalculateChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, to, header.TCPMinimumSize)))
	return frame
}

// TestRaw6 sends to addresses that are the host's or stand for IPv4 in every way; none of them is reached, and what is sent after them is.
func TestRaw6(t *testing.T) {
	g := newRawGuest(t, "full")
	for _, host := range []string{"127.0.0.1:8080", "203.0.113.1:8080", "[::1]:8080", "[2001:db8:1::1]:8080"} {
		l, err := testenv.ServeLine(host, "host")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	port := uint16(1024)
	for _, text := range []string{"::", "::1", "::127.0.0.1", "::203.0.113.1", "::ffff:127.0.0.1", "::ffff:203.0.113.1", "64:ff9b::127.0.0.1", "64:ff9b::203.0.113.1", "64:ff9b:1::127.0.0.1",
		"2002:7f00:1::1", "2002:cb00:7101::1", "2001::1", "fe80::1", "fec0::1", "ff02::1", "2001:db8:1::1", "2001:db8:1::fe", "fd62:616e:6765:7200::1", "fd62:616e:6765:7200::2"} {
		port++
		g.send(syn6Frame(netip.MustParseAddr(text), port, 8080))
	}
	answers := func(frame []byte) (header.TCP, bool) {
		if header.Ethernet(frame).Type() != header.IPv6ProtocolNumber || header.IPv6(frame[14:]).NextHeader() != uint8(header.TCPProtocolNumber) {
			return nil, false
		}
		return header.TCP(header.IPv6(frame[14:]).Payload()), true
	}
	g.send(syn6Frame(netip.MustParseAddr(originAddr6), 7777, portEcho))
	g.receive("SYN-ACK", func(frame []byte) bool {
		if header.Ethernet(frame).Type() == header.IPv6ProtocolNumber && header.IPv6(frame[14:]).NextHeader() == uint8(header.ICMPv6ProtocolNumber) {
			g.send(neighborFrame(frame))
		}
		segment, ok := answers(frame)
		if ok && segment.Flags().Contains(header.TCPFlagSyn) && segment.DestinationPort() != 7777 {
			t.Errorf("a connection to %s is taken", netip.AddrFrom16(header.IPv6(frame[14:]).SourceAddress().As16()))
		}
		return ok && segment.DestinationPort() == 7777
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.events {
		if e.Verdict == banger.NetAllowed && e.Port == 8080 {
			t.Errorf("event %+v", e)
		}
	}
}

// neighborFrame answers a card's question who has the guest's IPv6 address; for every other frame it is one that asks nothing.
func neighborFrame(question []byte) []byte {
	frame := make([]byte, header.EthernetMinimumSize+header.IPv6MinimumSize+header.ICMPv6NeighborAdvertMinimumSize+8)
	header.Ethernet(frame).Encode(&header.EthernetFields{SrcAddr: guestMAC, DstAddr: gatewayMAC, Type: header.IPv6ProtocolNumber})
	src, dst := tcpip.AddrFromSlice(Guest6.Addr().AsSlice()), header.IPv6(question[14:]).SourceAddress()
	header.IPv6(frame[14:]).Encode(&header.IPv6Fields{PayloadLength: uint16(len(frame) - 54), TransportProtocol: header.ICMPv6ProtocolNumber, HopLimit: 255, SrcAddr: src, DstAddr: dst})
	message := header.ICMPv6(frame[54:])
	message.SetType(header.ICMPv6NeighborAdvert)
	advert := header.NDPNeighborAdvert(message.MessageBody())
	advert.SetTargetAddress(src)
	advert.SetSolicitedFlag(true)
	advert.SetOverrideFlag(true)
	advert.Options().Serialize(header.NDPOptionsSerializer{header.NDPTargetLinkLayerAddressOption(guestMAC)})
	message.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: message, Src: src, Dst: dst}))
	return frame
}

// tcpFrom matches a segment from addr with these flags.
func tcpFrom(addr netip.Addr, flags header.TCPFlags) func([]byte) bool {
	return func(frame []byte) bool {
		if header.Ethernet(frame).Type() != header.IPv4ProtocolNumber {
			return false
		}
		ip := header.IPv4(frame[header.EthernetMinimumSize:])
		return ip.TransportProtocol() == header.TCPProtocolNumber && addrOf(ip.SourceAddress()) == addr && header.TCP(ip.Payload()).Flags().Contains(flags)
	}
}

// TestRaw sends what no guest's own TCP/IP would.
func TestRaw(t *testing.T) {
	g := newRawGuest(t, "full")
	l, err := testenv.ServeLine("127.0.0.1:8080", "host")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g.send(synFrame(Guest4.Addr(), netip.MustParseAddr("0.0.0.0"), 1024, 8080))
	for _, text := range []string{metaAddr, "203.0.113.1"} {
		g.send(synFrame(Guest4.Addr(), netip.MustParseAddr(text), 1024, 8080))
		g.receive("reset", tcpFrom(netip.MustParseAddr(text), header.TCPFlagRst))
		if e := g.await(banger.NetDenied, text+":8080"); e.Reason == "" {
			t.Errorf("event %+v", e)
		}
	}
	// Loopback addresses are nowhere on a wire.
	for _, text := range []string{"127.0.0.1", "127.255.0.1"} {
		g.send(synFrame(Guest4.Addr(), netip.MustParseAddr(text), 1024, 8080))
	}
	// Another machine's address, and a card that asks whether its own is taken, as DHCP clients do: no answer, so the next
	// that comes is the one to the question after them.
	g.send(synFrame(netip.MustParseAddr("198.19.0.3"), netip.MustParseAddr(originAddr), 1, portEcho))
	g.send(arpFrame(header.ARPRequest, netip.IPv4Unspecified(), Guest4.Addr()))
	g.send(arpFrame(header.ARPRequest, Guest4.Addr(), Guest4.Addr()))
	g.send(arpFrame(header.ARPRequest, Guest4.Addr(), Gateway4))
	answer := g.receive("ARP reply", func(frame []byte) bool {
		return header.Ethernet(frame).Type() == header.ARPProtocolNumber && header.ARP(frame[14:]).Op() == header.ARPReply
	})
	if a := header.ARP(answer[14:]); netip.AddrFrom4([4]byte(a.ProtocolAddressSender())) != Gateway4 || tcpip.LinkAddress(a.HardwareAddressSender()) != gatewayMAC {
		t.Errorf("ARP reply %x", answer)
	}
	g.send(synFrame(Guest4.Addr(), netip.MustParseAddr(originAddr), 1025, portEcho))
	g.receive("SYN-ACK", tcpFrom(netip.MustParseAddr(originAddr), header.TCPFlagSyn|header.TCPFlagAck))

	// A segment of a connection that nobody knows, as after the death of a supervisor, is reset.
	stray := synFrame(Guest4.Addr(), netip.MustParseAddr(otherAddr), 1026, portEcho)
	segment := header.TCP(stray[header.EthernetMinimumSize+header.IPv4MinimumSize:])
	segment.SetFlags(uint8(header.TCPFlagAck))
	g.send(stray)
	g.receive("reset", tcpFrom(netip.MustParseAddr(otherAddr), header.TCPFlagRst))
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.events {
		if strings.HasPrefix(e.Addr, "127.") {
			t.Errorf("event %+v", e)
		}
	}
}

func TestNothingBeforeTheFirstFrame(t *testing.T) {
	g := newRawGuest(t, "full")
	routerSolicit := make([]byte, header.EthernetMinimumSize+header.IPv6MinimumSize+8)
	header.Ethernet(routerSolicit).Encode(&header.EthernetFields{SrcAddr: guestMAC, DstAddr: "\x33\x33\x00\x00\x00\x02", Type: header.IPv6ProtocolNumber})
	header.IPv6(routerSolicit[14:]).Encode(&header.IPv6Fields{PayloadLength: 8, TransportProtocol: header.ICMPv6ProtocolNumber, HopLimit: 255,
		SrcAddr: tcpip.AddrFromSlice(netip.MustParseAddr("fe80::1").AsSlice()), DstAddr: tcpip.AddrFromSlice(netip.MustParseAddr("ff02::2").AsSlice())})
	for _, frame := range [][]byte{routerSolicit, make([]byte, 14), bytes.Repeat([]byte{0xff}, 60), arpFrame(header.ARPRequest, netip.IPv4Unspecified(), Guest4.Addr())} {
		g.send(frame)
	}
	g.send(dhcpFrame(dhcpDiscover))
	g.receive("DHCP offer", func([]byte) bool { return true })
	g.net.mu.Lock()
	defer g.net.mu.Unlock()
	if g.net.ip != nil {
		t.Error("the stack runs although the guest asked for nothing")
	}
}

func dhcpFrame(kind byte, options ...byte) []byte {
	request := make([]byte, dhcpHeader)
	copy(request, []byte{1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef})
	copy(request[dhcpOffClient:], guestMAC)
	binary.BigEndian.PutUint32(request[dhcpFixed:], dhcpMagic)
	request = append(append(append(request, optType, 1, kind), options...), optEnd)
	frame := udpFrame(gatewayMAC, netip.IPv4Unspecified(), broadcast4, dhcpClientPort, dhcpServerPort, request)
	copy(frame[6:], guestMAC)
	return frame
}

func TestDHCP(t *testing.T) {
	gateway := Gateway4.AsSlice()
	for _, test := range []struct {
		name    string
		kind    byte
		options []byte
		want    byte // 0: no answer
	}{
		{"discover", dhcpDiscover, nil, dhcpOffer},
		{"request", dhcpRequest, append(append([]byte{optRequested, 4}, Guest4.Addr().AsSlice()...), append([]byte{optServer, 4}, gateway...)...), dhcpAck},
		{"of another address", dhcpRequest, []byte{optRequested, 4, 10, 0, 0, 5}, dhcpNak},
		{"to another server", dhcpRequest, []byte{optServer, 4, 10, 0, 0, 1}, 0},
		{"inform", dhcpInform, nil, dhcpAck}, {"release", 7, nil, 0}, {"cut off", dhcpDiscover, []byte{optRequested, 200, 1}, dhcpOffer},
	} {
		frame := answerDHCP(dhcpFrame(test.kind, test.options...))
		if test.want == 0 || frame == nil {
			if (frame == nil) != (test.want == 0) {
				t.Errorf("%s: answer %x, want %d", test.name, frame, test.want)
			}
			continue
		}
		ip := header.IPv4(frame[header.EthernetMinimumSize:])
		datagram := header.UDP(ip.Payload())
		sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), datagram.Length())
		if !ip.IsChecksumValid() || !datagram.IsChecksumValid(ip.SourceAddress(), ip.DestinationAddress(), checksum.Checksum(datagram.Payload(), 0)) {
			t.Errorf("%s: sums are wrong (%x)", test.name, sum)
		}
		message := datagram.Payload()
		options := dhcpOptions(message[dhcpHeader:])
		if options[optType][0] != test.want || string(message[4:8]) != "\xde\xad\xbe\xef" || tcpip.LinkAddress(message[dhcpOffClient:dhcpOffClient+6]) != guestMAC {
			t.Errorf("%s: answer %x", test.name, message)
		}
		if test.want != dhcpNak && (netip.AddrFrom4([4]byte(message[dhcpOffYour:])) != Guest4.Addr() || string(options[optRouter]) != string(gateway) || string(options[optDNS]) != string(gateway)) {
			t.Errorf("%s: answer %x", test.name, message)
		}
	}
}

func echoFrame(dst netip.Addr, id uint16, text string) []byte {
	frame := ipv4Frame(gatewayMAC, Guest4.Addr(), dst, header.ICMPv4ProtocolNumber, header.ICMPv4MinimumSize+len(text))
	copy(frame[6:], guestMAC)
	icmp := header.ICMPv4(frame[header.EthernetMinimumSize+header.IPv4MinimumSize:])
	icmp.SetType(header.ICMPv4Echo)
	icmp.SetIdent(id)
	icmp.SetSequence(7)
	copy(icmp[header.ICMPv4MinimumSize:], text)
	icmp.SetChecksum(^checksum.Checksum(icmp, 0))
	return frame
}

func TestPing(t *testing.T) {
	g := newRawGuest(t, "full")
	for i, addr := range []string{Gateway4.String(), originAddr} {
		dst := netip.MustParseAddr(addr)
		g.send(echoFrame(dst, uint16(500+i), "ping"))
		frame := g.receive("echo reply of "+addr, func(frame []byte) bool {
			return header.Ethernet(frame).Type() == header.IPv4ProtocolNumber && header.IPv4(frame[14:]).TransportProtocol() == header.ICMPv4ProtocolNumber
		})
		ip := header.IPv4(frame[14:])
		icmp := header.ICMPv4(ip.Payload())
		if !ip.IsChecksumValid() || addrOf(ip.SourceAddress()) != dst || icmp.Type() != header.ICMPv4EchoReply || icmp.Ident() != uint16(500+i) ||
			icmp.Sequence() != 7 || string(icmp.Payload()) != "ping" || checksum.Checksum(icmp, 0) != 0xffff {
			t.Errorf("echo reply of %s: %x", addr, frame)
		}
	}
	g.send(echoFrame(netip.MustParseAddr(metaAddr), 1, "x"))
	if e := g.await(banger.NetDenied, metaAddr); e.Proto != "icmp" {
		t.Errorf("event %+v", e)
	}
}

// TestHalfOpen holds that a guest that opens connections and never completes them does not fill the memory, that its other connections go
// on, and that it can make new ones before long.
func TestHalfOpen(t *testing.T) {
	const firstOther = 16000 // the guest's stack takes its ports from there on
	g := newGuest(t, "full")
	g.net.patience = time.Second
	worker := g.mustDial(originAddr, portEcho)
	loses := func(frame []byte) bool { // the answers to what nobody completes
		ip := header.IPv4(frame[14:])
		return header.Ethernet(frame).Type() == header.IPv4ProtocolNumber && ip.TransportProtocol() == header.TCPProtocolNumber && header.TCP(ip.Payload()).DestinationPort() < firstOther
	}
	g.loses.Store(&loses)
	var worked atomic.Int64
	stop := make(chan struct{})
	var working sync.WaitGroup
	working.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			echoes(t, worker, fmt.Sprint("work ", n))
			worked.Add(1)
		}
	})
	raw := &rawGuest{g}
	for i, limit := 0, time.Now().Add(time.Minute); i < 10_000 || worked.Load() < 10; i++ {
		raw.send(synFrame(Guest4.Addr(), netip.MustParseAddr([]string{originAddr, otherAddr}[i%2]), uint16(1024+i%10_000), portEcho))
		if time.Now().After(limit) {
			t.Fatalf("the connection that was there worked %d times meanwhile", worked.Load())
		}
	}
	during := worked.Load()
	if n := g.net.Flows(); n > maxDialing+1 {
		t.Errorf("%d flows", n)
	}
	if n := runtime.NumGoroutine(); n > 5000 {
		t.Errorf("%d goroutines", n)
	}
	g.eventually("the connection that was there works on", func() bool { return worked.Load() > during+10 })
	echoes(t, g.mustDial(originAddr, portEcho), "new ones work")
	close(stop)
	working.Wait()
	g.wire.Close()
	g.noFlows()
}

// TestSlowEnds holds that nobody who does not read makes us keep more than the buffers.
func TestSlowEnds(t *testing.T) {
	g := newGuest(t, "full")
	stuck := g.mustDial(originAddr, portStuck)
	stuck.SetDeadline(time.Now().Add(2 * time.Second))
	sent := 0
	for b := make([]byte, 64<<10); ; {
		n, err := stuck.Write(b)
		if sent += n; err != nil {
			break
		}
	}
	if sent > 64<<20 {
		t.Errorf("%d bytes went to a server that reads none", sent)
	}
	g.mustDial(originAddr, portFlood) // and a guest that reads none
	echoes(t, g.mustDial(originAddr, portEcho), "others work")
	g.net.SetPolicy(banger.NetNone)
	g.noFlows()
}

func TestBadWire(t *testing.T) {
	for _, test := range []struct {
		name, bytes string
		bad         bool
	}{
		{"nothing", "", false}, {"half a length", "\x00\x00", true}, {"half a frame", "\x00\x00\x00\x20half", true},
		{"a huge frame", "\xff\xff\xff\xff", true}, {"short frames", "\x00\x00\x00\x01x\x00\x00\x00\x00", false},
	} {
		a, b := testenv.SocketPair(t)
		s := New(Config{})
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(b) }()
		io.WriteString(a, test.bytes)
		a.Close()
		if err := <-ended; (err != nil) != test.bad {
			t.Errorf("%s: Serve = %v", test.name, err)
		}
		s.Close()
	}
}

// FuzzFrames holds that no frames stop the network: the next question is answered.
func FuzzFrames(f *testing.F) {
	f.Add(synFrame(Guest4.Addr(), netip.MustParseAddr("203.0.113.77"), 1, 2), uint8(0))
	f.Add(dhcpFrame(dhcpDiscover), uint8(1))
	f.Add(echoFrame(Gateway4, 1, "x"), uint8(2))
	f.Add(udpFrame(gatewayMAC, Guest4.Addr(), Gateway4, 5000, 53, []byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04host\x06banger\x00\x00\x01\x00\x01")), uint8(0))
	f.Add(arpFrame(header.ARPRequest, Guest4.Addr(), Gateway4), uint8(0))
	f.Fuzz(func(t *testing.T, frame []byte, fragment uint8) {
		g := newRawGuest(t, "none")
		if len(frame) > maxFrame {
			return
		}
		g.send(frame)
		if cut := int(fragment) * 8; cut > 0 && cut+34 < len(frame) && header.Ethernet(frame).Type() == header.IPv4ProtocolNumber &&
			header.IPv4(frame[14:]).HeaderLength() == header.IPv4MinimumSize {
			g.send(fragmentOf(frame, cut))
		}
		g.send(arpFrame(header.ARPRequest, Guest4.Addr(), Gateway4))
		g.receive("ARP reply", func(frame []byte) bool {
			return header.Ethernet(frame).Type() == header.ARPProtocolNumber && header.ARP(frame[14:]).Op() == header.ARPReply
		})
	})
}

// fragmentOf is the end of an IPv4 packet from byte cut of its payload on.
func fragmentOf(frame []byte, cut int) []byte {
	part := append(append([]byte(nil), frame[:34]...), frame[34+cut:]...)
	ip := header.IPv4(part[14:])
	ip.SetTotalLength(uint16(len(part) - 14))
	ip.SetFlagsFragmentOffset(0, uint16(cut))
	ip.SetChecksum(0)
	ip.SetChecksum(^ip.CalculateChecksum())
	return part
}

// TestFragments sends a datagram in pieces, as a guest with a small MTU does.
func TestFragments(t *testing.T) {
	g := newRawGuest(t, "full")
	whole := udpFrame(gatewayMAC, Guest4.Addr(), netip.MustParseAddr(originAddr), 4000, portEcho, []byte(strings.Repeat("f", 3000)))
	copy(whole[6:], guestMAC)
	head := append([]byte(nil), whole[:34+1480]...)
	ip := header.IPv4(head[14:])
	ip.SetTotalLength(uint16(len(head) - 14))
	ip.SetFlagsFragmentOffset(header.IPv4FlagMoreFragments, 0)
	ip.SetChecksum(0)
	ip.SetChecksum(^ip.CalculateChecksum())
	g.send(fragmentOf(whole, 1480))
	g.send(head)
	frame := g.receive("echo", func(frame []byte) bool {
		return header.Ethernet(frame).Type() == header.IPv4ProtocolNumber && header.IPv4(frame[14:]).TransportProtocol() == header.UDPProtocolNumber
	})
	if text := string(header.UDP(header.IPv4(frame[14:]).Payload()).Payload()); text != strings.Repeat("f", 3000) {
		t.Errorf("echo of %d bytes", len(text))
	}
	if e := g.await(banger.NetAllowed, fmt.Sprintf("%s:%d", originAddr, portEcho)); e.Proto != "udp" {
		t.Errorf("event %+v", e)
	}
}
