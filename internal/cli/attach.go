package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"banger"
	"banger/api"
	"banger/internal/machine"
)

// stateTimeout bounds what banger asks about a VM after the work is done.
const stateTimeout = 5 * time.Second

// attach runs a command, or a login shell, in a running VM with our own streams: on a terminal with a terminal, else
// with three pipes. It returns when the command has ended: its exit status, or what went wrong on banger's side.
func (a *app) attach(ctx context.Context, vm api.VMDetail, req banger.ExecRequest) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stdio := machine.Stdio{Stdin: a.In, Stdout: a.Out, Stderr: a.Err}
	onTerminal := a.interactive()
	if onTerminal {
		restore, err := a.takeTerminal(&req, &stdio)
		if err != nil {
			return streamError{err}
		}
		defer restore()
		defer a.signals.redirect(func(os.Signal) { cancel(errSignal) })()
	} else {
		if fd, ok := terminal(a.In); ok && inBackground(fd) {
			stdio.Stdin = nil // to read would stop us
		}
		names := make(chan string, 4)
		stdio.Signal = names
		defer a.signals.redirect(forward(names, func() { cancel(errSignal) }))()
	}
	result, err := a.machine(vm).Exec(ctx, req, stdio)
	switch {
	case errors.Is(err, banger.ErrInterrupted):
		return err
	case errors.Is(err, banger.ErrUnavailable):
		return streamError{a.whyGone(vm, err)}
	case err != nil:
		return streamError{err}
	case result.Error != "":
		return commandExit{result.ExitStatus(), notStarted(req, result)}
	case result.ExitStatus() != 0:
		return commandExit{status: result.ExitStatus()}
	}
	return nil
}

// inBackground tells whether the terminal belongs to another job of the user's shell.
func inBackground(fd int) bool {
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group != unix.Getpgrp()
}

// forward hands the first signal to the command; another one, or the end of our terminal, ends banger.
func forward(names chan<- string, end func()) func(os.Signal) {
	sent := false
	return func(sig os.Signal) {
		if number, ok := sig.(syscall.Signal); ok && !sent && number != syscall.SIGHUP {
			sent = true
			names <- banger.SignalName(int(number))
			return
		}
		end()
	}
}

// takeTerminal gives the command a terminal like ours and puts ours into raw mode until restore is called.
func (a *app) takeTerminal(req *banger.ExecRequest, stdio *machine.Stdio) (restore func(), err error) {
	in, _ := terminal(a.In)
	out, _ := terminal(a.Out)
	size := func() (pty banger.PTY) {
		if cols, rows, err := term.GetSize(out); err == nil {
			pty.Rows, pty.Cols = uint16(rows), uint16(cols)
		}
		return pty
	}
	first := size()
	first.Term = or(os.Getenv("TERM"), "xterm")
	req.PTY = &first

	before, err := term.MakeRaw(in)
	if err != nil {
		return nil, fmt.Errorf("put the terminal into raw mode: %w", err)
	}
	resized, sizes, quit := make(chan os.Signal, 1), make(chan banger.PTY), make(chan struct{})
	stdio.Resize = sizes
	signal.Notify(resized, syscall.SIGWINCH)
	go func() {
		for {
			select {
			case <-resized:
			case <-quit:
				return
			}
			select {
			case sizes <- size():
			case <-quit:
				return
			}
		}
	}()
	return sync.OnceFunc(func() {
		signal.Stop(resized)
		close(quit)
		_ = term.Restore(in, before)
	}), nil
}

// notStarted says why the guest could not start the command.
func notStarted(req banger.ExecRequest, result banger.ExecResult) error {
	cause := errors.New(result.Error)
	if len(req.Argv) == 0 || strings.Contains(result.Error, req.Argv[0]) {
		return cause
	}
	return &banger.Error{Subject: req.Argv[0], Err: cause}
}

// whyGone says how the run of a VM ended that does not answer any more.
func (a *app) whyGone(vm api.VMDetail, cause error) error {
	ctx, cancel := context.WithTimeout(context.Background(), stateTimeout)
	defer cancel()
	failed := &banger.Error{Kind: banger.ErrUnavailable, Op: "vm", Subject: vm.Spec.Name, Err: cause, Hint: "banger vm show " + vm.Spec.Name}
	exit, err := machine.Client{Socket: vm.MachineSocket}.Wait(ctx)
	if err != nil {
		detail, err := a.show(ctx, string(vm.ID))
		if err != nil || detail.Exit == nil {
			return failed
		}
		exit = *detail.Exit
	}
	failed.Err = fmt.Errorf("the machine ended while the command ran: %s", causeText(exit))
	failed.Hint = "banger vm logs " + vm.Spec.Name
	return failed
}

func (a *app) show(ctx context.Context, ref string) (api.VMDetail, error) {
	c, err := a.dial(ctx)
	if err != nil {
		return api.VMDetail{}, err
	}
	defer c.Close()
	return c.ShowVM(ctx, ref)
}

// remind tells a person who leaves a session that the VM goes on.
func (a *app) remind(vm api.VMDetail) {
	if !a.interactive() || a.silent() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stateTimeout)
	defer cancel()
	if now, err := a.show(ctx, string(vm.ID)); err == nil && now.State == banger.StateRunning {
		a.notice("vm %s is still running (stop with: banger vm stop %s)", vm.Spec.Name, vm.Spec.Name)
	}
}
