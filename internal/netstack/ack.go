package netstack

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// The acknowledgement of a request waits a moment for the answer, which carries it too: each frame interrupts the guest.
const (
	ackPatience = time.Millisecond // Go's timers have no finer one
	maxRequest  = 1460             // bytes of a segment; the sender of a larger one has more to send
	ackPause    = 8                // acknowledgements that do not wait after one that did in vain: its answer comes from far, or the guest waits for it
)

// acks holds at most one acknowledgement back.
type acks struct {
	patience time.Duration
	late     func(framed []byte) // sends what has waited for too long

	mu        sync.Mutex
	requested bool   // the guest's last segment may be a request
	pause     int    // acknowledgements that do not wait now
	held      []byte // as it goes on the wire; nil: none
	to        tcpFlow
	timer     *time.Timer
}

// tcpFlow tells connections of the guest apart.
type tcpFlow struct {
	far             tcpip.Address
	farPort, ofPort uint16
}

// note is told of each frame of the guest.
func (a *acks) note(frame []byte) {
	segment := segmentOf(frame)
	if len(segment) < header.TCPMinimumSize {
		return
	}
	size := len(segment) - int(segment.DataOffset())
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requested = 0 < size && size <= maxRequest
}

// segmentOf is the TCP segment in a frame; nil when there is none.
func segmentOf(frame []byte) header.TCP {
	packet := frame[header.EthernetMinimumSize:]
	switch header.Ethernet(frame).Type() {
	case header.IPv4ProtocolNumber:
		if ip := header.IPv4(packet); ip.IsValid(len(packet)) && ip.TransportProtocol() == header.TCPProtocolNumber {
			return header.TCP(ip.Payload())
		}
	case header.IPv6ProtocolNumber:
		if ip := header.IPv6(packet); ip.IsValid(len(packet)) && ip.NextHeader() == uint8(header.TCPProtocolNumber) {
			return header.TCP(ip.Payload())
		}
	}
	return nil
}

// pass tells what is to be done with a packet that is ready: it may be held back, or another one, which was, is due before it.
func (a *acks) pass(pkt *stack.PacketBuffer) (hold bool, due []byte) {
	var flow tcpFlow
	acknowledges, alone := false, false
	if pkt.TransportProtocolNumber == header.TCPProtocolNumber {
		segment := header.TCP(pkt.TransportHeader().Slice())
		flow = tcpFlow{pkt.Network().SourceAddress(), segment.SourcePort(), segment.DestinationPort()}
		acknowledges = segment.Flags().Contains(header.TCPFlagAck)
		alone = segment.Flags() == header.TCPFlagAck && pkt.Data().Size() == 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.held == nil && alone && a.requested && a.pause > 0:
		a.pause--
	case a.held == nil && alone && a.requested:
		a.held, a.to = framed(pkt), flow
		a.wait()
		return true, nil
	case a.held != nil && (!acknowledges || flow != a.to):
		due = a.held
	}
	a.held = nil // what acknowledges now acknowledges what came before, too
	return false, due
}

func (a *acks) wait() {
	if a.timer == nil {
		a.timer = time.AfterFunc(a.patience, a.expire)
		return
	}
	a.timer.Reset(a.patience)
}

func (a *acks) expire() {
	a.mu.Lock()
	held := a.held
	a.held = nil
	if held != nil {
		a.pause = ackPause
	}
	a.mu.Unlock()
	if held != nil {
		a.late(held)
	}
}
