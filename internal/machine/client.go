package machine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"banger"
	"banger/internal/statedir"
)

// longAgo is a deadline that ends what waits.
var longAgo = time.Unix(1, 0)

// Client speaks to the supervisor of one VM. All its methods fail with ErrUnavailable when none answers, and with
// ErrInterrupted when ctx ends first.
type Client struct {
	Socket string
	// Runs tells whether the VM runs as far as the daemon knows. Then a supervisor that died is being replaced: while none answers, it is
	// tried again for [replaceTimeout] at most. It is for requests that nothing has been done for without an answer.
	Runs func(ctx context.Context) bool // optional: one attempt
}

const (
	replaceTimeout = 10 * time.Second
	replacePause   = 100 * time.Millisecond
)

// connection is a conversation after the answer's first line. Its reads begin with what the reader holds already, so that
// the socket is behind an interface: with its descriptor in reach, io.Copy into a file would read past the reader.
type connection struct {
	net.Conn
	r      *bufio.Reader
	answer Response
}

func (c *connection) Read(p []byte) (int, error) { return c.r.Read(p) }

// CloseWrite ends this direction; the peer reads EOF.
func (c *connection) CloseWrite() error { return c.Conn.(*net.UnixConn).CloseWrite() }

// ask sends a request and reads the answer's first line.
func (c Client) ask(ctx context.Context, req Request) (*connection, error) {
	for deadline := time.Now().Add(replaceTimeout); ; {
		conn, err := c.askOnce(ctx, req)
		if err == nil && conn.answer.Error != nil {
			conn.Close()
			return nil, conn.answer.Error.Decode()
		}
		if !errors.Is(err, banger.ErrUnavailable) || c.Runs == nil || time.Now().After(deadline) || !c.Runs(ctx) {
			return conn, err
		}
		select {
		case <-time.After(replacePause):
		case <-ctx.Done():
		}
	}
}

func (c Client) askOnce(ctx context.Context, req Request) (*connection, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "unix", c.Socket)
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	conn := &connection{Conn: raw, r: bufio.NewReader(raw)}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(longAgo) })
	err = writeLine(conn, req)
	if err == nil || errors.Is(err, syscall.EPIPE) { // a machine that hangs up may have said why
		err = noEOF(readLine(conn.r, &conn.answer))
	}
	if !stop() || err != nil {
		conn.Close()
		return nil, c.failed(ctx, err)
	}
	return conn, nil
}

func (c Client) failed(ctx context.Context, err error) error {
	failed := &banger.Error{Kind: banger.ErrUnavailable, Op: "ask machine", Subject: c.Socket, Err: err}
	switch {
	case ctx.Err() != nil:
		failed.Kind, failed.Err = banger.ErrInterrupted, context.Cause(ctx)
	case errors.Is(err, banger.ErrInvalid):
		failed.Kind = banger.ErrInvalid
	}
	return failed
}

// answer is for requests whose answer is one line.
func (c Client) answer(ctx context.Context, req Request) (Response, error) {
	conn, err := c.ask(ctx, req)
	if err != nil {
		return Response{}, err
	}
	return conn.answer, conn.Close()
}

func (c Client) status(ctx context.Context, req Request) (Status, error) {
	resp, err := c.answer(ctx, req)
	if err == nil && resp.Status == nil {
		err = c.noAnswer()
	}
	if err != nil {
		return Status{}, err
	}
	return *resp.Status, nil
}

func (c Client) exit(ctx context.Context, req Request) (banger.Exit, error) {
	resp, err := c.answer(ctx, req)
	if err == nil && resp.Exit == nil {
		err = c.noAnswer()
	}
	if err != nil {
		return banger.Exit{}, err
	}
	return *resp.Exit, nil
}

func (c Client) noAnswer() error {
	return &banger.Error{Kind: banger.ErrUnsupported, Op: "ask machine", Subject: c.Socket, Err: errors.New("it answers something else")}
}

// Status tells where the run is.
func (c Client) Status(ctx context.Context) (Status, error) {
	return c.status(ctx, Request{Status: &struct{}{}})
}

// Ready waits until the guest is ready or the run has ended.
func (c Client) Ready(ctx context.Context) (Status, error) {
	return c.status(ctx, Request{Ready: &struct{}{}})
}

// Init is Ready that also waits for the image's own init, if that is process 1, but no longer than [InitPatience].
func (c Client) Init(ctx context.Context) (Status, error) {
	return c.status(ctx, Request{Init: &struct{}{}})
}

// Wait waits until the run has ended. When no supervisor answers, the record of a run that has ended already counts.
func (c Client) Wait(ctx context.Context) (banger.Exit, error) {
	exit, err := c.exit(ctx, Request{Wait: &struct{}{}})
	if !errors.Is(err, banger.ErrUnavailable) {
		return exit, err
	}
	if record, recordErr := ReadExit(c.dir().ExitRecord()); recordErr == nil {
		return record, nil
	}
	return exit, err
}

// Shutdown asks the guest to power off, kills the VMM after timeout (0: at once), and waits until the run has ended. The
// end of ctx ends the waiting only.
func (c Client) Shutdown(ctx context.Context, timeout time.Duration) (banger.Exit, error) {
	return c.exit(ctx, Request{Shutdown: &ShutdownRequest{Timeout: timeout}})
}

// Signal sends the VMM a signal.
func (c Client) Signal(ctx context.Context, sig syscall.Signal) error {
	_, err := c.answer(ctx, Request{Signal: &SignalRequest{Signal: sig}})
	return err
}

// Rename gives the guest another host name; it has that when Rename returns, or gets it when it is ready.
func (c Client) Rename(ctx context.Context, name string) error {
	_, err := c.answer(ctx, Request{Rename: &RenameRequest{Name: name}})
	return err
}

// Connect connects to a port of the guest channel; ctx bounds the connecting only. The connection has CloseWrite.
func (c Client) Connect(ctx context.Context, port uint32) (net.Conn, error) {
	conn, err := c.ask(ctx, Request{Connect: &ConnectRequest{Port: port}})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// dir is where the socket and the run's records are.
func (c Client) dir() statedir.VMDir { return statedir.VMDir{Path: filepath.Dir(c.Socket)} }

// ReadExit reads the record of a run's end. Errors: fs.ErrNotExist; ErrCorrupt.
func ReadExit(path string) (banger.Exit, error) {
	f, err := os.Open(path)
	if err != nil {
		return banger.Exit{}, err
	}
	defer f.Close()
	var exit banger.Exit
	if err := json.NewDecoder(io.LimitReader(f, maxLine)).Decode(&exit); err != nil {
		return banger.Exit{}, fmt.Errorf("%w: %s: %w", banger.ErrCorrupt, path, err)
	}
	return exit, nil
}
