package netstack

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// DHCP (RFC 2131) tells an image's own network programs what the agent has set already, so that they do not undo it.
const (
	dhcpServerPort = 67
	dhcpClientPort = 68
	dhcpFixed      = 236 // up to the magic
	dhcpMagic      = 0x63825363
	dhcpHeader     = dhcpFixed + 4

	dhcpOffYour   = 16
	dhcpOffServer = 20
	dhcpOffClient = 28 // hardware address
	dhcpOffID     = 4

	optMask, optRouter, optDNS, optLease = 1, 3, 6, 51
	optType, optServer, optEnd, optPad   = 53, 54, 255, 0
	optRequested                         = 50

	dhcpDiscover, dhcpOffer, dhcpRequest, dhcpAck, dhcpNak, dhcpInform = 1, 2, 3, 5, 6, 8

	leaseSeconds = 7 * 24 * 3600
)

// answerDHCP gives the frame that answers a request of a DHCP client; nil for every other frame.
func answerDHCP(frame []byte) []byte {
	if header.Ethernet(frame).Type() != header.IPv4ProtocolNumber {
		return nil
	}
	ip := header.IPv4(frame[header.EthernetMinimumSize:])
	if !ip.IsValid(len(ip)) || ip.TransportProtocol() != header.UDPProtocolNumber || ip.More() || ip.FragmentOffset() != 0 {
		return nil
	}
	datagram := header.UDP(ip.Payload())
	if len(datagram) < header.UDPMinimumSize || datagram.DestinationPort() != dhcpServerPort || datagram.SourcePort() != dhcpClientPort {
		return nil
	}
	reply := dhcpReply(datagram[header.UDPMinimumSize:])
	if reply == nil {
		return nil
	}
	return udpFrame(header.Ethernet(frame).SourceAddress(), Gateway4, broadcast4, dhcpServerPort, dhcpClientPort, reply)
}

// dhcpReply answers one message; nil for what is no request.
func dhcpReply(request []byte) []byte {
	const bootRequest, bootReply, ethernet, hardwareSize = 1, 2, 1, 6
	if len(request) < dhcpHeader || request[0] != bootRequest || request[1] != ethernet || request[2] != hardwareSize ||
		binary.BigEndian.Uint32(request[dhcpFixed:]) != dhcpMagic {
		return nil
	}
	options := dhcpOptions(request[dhcpHeader:])
	kind := options[optType]
	if len(kind) != 1 {
		return nil
	}
	answer := map[byte]byte{dhcpDiscover: dhcpOffer, dhcpRequest: dhcpAck, dhcpInform: dhcpAck}[kind[0]]
	if answer == 0 {
		return nil
	}
	guest, gateway := Guest4.Addr().As4(), Gateway4.As4()
	if server, ok := options[optServer]; ok && string(server) != string(gateway[:]) {
		return nil // the client chose another server
	}
	if wish, ok := options[optRequested]; ok && kind[0] == dhcpRequest && string(wish) != string(guest[:]) {
		answer = dhcpNak
	}
	reply := make([]byte, dhcpHeader, dhcpHeader+64)
	copy(reply, []byte{bootReply, ethernet, hardwareSize})
	copy(reply[dhcpOffID:], request[dhcpOffID:dhcpOffID+4])
	copy(reply[10:], request[10:12]) // flags
	copy(reply[dhcpOffClient:], request[dhcpOffClient:dhcpOffClient+16])
	copy(reply[dhcpOffServer:], gateway[:])
	binary.BigEndian.PutUint32(reply[dhcpFixed:], dhcpMagic)
	option := func(code byte, value ...byte) { reply = append(append(reply, code, byte(len(value))), value...) }
	option(optType, answer)
	option(optServer, gateway[:]...)
	if answer != dhcpNak {
		copy(reply[dhcpOffYour:], guest[:])
		option(optMask, 255, 255, 255, 0)
		option(optRouter, gateway[:]...)
		option(optDNS, gateway[:]...)
		option(optLease, binary.BigEndian.AppendUint32(nil, leaseSeconds)...)
	}
	return append(reply, optEnd)
}

// dhcpOptions reads code, length, value until the end; what is cut off is left out.
func dhcpOptions(b []byte) map[byte][]byte {
	options := map[byte][]byte{}
	for len(b) > 0 && b[0] != optEnd {
		if b[0] == optPad {
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			break
		}
		options[b[0]] = b[2 : 2+int(b[1])]
		b = b[2+int(b[1]):]
	}
	return options
}

// udpFrame is an IPv4 datagram of the gateway in its frame.
func udpFrame(to tcpip.LinkAddress, src, dst netip.Addr, srcPort, dstPort uint16, payload []byte) []byte {
	frame := ipv4Frame(to, src, dst, header.UDPProtocolNumber, header.UDPMinimumSize+len(payload))
	datagram := header.UDP(frame[header.EthernetMinimumSize+header.IPv4MinimumSize:])
	datagram.Encode(&header.UDPFields{SrcPort: srcPort, DstPort: dstPort, Length: uint16(len(datagram))})
	copy(datagram[header.UDPMinimumSize:], payload)
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, tcpip.AddrFromSlice(src.AsSlice()), tcpip.AddrFromSlice(dst.AsSlice()), uint16(len(datagram)))
	datagram.SetChecksum(^datagram.CalculateChecksum(checksum.Checksum(payload, sum)))
	return frame
}

// ipv4Frame is a frame of the gateway with headers up to IPv4's and room for size bytes.
func ipv4Frame(to tcpip.LinkAddress, src, dst netip.Addr, protocol tcpip.TransportProtocolNumber, size int) []byte {
	frame := make([]byte, header.EthernetMinimumSize+header.IPv4MinimumSize+size)
	header.Ethernet(frame).Encode(&header.EthernetFields{SrcAddr: gatewayMAC, DstAddr: to, Type: header.IPv4ProtocolNumber})
	ip := header.IPv4(frame[header.EthernetMinimumSize:])
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip)), TTL: 64, Protocol: uint8(protocol),
		SrcAddr: tcpip.AddrFromSlice(src.AsSlice()), DstAddr: tcpip.AddrFromSlice(dst.AsSlice())})
	ip.SetChecksum(^ip.CalculateChecksum())
	return frame
}
