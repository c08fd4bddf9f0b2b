package guestagent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

const (
	outputGrace = 2 * time.Second // for background processes that hold the output after the command's end
	hangupGrace = 2 * time.Second // between SIGHUP and SIGKILL when the client is gone
	lastOutput  = 1 << 20         // bytes: the most that a pipe holds
	copySize    = 32 << 10
	endOfFile   = 4 // ^D: what a terminal takes for the end of input
)

// process is a started command with its streams.
type process struct {
	pid    int
	status <-chan unix.WaitStatus
	term   *terminal // nil: three pipes
	stdin  *os.File
	stdout *os.File
	stderr *os.File // nil with a terminal

	mu     sync.Mutex
	exited bool
}

// begin starts p on a terminal or on pipes.
func (c *children) begin(p plan, size *banger.PTY) (*process, error) {
	if size != nil {
		return c.beginOnTerminal(p, *size)
	}
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	proc := &process{}
	for _, stream := range []**os.File{&proc.stdin, &proc.stdout, &proc.stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			proc.close()
			return nil, &startError{err: err}
		}
		if stream == &proc.stdin {
			r, w = w, r
		}
		*stream = r
		files = append(files, w)
	}
	return proc, c.launch(proc, p, files)
}

func (c *children) beginOnTerminal(p plan, size banger.PTY) (*process, error) {
	term, err := openTerminal(size, p.acct)
	if err != nil {
		return nil, &startError{err: err}
	}
	defer term.slave.Close()
	proc := &process{term: term, stdin: term.master, stdout: term.master}
	return proc, c.launch(proc, p, []*os.File{term.slave, term.slave, term.slave})
}

func (c *children) launch(proc *process, p plan, files []*os.File) (err error) {
	proc.pid, proc.status, err = c.start(p.path, p.argv, p.attr(files, proc.term != nil))
	if err != nil {
		proc.close()
		return startFailed(p.path, err)
	}
	return nil
}

// widen makes the pipes of input and output hold as many bytes, if the kernel lets it; a terminal has none.
func (p *process) widen(size int) {
	for _, f := range []*os.File{p.stdin, p.stdout} {
		if raw, err := f.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, size) })
		}
	}
}

func (p *process) close() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// run copies between the process and a channel until the process has ended and its output has been read.
// Input that the process does not read is not waited for.
func (p *process) run(stdin io.Reader, stdout, stderr io.Writer) banger.ExecResult {
	go p.feed(stdin)
	var outputs sync.WaitGroup
	outputs.Go(func() { p.copyOutput(stdout, p.stdout) })
	if p.stderr != nil {
		outputs.Go(func() { p.copyOutput(stderr, p.stderr) })
	}
	ws := <-p.status
	p.mu.Lock()
	p.exited = true
	p.mu.Unlock()
	p.stdout.SetReadDeadline(time.Now().Add(outputGrace))
	if p.stderr != nil {
		p.stderr.SetReadDeadline(time.Now().Add(outputGrace))
	}
	outputs.Wait()
	p.close()
	return resultOf(ws)
}

// buffers of streams, *[copySize]byte: new ones are the most that a short command would cost the agent.
var buffers = sync.Pool{New: func() any { return new([copySize]byte) }}

func (p *process) feed(stdin io.Reader) {
	buf := buffers.Get().(*[copySize]byte)
	defer buffers.Put(buf)
	_, err := io.CopyBuffer(struct{ io.Writer }{p.stdin}, stdin, buf[:])
	switch {
	case p.term == nil:
		p.stdin.Close()
	case err == nil:
		p.stdin.Write([]byte{endOfFile})
	}
}

// copyOutput copies until the end of r. After the process's end a deadline ends the wait for others that hold the write
// end, but not before what r holds then has been read: a slow client gets everything.
func (p *process) copyOutput(w io.Writer, r *os.File) {
	buf := buffers.Get().(*[copySize]byte)
	defer buffers.Put(buf)
	step := func() (n int, err error) {
		n, err = r.Read(buf[:])
		if _, werr := w.Write(buf[:n]); werr != nil {
			w = io.Discard
		}
		return n, err
	}
	var err error
	for err == nil {
		_, err = step()
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return // EOF, or EIO of a terminal that nobody holds
	}
	r.SetReadDeadline(time.Time{})
	for rest := lastOutput; rest > 0 && readable(r); {
		n, err := step()
		if err != nil {
			return
		}
		rest -= n
	}
}

// readable says whether a read would give bytes at once.
func readable(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var events int16
	raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			if _, err := unix.Poll(poll, 0); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		events = poll[0].Revents
	})
	return events&unix.POLLIN != 0
}

func resultOf(ws unix.WaitStatus) banger.ExecResult {
	if !ws.Signaled() {
		return banger.ExecResult{Status: ws.ExitStatus()}
	}
	name := banger.SignalName(int(ws.Signal()))
	if name == "" {
		name = fmt.Sprintf("SIG%d", int(ws.Signal()))
	}
	return banger.ExecResult{Signal: name}
}

// signal sends to the process group, unless the process has ended: then the number may be another's.
func (p *process) signal(sig unix.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.exited {
		unix.Kill(-p.pid, sig)
	}
}

// hangUp ends the process group because its client is gone.
func (p *process) hangUp() {
	p.signal(unix.SIGHUP)
	p.signal(unix.SIGCONT)
	time.AfterFunc(hangupGrace, func() { p.signal(unix.SIGKILL) })
}

func (p *process) resize(size banger.PTY) {
	if p.term != nil {
		p.term.resize(size)
	}
}
