package machine

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"banger"
)

// Stdio is what a command is connected to; nil fields read as empty, discard, or never come.
type Stdio struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer         // unused with a terminal
	Resize <-chan banger.PTY // new sizes of the terminal
	Signal <-chan string     // names as in banger.SignalNumber
}

const (
	stdinChunk     = 32 << 10
	pendingSignals = 16 // more are dropped
)

var (
	errClientGone  = errors.New("the client is gone")
	errMachineGone = errors.New("the machine went away")
)

// Exec runs a command in the guest and waits for its end and all its output. The end of ctx hangs it up, and so does a
// Stdout or Stderr that takes no more. It does not wait for a Stdin that blocks. A command that could not be started is a
// result, no error.
// Errors: ErrInterrupted when ctx ends first; ErrUnavailable when the machine is not there or goes away; ErrInvalid for a
// request that is too large.
func (c Client) Exec(ctx context.Context, req banger.ExecRequest, stdio Stdio) (banger.ExecResult, error) {
	conn, err := c.ask(ctx, Request{Exec: &req})
	if err != nil {
		return banger.ExecResult{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	out := &frameWriter{w: conn}
	window := newWindow(stdinWindow)
	defer window.close()
	go sendStdin(out, window, stdio.Stdin)
	ended := make(chan struct{})
	defer close(ended)
	go sendControl(out, stdio, ended)
	result, err := receive(&frameReader{r: conn.r}, window, stdio)
	if ctx.Err() != nil {
		return banger.ExecResult{}, &banger.Error{Kind: banger.ErrInterrupted, Op: "exec", Err: context.Cause(ctx)}
	}
	return result, err
}

// receive passes output on until the command has ended.
func receive(frames *frameReader, window *window, stdio Stdio) (result banger.ExecResult, err error) {
	for {
		f, err := frames.next()
		if err != nil {
			return result, &banger.Error{Kind: banger.ErrUnavailable, Op: "exec", Err: fmt.Errorf("%w: %w", errMachineGone, noEOF(err))}
		}
		switch f.kind {
		case frameStdout:
			err = writeTo(stdio.Stdout, f.payload)
		case frameStderr:
			err = writeTo(stdio.Stderr, f.payload)
		case frameWindow:
			err = window.widen(f.payload)
		case frameResult:
			err = decodeResult(f.payload, &result)
			return result, err
		case frameFailed:
			var body banger.ErrorBody
			if err = decodeResult(f.payload, &body); err == nil {
				err = body.Decode()
			}
			return result, err
		default:
			err = unknownFrame(f)
		}
		if err != nil {
			return result, fmt.Errorf("exec: %w", err)
		}
	}
}

func unknownFrame(f frame) error {
	return fmt.Errorf("%w: frame of unknown kind %q", banger.ErrCorrupt, f.kind)
}

func decodeResult(payload []byte, v any) error {
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("%w: end of exec: %w", banger.ErrCorrupt, err)
	}
	return nil
}

func writeTo(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(p)
	return err
}

// sendStdin ends when the window is closed; an error of the connection shows to who reads from it.
func sendStdin(out *frameWriter, window *window, stdin io.Reader) {
	if stdin != nil {
		buf := make([]byte, stdinChunk)
		for {
			n, err := stdin.Read(buf)
			for rest := buf[:n]; len(rest) > 0; {
				m := window.take(len(rest))
				if m == 0 || out.write(frameStdin, rest[:m]) != nil {
					return
				}
				rest = rest[m:]
			}
			if err != nil {
				break
			}
		}
	}
	_ = out.write(frameStdinEnd, nil)
}

func sendControl(out *frameWriter, stdio Stdio, ended <-chan struct{}) {
	for {
		var err error
		select {
		case size, ok := <-stdio.Resize:
			if !ok {
				stdio.Resize = nil
				continue
			}
			err = out.write(frameResize, encodeSize(size))
		case name, ok := <-stdio.Signal:
			if !ok {
				stdio.Signal = nil
				continue
			}
			err = out.write(frameSignal, []byte(name))
		case <-ended:
			return
		}
		if err != nil {
			return
		}
	}
}

// window counts how much of stdin may still be sent.
type window struct {
	mu     sync.Mutex
	cond   sync.Cond
	size   int
	closed bool
}

func newWindow(size int) *window {
	w := &window{size: size}
	w.cond.L = &w.mu
	return w
}

// take waits for some of want; 0 when the window is closed.
func (w *window) take(want int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.size == 0 && !w.closed {
		w.cond.Wait()
	}
	if w.closed {
		return 0
	}
	n := min(want, w.size)
	w.size -= n
	return n
}

func (w *window) widen(payload []byte) error {
	if len(payload) != 4 {
		return fmt.Errorf("%w: window of %d bytes", banger.ErrCorrupt, len(payload))
	}
	more := binary.BigEndian.Uint32(payload)
	w.mu.Lock()
	defer w.mu.Unlock()
	if more > stdinWindow || w.size+int(more) > stdinWindow {
		return fmt.Errorf("%w: window of %d bytes more", banger.ErrCorrupt, more)
	}
	w.size += int(more)
	w.cond.Signal()
	return nil
}

func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.cond.Signal()
}

// Exec is what runs a command: see [ServeExec].
type Exec func(ctx context.Context, stdio Stdio) (banger.ExecResult, error)

// ServeExec answers an exec request on conn, of which r has read the first line: it runs the command with the client's
// streams and tells how it ended. The context of run ends when the client is gone. The caller closes conn afterwards; then
// the last goroutine ends.
func ServeExec(conn io.Writer, r *bufio.Reader, run Exec) error {
	if err := WriteResponse(conn, Response{}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	out := &frameWriter{w: conn}
	in := newStdin(func(n int) { _ = out.write(frameWindow, binary.BigEndian.AppendUint32(nil, uint32(n))) })
	defer in.end(io.ErrClosedPipe)
	resize, signal := make(chan banger.PTY, 1), make(chan string, pendingSignals)
	go func() {
		err := take(&frameReader{r: r}, in, resize, signal)
		in.end(err)
		cancel(err)
	}()
	result, err := run(ctx, Stdio{Stdin: in, Stdout: stream{out, frameStdout}, Stderr: stream{out, frameStderr}, Resize: resize, Signal: signal})
	kind, end := byte(frameResult), any(result)
	if err != nil {
		kind, end = frameFailed, banger.EncodeError(err, "")
	}
	payload, err := json.Marshal(end)
	if err == nil && len(payload) > maxPayload {
		kind = frameFailed
		payload, err = json.Marshal(banger.EncodeError(banger.Invalidf("the end of the command takes %d bytes", len(payload)), ""))
	}
	if err != nil {
		return err
	}
	return out.write(kind, payload)
}

// take handles the client's frames until it is gone, and says why.
func take(frames *frameReader, in *stdin, resize chan banger.PTY, signal chan string) error {
	for {
		f, err := frames.next()
		if err != nil {
			return fmt.Errorf("%w: %w", errClientGone, err)
		}
		switch f.kind {
		case frameStdin:
			err = in.push(f.payload)
		case frameStdinEnd:
			in.end(io.EOF)
		case frameResize:
			var size banger.PTY
			if size, err = decodeSize(f.payload); err == nil {
				replace(resize, size)
			}
		case frameSignal:
			if name := string(f.payload); banger.SignalNumber(name) != 0 {
				select {
				case signal <- name:
				default:
				}
			}
		default:
			err = unknownFrame(f)
		}
		if err != nil {
			return err
		}
	}
}

// replace puts a size into its channel of one, in place of an older one. There is one caller.
func replace(resize chan banger.PTY, size banger.PTY) {
	for {
		select {
		case resize <- size:
			return
		default:
		}
		select {
		case <-resize:
		default:
		}
	}
}

// stdin holds what the client sent and the command has not taken.
type stdin struct {
	taken func(n int)

	mu   sync.Mutex
	cond sync.Cond
	buf  []byte
	err  error // what follows buf
}

func newStdin(taken func(int)) *stdin {
	s := &stdin{taken: taken}
	s.cond.L = &s.mu
	return s
}

func (s *stdin) push(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil
	}
	if len(s.buf)+len(p) > stdinWindow {
		return fmt.Errorf("%w: stdin beyond its window", banger.ErrCorrupt)
	}
	s.buf = append(s.buf, p...)
	s.cond.Signal()
	return nil
}

// end says what follows the last byte; the first call counts.
func (s *stdin) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	s.cond.Broadcast()
}

// Read implements io.Reader.
func (s *stdin) Read(p []byte) (int, error) {
	n, err := s.read(p)
	if n > 0 {
		s.taken(n)
	}
	return n, err
}

func (s *stdin) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.buf) == 0 && s.err == nil {
		s.cond.Wait()
	}
	n := copy(p, s.buf)
	s.buf = append(s.buf[:0], s.buf[n:]...)
	if n == 0 {
		return 0, s.err
	}
	return n, nil
}
