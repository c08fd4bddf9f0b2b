package client

import (
	"context"
	"fmt"
	"io"

	"banger"
	"banger/internal/machine"
)

// Stdio is what a command in a VM is connected to; nil fields read as empty, discard, or never come.
type Stdio struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer         // unused with a terminal
	Resize <-chan banger.PTY // new sizes of the terminal
	Signal <-chan string     // "INT", "TERM"
}

// Exec runs a command in a running VM and waits for its end and all its output; nothing of it passes through the daemon. The end of ctx
// hangs it up, and so does a Stdout or Stderr that takes no more. A command that could not be started is a result, no error. An image's
// own init may still be coming up.
// Errors: ErrNotFound; ErrConflict when the VM does not run; ErrInterrupted when ctx ends first; ErrUnavailable when the VM goes away.
func (c *Client) Exec(ctx context.Context, ref string, req banger.ExecRequest, stdio Stdio) (banger.ExecResult, error) {
	vm, err := c.ShowVM(ctx, ref)
	if err != nil {
		return banger.ExecResult{}, err
	}
	if vm.State != banger.StateRunning {
		return banger.ExecResult{}, &banger.Error{Kind: banger.ErrConflict, Op: "vm", Subject: vm.Spec.Name, Err: fmt.Errorf("it is %s", vm.State),
			Hint: "banger vm start " + vm.Spec.Name}
	}
	supervisor := machine.Client{Socket: vm.MachineSocket, Runs: func(ctx context.Context) bool {
		now, err := c.ShowVM(ctx, string(vm.ID))
		return err == nil && now.State == banger.StateRunning
	}}
	return supervisor.Exec(ctx, req, machine.Stdio(stdio))
}
