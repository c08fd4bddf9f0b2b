package netstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"banger"
	"banger/internal/egress"
)

// Probes of connections in which nothing moves, on both sides: an end that forgot its connection says so.
const (
	keepIdle     = 2 * time.Minute
	keepInterval = 30 * time.Second
	keepCount    = 4
)

// bufferSizes are what a connection may hold in each direction, by how many there are already: few are fast, and many take
// less than 300 MB even when neither end reads.
var bufferSizes = []struct{ from, size int }{{0, 512 << 10}, {32, 128 << 10}, {manyFlows, 16 << 10}}

const (
	manyFlows  = 256
	largeChunk = 128 << 10
	smallChunk = 16 << 10
)

// largeChunks and smallChunks are the buffers of copies; one is held only while data moves.
var largeChunks, smallChunks = newChunks(largeChunk), newChunks(smallChunk)

func newChunks(size int) *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, size); return &b }}
}

// takeChunk gives a buffer to a flow; one of many gets a small one.
func (f *flow) takeChunk() []byte {
	if f.crowded {
		return *smallChunks.Get().(*[]byte)
	}
	return *largeChunks.Get().(*[]byte)
}

func putChunk(b []byte) {
	b = b[:cap(b)]
	if len(b) == smallChunk {
		smallChunks.Put(&b)
		return
	}
	largeChunks.Put(&b)
}

// acceptTCP answers a SYN of the guest once it is known what becomes of it: a connection that fails is refused.
func (s *Stack) acceptTCP(r *tcp.ForwarderRequest) {
	id := r.ID()
	t := s.target("tcp", addrOf(id.LocalAddress), id.LocalPort)
	f := s.flows.begin(s.life, t)
	if f == nil {
		r.Complete(true)
		s.cfg.Log(t.event(banger.NetDenied, "the VM has too many connections"))
		return
	}
	defer s.flows.end(f)
	conn, err := s.open(f)
	if err != nil {
		r.Complete(true)
		s.failed(f, err)
		return
	}
	defer conn.Close()
	var queue waiter.Queue
	ep, tcpErr := s.shakeHands(f, r, &queue)
	if tcpErr != nil {
		r.Complete(true)
		s.cfg.Log(f.event(banger.NetFailed, "the guest gave up"))
		return
	}
	r.Complete(false)
	s.cfg.Log(f.event(banger.NetAllowed, ""))
	tune(ep, s.flows.tcpCount())
	s.carry(f, &guestEnd{ep: ep, queue: &queue}, newSocket(conn))
	s.tell(f)
}

// shakeHands answers the guest's SYN and waits until it has answered that. gVisor would wait for two minutes, and a few hundred connections
// that a guest leaves half open would keep it from making others for as long.
func (s *Stack) shakeHands(f *flow, r *tcp.ForwarderRequest, queue *waiter.Queue) (tcpip.Endpoint, tcpip.Error) {
	id := r.ID()
	ctx, cancel := context.WithTimeout(f.ctx, s.patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		ip := s.ip
		s.mu.Unlock()
		if ip == nil {
			return // with it went the connection
		}
		if ep := ip.FindTransportEndpoint(protocolOf(addrOf(id.LocalAddress)), tcp.ProtocolNumber, id, nic); ep != nil {
			ep.Abort()
		}
	})()
	return r.CreateEndpoint(queue)
}

func (s *Stack) failed(f *flow, err error) {
	var r refusal
	if errors.As(err, &r) {
		s.cfg.Log(f.event(banger.NetDenied, r.reason))
		return
	}
	s.cfg.Log(f.event(banger.NetFailed, why(err)))
}

func tune(ep tcpip.Endpoint, open int) {
	size := bufferSizes[0].size
	for _, b := range bufferSizes {
		if open > b.from {
			size = b.size
		}
	}
	options := ep.SocketOptions()
	options.SetSendBufferSize(int64(size), true)
	options.SetReceiveBufferSize(int64(size), true)
	options.SetKeepAlive(true)
	options.SetDelayOption(false)
	idle, interval := tcpip.KeepaliveIdleOption(keepIdle), tcpip.KeepaliveIntervalOption(keepInterval)
	_ = ep.SetSockOpt(&idle)
	_ = ep.SetSockOpt(&interval)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepCount)
}

// carry copies both ways until both ends have finished, or one breaks, or the flow is cut.
func (s *Stack) carry(f *flow, guest *guestEnd, host socket) {
	aborted := make(chan struct{})
	whole := context.AfterFunc(f.ctx, func() {
		guest.ep.Abort()
		abort(host.Conn)
		close(aborted)
	})
	var in sync.WaitGroup
	in.Go(func() {
		if err := s.copyIn(f, guest, host); err != nil {
			f.cut(reasonOf(err))
		}
	})
	if err := s.copyOut(f, guest, host); err != nil {
		f.cut(reasonOf(err))
	}
	in.Wait()
	if !whole() {
		<-aborted
	}
	guest.ep.Close()
}

// reasonOf says why a connection broke.
func reasonOf(err error) string {
	var r refusal
	switch {
	case errors.As(err, &r):
		return r.reason
	case errors.Is(err, errGuest):
		return "the guest reset it"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the other side reset it"
	}
	return why(err)
}

// abort makes the peer see a reset: it must not take what it got for all there was.
func abort(conn net.Conn) {
	if c, ok := conn.(*net.TCPConn); ok {
		c.SetLinger(0)
	}
	conn.Close()
}

// copyOut carries what the guest sends. Its first bytes are held back until they show that they may go out.
func (s *Stack) copyOut(f *flow, guest *guestEnd, host socket) error {
	check := s.helloCheck(f)
	var held []byte
	send := func(b []byte) error {
		n, err := host.Write(b)
		s.flows.sent.Add(int64(n))
		return err
	}
	return guest.read(f.takeChunk, func(b []byte) error {
		f.sent.Add(int64(len(b)))
		if check != nil {
			held = append(held, b...)
			switch err := check(held); {
			case errors.Is(err, egress.ErrShort):
				return nil
			case err != nil:
				s.cfg.Log(f.event(banger.NetDenied, err.Error()))
				return err
			}
			b, held, check = held, nil, nil
		}
		return send(b)
	}, func() error {
		if err := send(held); err != nil { // what is too short for a hello asks for nothing
			return err
		}
		return closeWrite(host.Conn)
	})
}

func closeWrite(conn net.Conn) error {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return conn.Close()
}

// helloCheck gives what the guest's first bytes must pass: nil when any will do, else a function of all that came up to
// now, which answers egress.ErrShort until it knows.
func (s *Stack) helloCheck(f *flow) func([]byte) error {
	policy := s.policy.Load()
	strict := f.bound && !isVMName(f.name)
	if !strict && !policy.Watched() {
		return nil
	}
	return func(b []byte) error {
		hello, err := egress.ParseHello(b)
		switch {
		case errors.Is(err, egress.ErrNoTLS):
			return nil
		case errors.Is(err, egress.ErrShort):
			return err
		case strict && err != nil:
			return refusal{err.Error()}
		case strict && hello.Encrypted:
			return refusal{"the TLS client hides the name it wants (ECH)"}
		case strict && hello.ServerName == "":
			return refusal{"the TLS client names no server"}
		case strict && hello.ServerName != f.name:
			return refusal{fmt.Sprintf("the TLS client wants another name: %.100q", hello.ServerName)}
		case err == nil && hello.ServerName != "" && policy.Watched():
			if v := policy.Name(hello.ServerName, f.port); !v.Allowed && policy.Open {
				return refusal{fmt.Sprintf("the TLS client wants %.100q: %s", hello.ServerName, v.Reason)}
			}
		}
		return nil
	}
}

// copyIn carries what the host's side sends.
func (s *Stack) copyIn(f *flow, guest *guestEnd, host socket) error {
	for {
		b, err := host.readWhenReady(f.takeChunk)
		if len(b) > 0 {
			f.received.Add(int64(len(b)))
			s.flows.received.Add(int64(len(b)))
			writeErr := guest.write(b)
			putChunk(b)
			if writeErr != nil {
				return writeErr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			guest.ep.Shutdown(tcpip.ShutdownWrite)
			return nil
		case err != nil:
			return err
		}
	}
}

// guestEnd is the guest's side of a connection.
type guestEnd struct {
	ep    tcpip.Endpoint
	queue *waiter.Queue
}

var errGuest = errors.New("the guest's connection is gone")

// read hands over what the guest sends until it has finished, which done is told. It holds no buffer while it waits.
func (g *guestEnd) read(take func() []byte, each func([]byte) error, done func() error) error {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	g.queue.EventRegister(&entry)
	defer g.queue.EventUnregister(&entry)
	for {
		chunk := take()
		w := tcpip.SliceWriter(chunk)
		result, err := g.ep.Read(&w, tcpip.ReadOptions{})
		var eachErr error
		if result.Count > 0 {
			eachErr = each(chunk[:result.Count])
		}
		putChunk(chunk)
		if eachErr != nil {
			return eachErr
		}
		switch err.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			<-ready
		case *tcpip.ErrClosedForReceive:
			return done()
		default:
			return errGuest
		}
	}
}

// write sends b whole.
func (g *guestEnd) write(b []byte) error {
	var ready chan struct{}
	r := bytes.NewReader(b)
	for r.Len() > 0 {
		_, err := g.ep.Write(r, tcpip.WriteOptions{})
		switch err.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			if ready == nil {
				var entry waiter.Entry
				entry, ready = waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
				g.queue.EventRegister(&entry)
				defer g.queue.EventUnregister(&entry)
				continue // it may have become writable before it was watched
			}
			<-ready
		default:
			return errGuest
		}
	}
	return nil
}
