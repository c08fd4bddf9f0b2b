package channel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"banger"
)

const (
	maxFrame   = 64 << 10 // bytes of one yamux frame's body that this package writes
	maxStreams = 256      // that the peer may hold open at a time

	// A VM may be paused or starved for long; then nothing on its channel is late.
	endlessly = 10 * 365 * 24 * time.Hour

	portTimeout = time.Minute // for a stream's first bytes
)

// longAgo is a deadline that ends what waits.
var longAgo = time.Unix(1, 0)

// Answers to the port number that begins each stream.
const (
	portAccepted = 0
	portRefused  = 1
)

var (
	errTooManyStreams = errors.New("too many streams are open")
	errSessionEnded   = errors.New("the session with the guest has ended")
)

// Session is the multiplexed channel between host and guest, after the hello. It is safe for concurrent use.
type Session struct {
	mux *yamux.Session

	mu     sync.Mutex
	err    error                // why this side ended it
	opened map[*streamConn]bool // by this side, until both directions have ended
	taken  map[*streamConn]bool // from the peer
}

func newSession(r io.Reader, rwc io.ReadWriteCloser, host bool) (*Session, error) {
	cfg := yamux.DefaultConfig()
	cfg.LogOutput = io.Discard
	cfg.EnableKeepAlive = false
	cfg.MaxStreamWindowSize = maxWindow
	cfg.StreamOpenTimeout = 0
	cfg.StreamCloseTimeout = endlessly
	cfg.ConnectionWriteTimeout = endlessly
	conn := struct {
		io.Reader
		io.Writer
		io.Closer
	}{&frameReader{r: r}, &frameWriter{w: rwc}, rwc}
	open := yamux.Server
	if host {
		open = yamux.Client
	}
	mux, err := open(conn, cfg)
	if err != nil {
		rwc.Close()
		return nil, fmt.Errorf("begin session: %w", err)
	}
	s := &Session{mux: mux, opened: map[*streamConn]bool{}, taken: map[*streamConn]bool{}}
	go s.release()
	return s, nil
}

// release ends the reads and writes that wait when the session ends. yamux makes them spin until it has closed every
// stream, which takes minutes when many spin.
func (s *Session) release() {
	<-s.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, set := range []map[*streamConn]bool{s.opened, s.taken} {
		for conn := range set {
			conn.SetDeadline(longAgo)
		}
	}
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.mux.CloseChan() }

// Close ends the session and all its streams, and closes what it runs on.
func (s *Session) Close() error { return s.mux.Close() }

// Open connects to a port of the peer. The connection has CloseWrite; Close ends both directions and discards what the
// peer still sends. Errors: ErrUnavailable when the session has ended or nobody serves that port.
func (s *Session) Open(ctx context.Context, port uint32) (net.Conn, error) {
	stream, err := s.mux.OpenStream()
	if err != nil {
		return nil, unavailable(port, err)
	}
	conn := &streamConn{Stream: stream, session: s, set: s.opened}
	err = s.admit(conn)
	stop := context.AfterFunc(ctx, func() { stream.SetDeadline(longAgo) })
	if err == nil {
		err = askPort(conn, port)
	}
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, unavailable(port, err)
	}
	return conn, nil
}

func askPort(rw io.ReadWriter, port uint32) error {
	if _, err := rw.Write(binary.BigEndian.AppendUint32(nil, port)); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(rw, answer[:]); err != nil {
		return err
	}
	if answer[0] != portAccepted {
		return errors.New("refused")
	}
	return nil
}

func unavailable(port uint32, err error) error {
	return &banger.Error{Kind: banger.ErrUnavailable, Op: "connect to guest port", Subject: fmt.Sprint(port), Err: err}
}

// Handler serves one connection; the connection is closed when it returns.
type Handler func(conn net.Conn)

// Serve takes the streams that the peer opens until the session ends, and says why it ended. For each, route gives who
// serves that port, or nil to refuse; it may block and runs concurrently.
func (s *Session) Serve(route func(port uint32) Handler) error {
	for {
		stream, err := s.mux.AcceptStream()
		if err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			return errors.Join(s.err, err)
		}
		conn := &streamConn{Stream: stream, session: s, set: s.taken}
		if err := s.admit(conn); err != nil {
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
			s.Close()
			continue
		}
		go serveStream(conn, route)
	}
}

func (s *Session) admit(conn *streamConn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(conn.set) >= maxStreams {
		return errTooManyStreams
	}
	conn.set[conn] = true
	return nil
}

func serveStream(conn *streamConn, route func(uint32) Handler) {
	defer conn.drain()
	defer conn.CloseWrite()
	var port [4]byte
	conn.SetReadDeadline(time.Now().Add(portTimeout))
	if _, err := io.ReadFull(conn, port[:]); err != nil {
		return
	}
	conn.SetReadDeadline(time.Time{})
	handler := route(binary.BigEndian.Uint32(port[:]))
	if handler == nil {
		conn.Write([]byte{portRefused})
		return
	}
	if _, err := conn.Write([]byte{portAccepted}); err == nil {
		handler(conn)
	}
}

// streamConn gives a yamux stream the usual meaning of Close and CloseWrite, and an error when its session is lost.
type streamConn struct {
	*yamux.Stream
	session *Session
	set     map[*streamConn]bool // of session; guarded by its mu
	drained sync.Once
}

func (c *streamConn) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p)
	if err != nil && n == 0 && c.session.mux.IsClosed() {
		err = errSessionEnded
	}
	return n, err
}

func (c *streamConn) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = c.Stream.Write(p[n:min(len(p), n+maxFrame)])
		n += m
	}
	return n, err
}

// CloseWrite ends this direction; the peer reads EOF.
func (c *streamConn) CloseWrite() error { return c.Stream.Close() }

// Close ends both directions. yamux has no reset: who does not read what the peer still sends would stop it for good.
func (c *streamConn) Close() error {
	err := c.Stream.Close()
	go c.drain()
	return err
}

// drain discards what the peer sends until its end.
func (c *streamConn) drain() {
	c.drained.Do(func() {
		if !c.session.mux.IsClosed() {
			c.SetReadDeadline(time.Time{})
		}
		io.Copy(io.Discard, c.Stream)
		c.session.mu.Lock()
		defer c.session.mu.Unlock()
		delete(c.set, c)
	})
}
