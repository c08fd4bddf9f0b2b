package channel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// maxConnectLine is the longest line of the vsock convention: "CONNECT 4294967295\n" and as much again.
const maxConnectLine = 40

const connectTimeout = 10 * time.Second

// Server makes one session look like a vsock device: see [Serve].
type Server struct {
	listener  net.Listener
	guestSock string
	cancel    context.CancelFunc
	clients   chan struct{} // one slot each; more wait in the listener
	greeted   chan struct{} // closed when session or err is set
	ended     chan struct{}
	session   *Session
	err       error
}

// Serve makes the byte stream rwc, with a guest on its other end, look like a vsock device on the unix socket guestSock:
// clients write "CONNECT <port>\n", read "OK <port>\n" and then talk to that port of the guest; connections that the
// guest opens to port N go to the socket guestSock_N. It listens at once and greets the guest in the background; clients
// wait until then. It owns rwc. Only processes of this user are served.
func Serve(rwc io.ReadWriteCloser, guestSock string) (*Server, error) {
	listener, err := Listen(guestSock)
	if err != nil {
		rwc.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{listener: listener, guestSock: guestSock, cancel: cancel,
		clients: make(chan struct{}, maxStreams), greeted: make(chan struct{}), ended: make(chan struct{})}
	go s.run(ctx, rwc)
	go s.accept(ctx)
	return s, nil
}

// Done is closed when the session has ended or could not begin; then [Server.Err] says why.
func (s *Server) Done() <-chan struct{} { return s.ended }

// Err is why the session ended. It waits for Done.
func (s *Server) Err() error {
	<-s.ended
	return s.err
}

// Close ends the session, its connections and the listener, and removes the socket.
func (s *Server) Close() error {
	s.cancel()
	<-s.ended
	return nil
}

func (s *Server) run(ctx context.Context, rwc io.ReadWriteCloser) {
	defer close(s.ended)
	defer s.listener.Close()
	defer s.cancel()
	session, err := Host(ctx, rwc)
	s.session, s.err = session, err
	close(s.greeted)
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { session.Close() })
	defer stop()
	s.err = session.Serve(s.route)
}

// route connects a stream of the guest to the socket of its port on the host.
func (s *Server) route(port uint32) Handler {
	conn, err := net.DialTimeout("unix", GuestPort(s.guestSock, port), connectTimeout)
	if err != nil {
		return nil
	}
	return func(stream net.Conn) { splice(stream, conn, conn) }
}

// GuestPort is the socket that the guest's connections to a port of the host reach.
func GuestPort(guestSock string, port uint32) string { return fmt.Sprintf("%s_%d", guestSock, port) }

func (s *Server) accept(ctx context.Context) {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.clients <- struct{}{}
		go func() {
			defer func() { <-s.clients }()
			s.connect(ctx, conn)
		}()
	}
}

func (s *Server) connect(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReaderSize(conn, maxConnectLine)
	conn.SetReadDeadline(time.Now().Add(connectTimeout))
	line, err := r.ReadSlice('\n')
	if err != nil {
		return
	}
	port, err := parseConnect(string(line))
	if err != nil {
		return
	}
	conn.SetReadDeadline(time.Time{})
	<-s.greeted
	if s.session == nil {
		return
	}
	stream, err := s.session.Open(ctx, port)
	if err != nil {
		return
	}
	defer stream.Close()
	if _, err := fmt.Fprintf(conn, "OK %d\n", port); err == nil {
		splice(stream, conn, r)
	}
}

// parseConnect reads a client's first line, "\n" included.
func parseConnect(line string) (port uint32, err error) {
	number, ok := strings.CutPrefix(line, "CONNECT ")
	number, ended := strings.CutSuffix(number, "\n")
	n, err := strconv.ParseUint(number, 10, 32)
	if !ok || !ended || err != nil || strconv.FormatUint(n, 10) != number {
		return 0, banger.Invalidf("line %q: want CONNECT <port>", line)
	}
	return uint32(n), nil
}

// splice copies from a client to a stream and back until both directions have ended; fromClient reads client, what was
// read ahead of it first. A client that is gone ends both.
func splice(stream, client net.Conn, fromClient io.Reader) {
	defer client.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		Copy(stream, fromClient)
		closeWrite(stream)
	})
	if _, err := Copy(client, stream); err != nil {
		client.Close()
		stream.Close()
	}
	closeWrite(client)
	wg.Wait()
}

// Copy is io.Copy by reads and writes as large as a frame. Left to themselves readers and writers take what they have: a bufio.Reader,
// above all, hands on its own buffer again and again, however small.
func Copy(dst io.Writer, src io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, maxFrame))
}

func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}

// Dial connects to a port of the guest behind guestSock, be it a [Server] or a VMM's own vsock device.
// Errors: ErrUnavailable when the machine is gone or nobody serves that port.
func Dial(ctx context.Context, guestSock string, port uint32) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", guestSock)
	if err != nil {
		return nil, unavailable(port, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(longAgo) })
	err = requestPort(conn, port)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, unavailable(port, err)
	}
	return conn, nil
}

// requestPort reads the answer byte by byte: what follows it belongs to the connection.
func requestPort(rw io.ReadWriter, port uint32) error {
	if _, err := fmt.Fprintf(rw, "CONNECT %d\n", port); err != nil {
		return err
	}
	var line []byte
	for len(line) < maxConnectLine {
		var b [1]byte
		if _, err := io.ReadFull(rw, b[:]); err != nil {
			return fmt.Errorf("refused: %w", err)
		}
		if b[0] == '\n' {
			break
		}
		line = append(line, b[0])
	}
	// The number is the port of the host's side: Firecracker makes one up.
	number, ok := strings.CutPrefix(string(line), "OK ")
	if _, err := strconv.ParseUint(number, 10, 32); !ok || err != nil {
		return fmt.Errorf("unexpected answer %q", line)
	}
	return nil
}

// Listen listens on a unix socket that only this user can connect to (0600, and the peer's uid is checked). A stale
// socket of this user is replaced. Errors: ErrUnavailable; ErrConflict when something else has that name.
func Listen(path string) (net.Listener, error) {
	fail := func(kind, err error) (net.Listener, error) {
		return nil, &banger.Error{Kind: kind, Op: "listen on", Subject: path, Err: err}
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fail(banger.ErrUnavailable, err)
	case info.Mode().Type() != fs.ModeSocket || int(info.Sys().(*syscall.Stat_t).Uid) != os.Getuid():
		return fail(banger.ErrConflict, errors.New("the path is taken, by no socket of this user"))
	default:
		if err := os.Remove(path); err != nil {
			return fail(banger.ErrUnavailable, err)
		}
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fail(banger.ErrUnavailable, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return fail(banger.ErrUnavailable, err)
	}
	return ownListener{listener}, nil
}

// ownListener accepts processes of this user only.
type ownListener struct{ *net.UnixListener }

func (l ownListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(conn); err == nil && uid == os.Getuid() {
			return conn, nil
		}
		conn.Close()
	}
}

func peerUID(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}
