package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"banger"
)

// Console copies the console to w: what the request names, and with Follow what comes after it until the run ends. Of a VM that
// no supervisor serves it copies what is left of its last runs. It gives the position behind the last byte copied.
func (c Client) Console(ctx context.Context, req ConsoleRequest, w io.Writer) (end uint64, err error) {
	return c.readFrom(ctx, Request{Console: &req}, req, c.dir().ConsoleRing(), w)
}

// readFrom copies what is asked for of a ring: of a supervisor by ask, or of the file when none serves.
func (c Client) readFrom(ctx context.Context, ask Request, req ConsoleRequest, ring string, w io.Writer) (end uint64, err error) {
	conn, err := c.ask(ctx, ask)
	if errors.Is(err, banger.ErrUnavailable) {
		return oldRing(ring, req, w)
	}
	if err != nil {
		return req.From, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(longAgo) })()
	if conn.answer.Console == nil {
		return req.From, c.noAnswer()
	}
	out := &counted{w: w}
	_, err = io.Copy(out, conn)
	end = conn.answer.Console.From + out.n
	switch {
	case out.err != nil:
		return end, out.err
	case ctx.Err() != nil:
		return end, c.failed(ctx, err)
	case err != nil && !req.Follow: // who follows learns from the VM's state what has become of a supervisor
		return end, fmt.Errorf("console: %w", err)
	}
	return end, nil
}

// FollowConsole is Console that goes on over all runs and supervisors to come: a guest's reboot, a supervisor's death. It returns
// when over is closed and everything until then is copied.
func (c Client) FollowConsole(ctx context.Context, req ConsoleRequest, w io.Writer, over <-chan struct{}) error {
	sockets, err := watchSocket(c.Socket)
	if err != nil {
		return err
	}
	defer sockets.close()
	req.Follow = true
	for {
		end, err := c.Console(ctx, req, w)
		if err != nil {
			return err
		}
		req = ConsoleRequest{Follow: true, From: end}
		select {
		case <-sockets.made:
		case <-over:
			_, err := oldRing(c.dir().ConsoleRing(), req, w)
			return err
		case <-ctx.Done():
			return c.failed(ctx, context.Cause(ctx))
		}
	}
}

func oldRing(path string, req ConsoleRequest, w io.Writer) (uint64, error) {
	end, err := readRing(path, req, w)
	if errors.Is(err, fs.ErrNotExist) {
		return req.From, nil
	}
	return end, err
}

// readRing copies what the ring at path holds. Errors: fs.ErrNotExist; ErrCorrupt.
func readRing(path string, req ConsoleRequest, w io.Writer) (end uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return req.From, fmt.Errorf("read console ring: %w", err)
	}
	defer f.Close()
	if end, err = readWritten(f); err != nil {
		return req.From, err
	}
	from, err := start(f, end, req)
	if err == nil {
		err = copyRing(w, f, from, func(pos uint64) (uint64, bool) { return end, pos < end })
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: console ring is cut off", banger.ErrCorrupt)
	}
	return end, err
}

// start is where in a ring a request begins.
func start(f io.ReaderAt, written uint64, req ConsoleRequest) (uint64, error) {
	from := max(min(req.From, written), oldest(written))
	if req.Lines == 0 {
		return from, nil
	}
	lines, err := lastLines(f, written, req.Lines)
	return max(from, lines), err
}

// lastLines is where the last n lines of a ring begin. The end of the last one may be missing.
func lastLines(f io.ReaderAt, written uint64, n int) (uint64, error) {
	buf, low := make([]byte, maxRingWrite), oldest(written)
	for pos := written; pos > low; {
		step := min(pos-low, uint64(len(buf)), (pos-1)%ringSize+1) // not over the seam
		from := pos - step
		if _, err := f.ReadAt(buf[:step], ringHeader+int64(from%ringSize)); err != nil {
			return 0, fmt.Errorf("read console ring: %w", err)
		}
		for i := int(step) - 1; i >= 0; i-- {
			if next := from + uint64(i) + 1; buf[i] == '\n' && next < written {
				if n--; n == 0 {
					return next, nil
				}
			}
		}
		pos = from
	}
	return low, nil
}

// counted counts what was written and remembers why it was not.
type counted struct {
	w   io.Writer
	n   uint64
	err error
}

func (c *counted) Write(p []byte) (n int, err error) {
	n, c.err = c.w.Write(p)
	c.n += uint64(n)
	return n, c.err
}
