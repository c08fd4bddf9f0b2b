// Package entry is the one HTTP address through which a browser reaches every port of every VM: http://PORT.NAME.localhost:N.
//
// Browsers take all names below localhost for this computer, so that nothing has to be set up. A connection belongs to who its first
// request names: a browser never uses one for another name. A page of another site that gets its name to lead here (DNS rebinding)
// sends that name and is told that it is misdirected.
package entry

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"banger"
	"banger/internal/channel"
)

const (
	// DefaultPort is where the entry is unless that is taken.
	DefaultPort = 42080

	maxHead     = 32 << 10 // bytes of a request's line and headers
	headTimeout = 10 * time.Second
	dialTimeout = 30 * time.Second
	maxConns    = 512
	lastWords   = 100 * time.Millisecond
)

// Config wires an Entry.
type Config struct {
	// Dial connects to a port of a VM. Errors: ErrNotFound for an unknown VM; ErrConflict when it does not run; ErrUnavailable when
	// nobody listens.
	Dial func(ctx context.Context, name string, port uint16) (net.Conn, error)
	Log  *slog.Logger
}

// Entry takes connections on one address of the loopback.
type Entry struct {
	Config
	listener net.Listener
	slots    chan struct{}
}

// Listen begins to serve on 127.0.0.1 and port, or on another one when that is taken: see [Entry.Address].
func Listen(cfg Config, port int) (*Entry, error) {
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		listener, err = net.Listen("tcp4", "127.0.0.1:0")
	}
	if err != nil {
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "listen for HTTP", Err: err}
	}
	e := &Entry{Config: cfg, listener: listener, slots: make(chan struct{}, maxConns)}
	go e.accept()
	return e, nil
}

// Address is where the entry is.
func (e *Entry) Address() string { return e.listener.Addr().String() }

// Close takes no more connections; those that go on end with the process.
func (e *Entry) Close() error { return e.listener.Close() }

func (e *Entry) accept() {
	for {
		conn, err := e.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors
			e.Log.Warn("accept for HTTP", "err", err)
			time.Sleep(lastWords)
			continue
		}
		select {
		case e.slots <- struct{}{}:
			go func() {
				defer func() { <-e.slots }()
				e.serve(conn)
			}()
		default:
			conn.Close()
		}
	}
}

func (e *Entry) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReaderSize(conn, maxHead)
	conn.SetReadDeadline(time.Now().Add(headTimeout))
	host, err := peekHost(r)
	if errors.Is(err, banger.ErrInvalid) {
		answer(conn, http.StatusBadRequest, err.Error())
	}
	if err != nil {
		return
	}
	conn.SetReadDeadline(time.Time{})
	name, port, ok := parseHost(host)
	if !ok {
		answer(conn, http.StatusMisdirectedRequest, fmt.Sprintf("%q is no port of a VM: want http://PORT.NAME.localhost", host))
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	to, err := e.Dial(ctx, name, port)
	if err != nil {
		text := err.Error()
		if hint := banger.HintOf(err); hint != "" {
			text += "\nhint: " + hint
		}
		answer(conn, statusOf(err), text)
		return
	}
	defer to.Close()
	channel.Join(to, conn, r)
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, banger.ErrNotFound):
		return http.StatusMisdirectedRequest
	case errors.Is(err, banger.ErrConflict):
		return http.StatusServiceUnavailable
	}
	return http.StatusBadGateway
}

// answer tells what is wrong and ends the connection.
func answer(conn net.Conn, status int, text string) {
	conn.SetDeadline(time.Now().Add(headTimeout))
	fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: %d\r\nConnection: close\r\n\r\nbanger: %s\n",
		status, http.StatusText(status), len("banger: \n")+len(text), text)
	// To close at once would reset the connection while the client still sends, and the answer would be lost.
	if tcp, ok := conn.(*net.TCPConn); ok && tcp.CloseWrite() == nil {
		tcp.SetReadDeadline(time.Now().Add(lastWords))
		_, _ = io.Copy(io.Discard, io.LimitReader(tcp, maxHead))
	}
}

// peekHost reads a request's head ahead and gives whom it is for. Errors: ErrInvalid for what is no request.
func peekHost(r *bufio.Reader) (string, error) {
	for want := 1; ; {
		_, err := r.Peek(want)
		head, _ := r.Peek(r.Buffered())
		if end := bytes.Index(head, []byte("\r\n\r\n")); end >= 0 {
			return hostOf(head[:end+len("\r\n\r\n")])
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull), len(head) == maxHead:
			return "", banger.Invalidf("the request's headers take more than %d bytes", maxHead)
		case err != nil:
			return "", err
		}
		want = len(head) + 1
	}
}

func hostOf(head []byte) (string, error) {
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return "", banger.Invalidf("this is no HTTP/1 request: %v", err)
	}
	return req.Host, nil
}

// parseHost reads "3000.devbox.localhost:42080"; the port at the end does not matter.
func parseHost(host string) (name string, port uint16, ok bool) {
	if bare, _, err := net.SplitHostPort(host); err == nil {
		host = bare
	}
	host, ok = strings.CutSuffix(strings.ToLower(strings.TrimSuffix(host, ".")), ".localhost")
	number, name, dotted := strings.Cut(host, ".")
	n, err := strconv.ParseUint(number, 10, 16)
	if !ok || !dotted || err != nil || n == 0 || number != strconv.FormatUint(n, 10) || banger.ValidateVMName(name) != nil {
		return "", 0, false
	}
	return name, uint16(n), true
}
