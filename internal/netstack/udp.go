package netstack

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"banger"
	"banger/internal/egress"
)

// How long a UDP flow in which nothing moves is kept: until its first answer, and afterwards.
const (
	udpUnanswered = 30 * time.Second
	udpIdle       = 2 * time.Minute
	udpBuffer     = 128 << 10
)

// acceptUDP begins a flow with its first datagram. What is refused gets ICMP's "port unreachable" from the stack.
func (s *Stack) acceptUDP(r *udp.ForwarderRequest) (handled bool) {
	id := r.ID()
	t := s.target("udp", addrOf(id.LocalAddress), id.LocalPort)
	f := s.flows.begin(s.life, t)
	if f == nil {
		s.cfg.Log(t.event(banger.NetDenied, "the VM has too many UDP flows"))
		return true
	}
	v := s.first(s.policy.Load(), t)
	if v.Allowed && t.bound && t.port == 443 {
		v = egress.Verdict{Reason: "QUIC hides the name it wants"}
	}
	if !v.Allowed {
		s.flows.end(f)
		s.cfg.Log(t.event(banger.NetDenied, v.Reason))
		return false
	}
	var queue waiter.Queue
	ep, err := r.CreateEndpoint(&queue)
	if err != nil {
		s.flows.end(f)
		return true
	}
	ep.SocketOptions().SetReceiveBufferSize(udpBuffer, true)
	go s.serveUDP(f, &guestEnd{ep: ep, queue: &queue})
	return true
}

func (s *Stack) serveUDP(f *flow, guest *guestEnd) {
	defer s.flows.end(f)
	defer guest.ep.Close()
	conn, err := s.open(f)
	if err != nil {
		s.failed(f, err)
		return
	}
	s.cfg.Log(f.event(banger.NetAllowed, ""))
	idle := newIdle(f.cancel)
	defer idle.stop()
	var both sync.WaitGroup
	both.Go(func() {
		<-f.ctx.Done()
		guest.ep.Close()
		conn.Close()
	})
	both.Go(func() {
		defer f.cancel()
		s.datagramsIn(f, guest, conn.(*net.UDPConn), idle)
	})
	s.datagramsOut(f, guest, conn, idle)
	f.cancel()
	both.Wait()
	s.tell(f)
}

func (s *Stack) datagramsOut(f *flow, guest *guestEnd, conn net.Conn, idle *idle) {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	guest.queue.EventRegister(&entry)
	defer guest.queue.EventUnregister(&entry)
	for f.ctx.Err() == nil {
		chunk := *largeChunks.Get().(*[]byte)
		w := tcpip.SliceWriter(chunk)
		result, err := guest.ep.Read(&w, tcpip.ReadOptions{})
		b := chunk[:result.Count]
		switch {
		case err != nil:
		case f.bound && egress.LooksQUIC(b):
			f.cut("QUIC hides the name it wants")
			s.cfg.Log(f.event(banger.NetDenied, "QUIC hides the name it wants"))
		default:
			f.sent.Add(int64(len(b)))
			idle.touch(false)
			n, _ := conn.Write(b) // lost, as datagrams may be; a refusal shows when reading
			s.flows.sent.Add(int64(n))
		}
		putChunk(chunk)
		switch err.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			select {
			case <-ready:
			case <-f.ctx.Done():
			}
		default:
			return
		}
	}
}

// datagramsIn ends with the first error, which is how a port that nobody listens on shows.
func (s *Stack) datagramsIn(f *flow, guest *guestEnd, conn *net.UDPConn, idle *idle) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	for {
		var chunk []byte
		var n int
		var readErr error
		err := raw.Read(func(fd uintptr) bool {
			chunk = *largeChunks.Get().(*[]byte)
			if n, readErr = syscall.Read(int(fd), chunk); readErr != nil {
				putChunk(chunk)
			}
			return readErr != syscall.EAGAIN && readErr != syscall.EINTR
		})
		if err != nil || readErr != nil {
			if readErr != nil {
				f.cut(why(readErr))
			}
			return
		}
		f.received.Add(int64(n))
		s.flows.received.Add(int64(n))
		idle.touch(true)
		_, writeErr := guest.ep.Write(bytes.NewReader(chunk[:n]), tcpip.WriteOptions{})
		putChunk(chunk)
		switch writeErr.(type) {
		case nil, *tcpip.ErrWouldBlock, *tcpip.ErrNoBufferSpace, *tcpip.ErrMessageTooLong:
		default:
			return
		}
	}
}

// idle ends a flow in which nothing moves any more.
type idle struct {
	timer    *time.Timer
	answered atomic.Bool
	last     atomic.Int64 // when something moved, in nanoseconds since begun
	begun    time.Time
}

func newIdle(end func()) *idle {
	i := &idle{begun: time.Now()}
	i.timer = time.AfterFunc(udpUnanswered, func() {
		if left := i.patience() - time.Since(i.begun.Add(time.Duration(i.last.Load()))); left > 0 {
			i.timer.Reset(left)
			return
		}
		end()
	})
	return i
}

func (i *idle) patience() time.Duration {
	if i.answered.Load() {
		return udpIdle
	}
	return udpUnanswered
}

func (i *idle) touch(answer bool) {
	if answer {
		i.answered.Store(true)
	}
	i.last.Store(int64(time.Since(i.begun)))
}

func (i *idle) stop() { i.timer.Stop() }
