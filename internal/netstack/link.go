package netstack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"banger"
)

// A frame on the wire has its length before it (32 bits, big endian), as QEMU's stream and socket back ends have it.
const (
	lengthSize  = 4
	maxFrame    = header.EthernetMinimumSize + MTU
	readerSize  = 64 << 10
	maxUnlisted = 68 << 10 // what QEMU itself takes for a frame
)

// link is the wire to the guest's card. It implements stack.LinkEndpoint.
type link struct {
	wire  *wire
	stack *Stack
	pings pings
	acks  acks

	mu         sync.Mutex
	dispatcher stack.NetworkDispatcher
}

func newLink(w *wire, s *Stack) *link {
	l := &link{wire: w, stack: s, pings: pings{tokens: make(chan struct{}, maxPings)}}
	l.acks = acks{patience: ackPatience, late: func(framed []byte) { _ = w.write(net.Buffers{framed}, len(framed)) }} // lost with the wire
	return l
}

// read delivers the guest's frames until the wire ends.
func (l *link) read() error {
	r := bufio.NewReaderSize(l.wire, readerSize)
	for {
		head, err := r.Peek(lengthSize)
		if err != nil {
			if len(head) == 0 && errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
		size := int64(binary.BigEndian.Uint32(head))
		if _, err := r.Discard(lengthSize); err != nil {
			return err
		}
		if size > maxUnlisted {
			return fmt.Errorf("%w: frame of %d bytes", banger.ErrCorrupt, size)
		}
		if size > maxFrame || size < header.EthernetMinimumSize {
			if _, err := r.Discard(int(size)); err != nil {
				return err
			}
			continue
		}
		view := buffer.NewViewSize(int(size))
		if _, err := io.ReadFull(r, view.AsSlice()); err != nil {
			view.Release()
			return err
		}
		if err := l.deliver(view); err != nil {
			return err
		}
	}
}

// deliver hands a frame to who answers it.
func (l *link) deliver(view *buffer.View) error {
	frame := view.AsSlice()
	if reply := answerDHCP(frame); reply != nil {
		view.Release()
		return l.send(reply)
	}
	if !wanted(frame) {
		view.Release()
		return nil
	}
	if echo, ok := parseEcho(frame); ok {
		view.Release()
		l.ping(echo)
		return nil
	}
	if _, err := l.stack.started(); err != nil {
		view.Release()
		return err
	}
	l.acks.note(frame)
	l.mu.Lock()
	dispatcher := l.dispatcher
	l.mu.Unlock()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(view)})
	defer pkt.DecRef()
	eth, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	if !ok || dispatcher == nil {
		return nil
	}
	pkt.NetworkProtocolNumber = header.Ethernet(eth).Type()
	dispatcher.DeliverNetworkPacket(pkt.NetworkProtocolNumber, pkt)
	return nil
}

// wanted drops what the gateway has no answer for, or must not answer: packets from addresses that are not the guest's,
// groups, and its questions whether another machine has its own address.
func wanted(frame []byte) bool {
	packet := frame[header.EthernetMinimumSize:]
	switch header.Ethernet(frame).Type() {
	case header.ARPProtocolNumber:
		a := header.ARP(packet)
		if !a.IsValid() || a.Op() != header.ARPRequest && a.Op() != header.ARPReply {
			return false
		}
		sender, _ := netip.AddrFromSlice(a.ProtocolAddressSender())
		asked, _ := netip.AddrFromSlice(a.ProtocolAddressTarget())
		return sender == Guest4.Addr() && asked == Gateway4
	case header.IPv4ProtocolNumber:
		ip := header.IPv4(packet)
		if len(packet) < header.IPv4MinimumSize {
			return false
		}
		dst := addrOf(ip.DestinationAddress())
		return addrOf(ip.SourceAddress()) == Guest4.Addr() && !dst.IsMulticast() && !dst.IsLoopback() && dst != broadcast4 && dst != linkBroadcast4
	case header.IPv6ProtocolNumber:
		return wantedIPv6(packet)
	}
	return false
}

var (
	broadcast4     = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	linkBroadcast4 = netip.AddrFrom4([4]byte{198, 19, 0, 255})
)

func wantedIPv6(packet []byte) bool {
	ip := header.IPv6(packet)
	if len(packet) < header.IPv6MinimumSize {
		return false
	}
	src, dst := addrOf(ip.SourceAddress()), addrOf(ip.DestinationAddress())
	if dst.IsLoopback() {
		return false
	}
	if dst.IsMulticast() {
		if ip.NextHeader() != uint8(header.ICMPv6ProtocolNumber) || len(packet) < header.IPv6MinimumSize+header.ICMPv6NeighborSolicitMinimumSize {
			return false
		}
		icmp := header.ICMPv6(packet[header.IPv6MinimumSize:])
		asked := header.NDPNeighborSolicit(icmp.MessageBody()).TargetAddress()
		return icmp.Type() == header.ICMPv6NeighborSolicit && addrOf(asked) == Gateway6 && !src.IsUnspecified()
	}
	return src == Guest6.Addr() || src.IsLinkLocalUnicast() && dst == Gateway6
}

// send writes one finished frame.
func (l *link) send(frame []byte) error {
	return l.wire.write(net.Buffers{binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame}, lengthSize+len(frame))
}

// WritePackets implements stack.LinkWriter: all packets by one write.
func (l *link) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	packets, size := list.AsSlice(), 0
	var pieces net.Buffers
	for _, pkt := range packets {
		hold, due := l.acks.pass(pkt)
		if due != nil {
			pieces = append(pieces, due)
			size += len(due)
		}
		if !hold {
			pieces = append(pieces, binary.BigEndian.AppendUint32(nil, uint32(pkt.Size())))
			pieces = append(pieces, pkt.AsSlices()...)
			size += lengthSize + pkt.Size()
		}
	}
	if size == 0 {
		return len(packets), nil
	}
	if err := l.wire.write(pieces, size); err != nil {
		return 0, &tcpip.ErrAborted{}
	}
	return len(packets), nil
}

// framed is a packet as it goes on the wire.
func framed(pkt *stack.PacketBuffer) []byte {
	frame := binary.BigEndian.AppendUint32(nil, uint32(pkt.Size()))
	for _, piece := range pkt.AsSlices() {
		frame = append(frame, piece...)
	}
	return frame
}

// Attach implements stack.LinkEndpoint.
func (l *link) Attach(dispatcher stack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatcher = dispatcher
}

// IsAttached implements stack.LinkEndpoint.
func (l *link) IsAttached() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dispatcher != nil
}

// AddHeader implements stack.LinkEndpoint.
func (l *link) AddHeader(pkt *stack.PacketBuffer) {
	eth := header.Ethernet(pkt.LinkHeader().Push(header.EthernetMinimumSize))
	eth.Encode(&header.EthernetFields{SrcAddr: gatewayMAC, DstAddr: pkt.EgressRoute.RemoteLinkAddress, Type: pkt.NetworkProtocolNumber})
}

// Capabilities implements stack.LinkEndpoint. What comes by a socket of this host needs no check of its sums.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired | stack.CapabilityRXChecksumOffload
}

// These implement stack.LinkEndpoint.
func (l *link) MTU() uint32                             { return MTU }
func (l *link) SetMTU(uint32)                           {}
func (l *link) MaxHeaderLength() uint16                 { return header.EthernetMinimumSize }
func (l *link) LinkAddress() tcpip.LinkAddress          { return gatewayMAC }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }
func (l *link) Wait()                                   {}
func (l *link) Close()                                  {}
func (l *link) SetOnCloseAction(func())                 {}
