package netstack

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// newAckGuest has a connection over which something went, and counts the frames that bring it data, and those that bring none.
func newAckGuest(t *testing.T, port uint16, patience time.Duration) (g *guest, conn net.Conn, data, alone *atomic.Int64) {
	t.Helper()
	g = newGuest(t, "full")
	echoes(t, g.mustDial(originAddr, portEcho), "the stack runs")
	conn = g.mustDial(originAddr, port)
	g.net.link.acks.mu.Lock()
	g.net.link.acks.patience, g.net.link.acks.pause = patience, 0
	g.net.link.acks.mu.Unlock()
	data, alone = new(atomic.Int64), new(atomic.Int64)
	count := func(frame []byte) bool {
		if segment := segmentOf(frame); segment != nil && segment.SourcePort() == port {
			if len(segment) > int(segment.DataOffset()) {
				data.Add(1)
			} else if segment.Flags() == header.TCPFlagAck {
				alone.Add(1)
			}
		}
		return false
	}
	g.loses.Store(&count)
	return g, conn, data, alone
}

func TestAnswerAcknowledges(t *testing.T) {
	_, conn, data, alone := newAckGuest(t, portEcho, time.Hour)
	for range 50 {
		echoes(t, conn, "request")
	}
	if data.Load() != 50 || alone.Load() != 0 {
		t.Errorf("50 answers came in %d frames, with %d acknowledgements alone", data.Load(), alone.Load())
	}
}

func TestAcknowledgementWithoutAnswer(t *testing.T) {
	t.Run("late", func(t *testing.T) {
		g, conn, _, alone := newAckGuest(t, portSink, ackPatience)
		io.WriteString(conn, "nobody answers this")
		g.eventually("it is acknowledged", func() bool { return alone.Load() > 0 })
		g.net.link.acks.mu.Lock()
		g.net.link.acks.patience = time.Hour
		g.net.link.acks.mu.Unlock()
		for i := range int64(ackPause) {
			io.WriteString(conn, "nor this")
			g.eventually("the next are acknowledged at once", func() bool { return alone.Load() > 1+i })
		}
	})
	t.Run("before the second request", func(t *testing.T) {
		g, conn, _, alone := newAckGuest(t, portSink, time.Hour)
		io.WriteString(conn, "one")
		g.eventually("its acknowledgement is held", func() bool {
			g.net.link.acks.mu.Lock()
			defer g.net.link.acks.mu.Unlock()
			return g.net.link.acks.held != nil
		})
		io.WriteString(conn, "two")
		g.eventually("both are acknowledged", func() bool { return alone.Load() > 0 })
	})
	t.Run("before another connection's", func(t *testing.T) {
		g, conn, _, alone := newAckGuest(t, portSink, time.Hour)
		io.WriteString(conn, "one")
		echoes(t, g.mustDial(originAddr, portEcho), "two")
		g.eventually("the first is acknowledged", func() bool { return alone.Load() > 0 })
	})
	t.Run("a large one", func(t *testing.T) {
		g, conn, _, alone := newAckGuest(t, portSink, time.Hour)
		conn.Write(make([]byte, 10*maxRequest))
		g.eventually("it is acknowledged", func() bool { return alone.Load() > 0 })
	})
}
