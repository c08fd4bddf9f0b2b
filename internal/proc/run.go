package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"banger"
)

// killGrace is how long Run waits between SIGTERM and SIGKILL, and for output that a descendant holds open.
const killGrace = 5 * time.Second

// tailSize is how much of the standard error an [ExitError] remembers.
const tailSize = 4 << 10

// Command is a program to run to its end.
type Command struct {
	Path   string // looked up in PATH when it has no slash
	Args   []string
	Dir    string
	Env    []string // nil: ours
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer

	// Foreground leaves the program in our process group, so that it may use our terminal. Its standard error is not remembered.
	Foreground bool
}

// ExitError is how a process ended otherwise than with status 0.
type ExitError struct {
	Program string
	Status  int            // exit status; -1 after a signal
	Signal  syscall.Signal // 0 unless a signal ended it
	Stderr  string         // its last lines
}

func (e *ExitError) Error() string {
	text := fmt.Sprintf("%s: exit status %d", e.Program, e.Status)
	if e.Signal != 0 {
		text = fmt.Sprintf("%s: ended by signal %d (%v)", e.Program, int(e.Signal), e.Signal)
	}
	if lines := strings.TrimSpace(e.Stderr); lines != "" {
		text += ": " + lines[strings.LastIndexByte(lines, '\n')+1:]
	}
	return text
}

// Run runs a program in a process group of its own until it ends. When ctx ends first, the group (in the foreground the program)
// gets SIGTERM and five seconds later SIGKILL. Errors: ErrUnavailable with an install hint when there is no such program, ErrInterrupted when
// ctx ended it, *ExitError.
func Run(ctx context.Context, c Command) error {
	path, err := LookPath(c.Path)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return interrupted("run", c.Path, ctx)
	}
	last := &tail{}
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout = c.Dir, c.Env, c.Stdin, c.Stdout
	cmd.Stderr = last
	switch {
	case c.Foreground:
		cmd.Stderr = c.Stderr
	case c.Stderr != nil:
		cmd.Stderr = io.MultiWriter(c.Stderr, last)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !c.Foreground}
	signalGroup := func(sig syscall.Signal) error {
		if c.Foreground {
			return cmd.Process.Signal(sig)
		}
		return syscall.Kill(-cmd.Process.Pid, sig)
	}
	var killer *time.Timer
	cmd.Cancel = func() error {
		killer = time.AfterFunc(killGrace, func() { signalGroup(syscall.SIGKILL) })
		return signalGroup(syscall.SIGTERM)
	}
	cmd.WaitDelay = killGrace + time.Second
	closeOnExecFrom(firstFree)
	err = cmd.Run()
	if killer != nil {
		killer.Stop()
		signalGroup(syscall.SIGKILL)
		return interrupted("run", c.Path, ctx)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitError(c.Path, exit.ProcessState, last.String())
	}
	if err != nil {
		return &banger.Error{Op: "run", Subject: c.Path, Err: err}
	}
	return nil
}

// exitError is nil for status 0.
func exitError(program string, state *os.ProcessState, stderr string) error {
	status := state.Sys().(syscall.WaitStatus)
	switch {
	case status.Signaled():
		return &ExitError{Program: program, Status: -1, Signal: status.Signal(), Stderr: stderr}
	case status.ExitStatus() != 0:
		return &ExitError{Program: program, Status: status.ExitStatus(), Stderr: stderr}
	}
	return nil
}

// tail keeps the last tailSize bytes written to it.
type tail struct{ buf []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if excess := len(t.buf) - tailSize; excess > 0 {
		t.buf = append(t.buf[:0], t.buf[excess:]...)
	}
	return len(p), nil
}

// String leaves out a first line that is cut off.
func (t *tail) String() string {
	text := t.buf
	if len(text) == tailSize {
		if _, rest, found := bytes.Cut(text, []byte("\n")); found {
			text = rest
		}
	}
	return string(bytes.ToValidUTF8(text, []byte("?")))
}
