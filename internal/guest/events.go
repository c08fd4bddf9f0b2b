package guest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"banger"
	"banger/internal/channel"
)

const helloTimeout = time.Minute

// Events takes the events streams of one guest: one for each boot, and again after a host has taken over.
type Events struct{ listener net.Listener }

// NewEvents takes streams from the socket of channel.PortEvents. It owns the listener.
func NewEvents(listener net.Listener) *Events { return &Events{listener} }

// Close ends Accept; streams live on.
func (e *Events) Close() error { return e.listener.Close() }

// Accept waits for a stream and its hello. Streams that begin with something else are dropped.
// Errors: [channel.VersionError] for a guest of another version; net.ErrClosed after Close.
func (e *Events) Accept(ctx context.Context) (*EventStream, error) {
	type accepted struct {
		conn net.Conn
		err  error
	}
	for {
		answer := make(chan accepted)
		go func() {
			conn, err := e.listener.Accept()
			select {
			case answer <- accepted{conn, err}:
			case <-ctx.Done():
				if err == nil {
					conn.Close()
				}
			}
		}()
		select {
		case a := <-answer:
			if a.err != nil {
				return nil, fmt.Errorf("wait for guest: %w", a.err)
			}
			stream, err := NewEventStream(a.conn)
			if err == nil || errors.Is(err, banger.ErrUnsupported) {
				return stream, err
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for guest: %w", context.Cause(ctx))
		}
	}
}

// EventStream is one stream of events. Its methods may be called concurrently.
type EventStream struct {
	conn   net.Conn
	hello  channel.Hello
	ready  chan channel.Ready
	events chan channel.FromGuest
	ended  chan struct{}
	err    error // of reading, when ended is closed
	closed context.Context
	close  context.CancelFunc

	writing sync.Mutex
	asking  sync.Mutex // one Identify at a time
}

// NewEventStream reads the hello from a connection of the guest, which it owns.
func NewEventStream(conn net.Conn) (*EventStream, error) {
	r := bufio.NewReaderSize(conn, channel.MaxFromGuest)
	conn.SetReadDeadline(time.Now().Add(helloTimeout))
	var m channel.FromGuest
	err := channel.ReadLine(r, &m, channel.MaxFromGuest)
	switch {
	case err != nil:
	case m.Hello == nil:
		err = banger.Invalidf("the events stream begins without a hello")
	case m.Hello.Version != channel.ProtocolVersion:
		err = &channel.VersionError{Host: channel.ProtocolVersion, Guest: uint32(m.Hello.Version)}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("events of guest: %w", err)
	}
	conn.SetReadDeadline(time.Time{})
	s := &EventStream{conn: conn, hello: *m.Hello, ready: make(chan channel.Ready, 1), events: make(chan channel.FromGuest, 16), ended: make(chan struct{})}
	s.closed, s.close = context.WithCancel(context.Background())
	go s.read(r)
	return s, nil
}

// Hello is the first line.
func (s *EventStream) Hello() channel.Hello { return s.hello }

// Done is closed when the stream has ended: the guest or its session is gone.
func (s *EventStream) Done() <-chan struct{} { return s.ended }

// Close ends the stream.
func (s *EventStream) Close() error {
	s.close()
	return s.conn.Close()
}

// read takes lines one at a time: a guest that sends faster than Next is called waits.
func (s *EventStream) read(r *bufio.Reader) {
	defer s.conn.Close()
	defer close(s.ended)
	for {
		var m channel.FromGuest
		if s.err = channel.ReadLine(r, &m, channel.MaxFromGuest); s.err != nil {
			return
		}
		if m.Ready == nil {
			select {
			case s.events <- m:
			case <-s.closed.Done():
			}
			continue
		}
		select {
		case s.ready <- *m.Ready:
		default: // nobody asked
		}
	}
}

// Identify tells the guest who it is and waits until it serves as that.
// Errors: ErrUnavailable when the stream ends first.
func (s *EventStream) Identify(ctx context.Context, id channel.Identify) (channel.Ready, error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	select {
	case <-s.ready: // of an Identify that was given up
	default:
	}
	if err := s.write(&channel.ToGuest{Identify: &id}); err != nil {
		return channel.Ready{}, s.gone("identify guest", err)
	}
	select {
	case ready := <-s.ready:
		return ready, nil
	case <-s.ended:
		return channel.Ready{}, s.gone("identify guest", s.err)
	case <-ctx.Done():
		return channel.Ready{}, &banger.Error{Kind: banger.ErrUnavailable, Op: "identify guest", Err: context.Cause(ctx)}
	}
}

// PowerOff asks the guest to power off, with grace between SIGTERM and SIGKILL for its processes. It does not wait.
func (s *EventStream) PowerOff(grace time.Duration) error {
	if err := s.write(&channel.ToGuest{PowerOff: &channel.PowerOff{Grace: grace}}); err != nil {
		return s.gone("power off guest", err)
	}
	return nil
}

// Next waits for the next event: System or Going. It must be called, or the guest's answers stop.
// Errors: io.EOF at the stream's end; ErrInvalid for a line that breaks the rules.
func (s *EventStream) Next(ctx context.Context) (channel.FromGuest, error) {
	select {
	case m := <-s.events:
		return m, nil
	case <-s.ended:
		select {
		case m := <-s.events:
			return m, nil
		default:
			return channel.FromGuest{}, s.err
		}
	case <-ctx.Done():
		return channel.FromGuest{}, context.Cause(ctx)
	}
}

func (s *EventStream) write(m channel.Message) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return channel.WriteLine(s.conn, m)
}

func (s *EventStream) gone(op string, err error) error {
	if errors.Is(err, io.EOF) {
		err = errGone
	}
	return &banger.Error{Kind: banger.ErrUnavailable, Op: op, Err: err}
}
