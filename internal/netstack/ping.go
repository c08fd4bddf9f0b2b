package netstack

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"banger"
	"banger/internal/egress"
)

const (
	maxPings    = 64 // on their way at one time
	pingTimeout = 10 * time.Second
	maxEcho     = 8 << 10
)

// pings bounds the echo requests on their way.
type pings struct{ tokens chan struct{} }

// echo is an echo request of the guest to somebody else than the gateway.
type echo struct {
	from tcpip.LinkAddress
	src  netip.Addr
	dst  netip.Addr
	data []byte // the ICMP message
}

// parseEcho recognizes one that is whole, in a frame that is wanted. The stack would answer it in the name of any address.
func parseEcho(frame []byte) (echo, bool) {
	e := echo{from: header.Ethernet(frame).SourceAddress()}
	packet := frame[header.EthernetMinimumSize:]
	switch header.Ethernet(frame).Type() {
	case header.IPv4ProtocolNumber:
		ip := header.IPv4(packet)
		if !ip.IsValid(len(packet)) || ip.TransportProtocol() != header.ICMPv4ProtocolNumber || ip.More() || ip.FragmentOffset() != 0 {
			return e, false
		}
		e.src, e.dst, e.data = addrOf(ip.SourceAddress()), addrOf(ip.DestinationAddress()), ip.Payload()
		if len(e.data) < header.ICMPv4MinimumSize || header.ICMPv4(e.data).Type() != header.ICMPv4Echo {
			return e, false
		}
	case header.IPv6ProtocolNumber:
		ip := header.IPv6(packet)
		if !ip.IsValid(len(packet)) || ip.NextHeader() != uint8(header.ICMPv6ProtocolNumber) {
			return e, false
		}
		e.src, e.dst, e.data = addrOf(ip.SourceAddress()), addrOf(ip.DestinationAddress()), ip.Payload()
		if len(e.data) < header.ICMPv6EchoMinimumSize || header.ICMPv6(e.data).Type() != header.ICMPv6EchoRequest {
			return e, false
		}
	default:
		return e, false
	}
	e.data = append([]byte(nil), e.data...)
	return e, e.dst != Gateway4 && e.dst != Gateway6
}

// ping sends an echo request on by a socket that needs no privilege, and its answer back. One that is denied or that this
// host does not let us send gets no answer.
func (l *link) ping(e echo) {
	s := l.stack
	t := s.target("icmp", e.dst, 0)
	if v := s.first(s.policy.Load(), t); !v.Allowed {
		s.cfg.Log(t.event(banger.NetDenied, v.Reason))
		return
	}
	select {
	case l.pings.tokens <- struct{}{}:
	default:
		return
	}
	go func() {
		defer func() { <-l.pings.tokens }()
		if err := l.relay(t, e); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			s.failed(&flow{target: t}, err)
		}
	}()
}

func (l *link) relay(t target, e echo) error {
	dst, err := l.stack.pingTarget(t)
	if err != nil {
		return err
	}
	if len(e.data) > maxEcho {
		return refusal{"an echo request of more than 8 KiB"}
	}
	conn, err := dialPing(dst)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(pingTimeout))
	request := append([]byte(nil), e.data...)
	if dst.Is4() {
		request[0] = byte(header.ICMPv4Echo)
	} else {
		request[0] = byte(header.ICMPv6EchoRequest)
	}
	if _, err := conn.Write(request); err != nil {
		return err
	}
	answer := make([]byte, maxEcho)
	n, err := conn.Read(answer)
	if err != nil {
		return err
	}
	if n < header.ICMPv4MinimumSize {
		return nil
	}
	return l.send(e.reply(answer[:n]))
}

// pingTarget resolves a name behind an address of ours.
func (s *Stack) pingTarget(t target) (netip.Addr, error) {
	if !t.bound {
		return t.addr, nil
	}
	if isVMName(t.name) {
		return netip.Addr{}, refusal{"other VMs are reached by TCP only"}
	}
	addrs, err := s.resolve(s.life, t.name)
	if err != nil {
		return netip.Addr{}, err
	}
	host, err := s.host.Get()
	if err != nil {
		return netip.Addr{}, err
	}
	v := egress.Verdict{}
	for _, addr := range addrs {
		if v = s.policy.Load().Resolved(addr, 0, host); v.Allowed {
			return addr.Unmap(), nil
		}
	}
	return netip.Addr{}, refusal{v.Reason}
}

// dialPing opens a ping socket (icmp(7)); net.ipv4.ping_group_range says who may.
func dialPing(dst netip.Addr) (net.Conn, error) {
	family, protocol := syscall.AF_INET, syscall.IPPROTO_ICMP
	var to syscall.Sockaddr = &syscall.SockaddrInet4{}
	if dst.Is6() {
		family, protocol = syscall.AF_INET6, syscall.IPPROTO_ICMPV6
		to = &syscall.SockaddrInet6{Addr: dst.As16()}
	} else {
		to = &syscall.SockaddrInet4{Addr: dst.As4()}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, protocol)
	if errors.Is(err, syscall.EACCES) {
		return nil, refusal{"this host lets nobody ping: sysctl net.ipv4.ping_group_range"}
	}
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "ping")
	defer file.Close()
	if err := syscall.Connect(fd, to); err != nil {
		return nil, err
	}
	return net.FileConn(file)
}

// reply is the frame with the answer to e: the host's socket changed the identifier, which goes back to the guest's.
func (e echo) reply(answer []byte) []byte {
	body := answer[header.ICMPv4MinimumSize:]
	if e.dst.Is4() {
		frame := ipv4Frame(e.from, e.dst, e.src, header.ICMPv4ProtocolNumber, header.ICMPv4MinimumSize+len(body))
		icmp := header.ICMPv4(frame[header.EthernetMinimumSize+header.IPv4MinimumSize:])
		copy(icmp, e.data[:header.ICMPv4MinimumSize])
		copy(icmp[header.ICMPv4MinimumSize:], body)
		icmp.SetType(header.ICMPv4EchoReply)
		icmp.SetChecksum(0)
		icmp.SetChecksum(^checksum.Checksum(icmp, 0))
		return frame
	}
	size := header.ICMPv6EchoMinimumSize + len(body)
	frame := make([]byte, header.EthernetMinimumSize+header.IPv6MinimumSize+size)
	header.Ethernet(frame).Encode(&header.EthernetFields{SrcAddr: gatewayMAC, DstAddr: e.from, Type: header.IPv6ProtocolNumber})
	src, dst := tcpip.AddrFromSlice(e.dst.AsSlice()), tcpip.AddrFromSlice(e.src.AsSlice())
	header.IPv6(frame[header.EthernetMinimumSize:]).Encode(&header.IPv6Fields{PayloadLength: uint16(size),
		TransportProtocol: header.ICMPv6ProtocolNumber, HopLimit: 64, SrcAddr: src, DstAddr: dst})
	icmp := header.ICMPv6(frame[header.EthernetMinimumSize+header.IPv6MinimumSize:])
	copy(icmp, e.data[:header.ICMPv6EchoMinimumSize])
	copy(icmp[header.ICMPv6EchoMinimumSize:], body)
	icmp.SetType(header.ICMPv6EchoReply)
	icmp.SetChecksum(0)
	icmp.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: icmp, Src: src, Dst: dst}))
	return frame
}
