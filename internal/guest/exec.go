package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/crypto/ssh"

	"banger"
)

const (
	execChannel   = "exec@banger"
	resultRequest = "result@banger"
	maxExec       = 200 << 10 // bytes of a request: an SSH packet holds 256 KiB
	maxResult     = 64 << 10
)

// Stdio is what a command is connected to; nil fields read as empty, discard, or never come.
type Stdio struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer         // unused with a terminal
	Resize <-chan banger.PTY // new sizes of the terminal
	Signal <-chan string     // names as in banger.SignalNumber
}

// Exec runs a command in the guest and waits for its end and all its output. The end of ctx hangs it up. It does not
// wait for a Stdin that blocks. A command that could not be started is a result, no error.
// Errors: ErrUnavailable when the machine goes away or cannot take the command; ErrInvalid for a request that is too large.
func (c *Client) Exec(ctx context.Context, req banger.ExecRequest, stdio Stdio) (banger.ExecResult, error) {
	payload, err := json.Marshal(req)
	if err != nil {
		return banger.ExecResult{}, execError(req, fmt.Errorf("encode: %w", err))
	}
	if len(payload) > maxExec {
		return banger.ExecResult{}, &banger.Error{Kind: banger.ErrInvalid, Op: "exec", Subject: name(req),
			Err: fmt.Errorf("arguments and environment take %d bytes, the limit is %d", len(payload), maxExec)}
	}
	ch, reqs, err := c.open(ctx, payload)
	if err != nil {
		return banger.ExecResult{}, execError(req, err)
	}
	defer ch.Close()
	defer context.AfterFunc(ctx, func() { ch.Close() })()

	result := make(chan *banger.ExecResult, 1)
	go func() { result <- awaitResult(reqs) }()
	ended := make(chan struct{})
	go control(ch, stdio, ended)
	go func() {
		if stdio.Stdin != nil {
			io.Copy(ch, stdio.Stdin)
		}
		ch.CloseWrite()
	}()
	var outputs sync.WaitGroup
	var outErr, errErr error
	outputs.Go(func() { outErr = copyOut(stdio.Stdout, ch) })
	outputs.Go(func() { errErr = copyOut(stdio.Stderr, ch.Stderr()) })
	outputs.Wait()
	got := <-result
	close(ended)
	switch {
	case ctx.Err() != nil:
		return banger.ExecResult{}, &banger.Error{Kind: banger.ErrInterrupted, Op: "exec", Subject: name(req), Err: context.Cause(ctx)}
	case got == nil:
		return banger.ExecResult{}, execError(req, errGone)
	}
	return *got, errors.Join(outErr, errErr)
}

var errGone = errors.New("the machine went away")

func name(req banger.ExecRequest) string {
	if len(req.Argv) == 0 {
		return "login shell"
	}
	return req.Argv[0]
}

func execError(req banger.ExecRequest, err error) error {
	if refused, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		err = fmt.Errorf("the guest refuses: %.200q", refused.Message)
	} else if !errors.Is(err, errGone) {
		err = fmt.Errorf("%w: %w", errGone, err)
	}
	return &banger.Error{Kind: banger.ErrUnavailable, Op: "exec", Subject: name(req), Err: err}
}

// open opens the channel; a guest that never answers does not hold the caller beyond ctx.
func (c *Client) open(ctx context.Context, payload []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	type opened struct {
		ch   ssh.Channel
		reqs <-chan *ssh.Request
		err  error
	}
	answer := make(chan opened)
	go func() {
		var o opened
		o.ch, o.reqs, o.err = c.conn.OpenChannel(execChannel, payload)
		select {
		case answer <- o:
		case <-ctx.Done():
			if o.err == nil {
				go ssh.DiscardRequests(o.reqs)
				o.ch.Close()
			}
		}
	}()
	select {
	case o := <-answer:
		return o.ch, o.reqs, o.err
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
}

// awaitResult reads the guest's requests until the channel's end; nil means that it ended without a result.
func awaitResult(reqs <-chan *ssh.Request) (result *banger.ExecResult) {
	for req := range reqs {
		if req.Type == resultRequest && len(req.Payload) <= maxResult {
			var r banger.ExecResult
			if json.Unmarshal(req.Payload, &r) == nil {
				result = &r
			}
		}
		if req.WantReply {
			req.Reply(false, nil)
		}
	}
	return result
}

// copyOut copies all of it even when the writer fails: unread output would stop the channel.
func copyOut(w io.Writer, r io.Reader) error {
	if w == nil {
		w = io.Discard
	}
	_, err := io.Copy(w, r)
	if err != nil {
		io.Copy(io.Discard, r)
	}
	return err
}

// control passes sizes and signals on until the command has ended.
func control(ch ssh.Channel, stdio Stdio, ended <-chan struct{}) {
	for {
		select {
		case size, ok := <-stdio.Resize:
			if !ok {
				stdio.Resize = nil
				continue
			}
			ch.SendRequest("window-change", false, ssh.Marshal(struct{ Cols, Rows, Width, Height uint32 }{uint32(size.Cols), uint32(size.Rows), 0, 0}))
		case sig, ok := <-stdio.Signal:
			if !ok {
				stdio.Signal = nil
				continue
			}
			ch.SendRequest("signal", false, ssh.Marshal(struct{ Name string }{sig}))
		case <-ended:
			return
		}
	}
}
