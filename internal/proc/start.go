package proc

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
)

// firstFree is the first descriptor that is not a standard stream.
const firstFree = 3

// Spec is a process that outlives us: a session of its own, no signal when we die, nothing to read, and no descriptor
// but Log as standard output and error, and ExtraFiles from 3 on.
type Spec struct {
	Path       string // looked up in PATH when it has no slash
	Args       []string
	Dir        string
	Env        []string // nil: ours
	ExtraFiles []*os.File
	Log        *os.File // nil: discarded

	// Scope is the transient systemd scope to run in ("banger-0123456789ab.scope"). The program enters it by itself in
	// [MaybeConfineMain], before it starts anything; without a systemd user manager it stays where it is.
	Scope string
}

// Process is a child started by Start.
type Process struct {
	Handle  Handle
	program string
	done    chan struct{}
	state   *os.ProcessState // set before done is closed
}

// Start starts a process and reaps it when it ends. Errors: ErrUnavailable with an install hint when there is no such
// program.
func Start(s Spec) (*Process, error) {
	path, err := LookPath(s.Path)
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	log := s.Log
	if log == nil {
		log = null
	}
	env := s.Env
	if env == nil {
		env = os.Environ()
	}
	if s.Scope != "" {
		env = append(env[:len(env):len(env)], scopeVariable+"="+s.Scope)
	}
	closeOnExecFrom(firstFree)
	p, err := os.StartProcess(path, append([]string{s.Path}, s.Args...), &os.ProcAttr{
		Dir: s.Dir, Env: env,
		Files: append([]*os.File{null, log, log}, s.ExtraFiles...),
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "start", Subject: s.Path, Err: err}
	}
	// Before the first wait: until then even a dead child keeps its id and its start time.
	handle, err := HandleOf(p.Pid)
	if err != nil {
		return nil, errors.Join(err, p.Kill(), p.Release())
	}
	child := &Process{Handle: handle, program: s.Path, done: make(chan struct{})}
	go func() {
		defer close(child.done)
		child.state, _ = p.Wait()
	}()
	return child, nil
}

// Done is closed when the process has ended and is reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit waits for the end: nil for exit status 0, else *ExitError without standard error, which is in the log.
func (p *Process) Exit() error {
	<-p.done
	if p.state == nil {
		return &banger.Error{Op: "wait for", Subject: p.program, Err: syscall.ECHILD}
	}
	return exitError(p.program, p.state, "")
}

// Detach starts a process whose end nobody here cares about; it leaves no zombie.
func Detach(s Spec) (Handle, error) {
	p, err := Start(s)
	if err != nil {
		return Handle{}, err
	}
	return p.Handle, nil
}

// closeOnExecFrom keeps descriptors that we inherited ourselves from reaching a child; those that Go opened are marked
// already.
func closeOnExecFrom(first int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(strings.TrimSpace(e.Name()))
		if err == nil && fd >= first {
			unix.CloseOnExec(fd)
		}
	}
}
