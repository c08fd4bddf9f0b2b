package supervisor

import (
	"context"
	"errors"
	"syscall"

	"banger"
)

// signal sends the VMM a signal. One that ends it counts as a kill, whenever that is.
func (r *run) signal(sig syscall.Signal) error {
	r.mu.Lock()
	vmm := r.handles.VMM
	r.signalled = sig
	r.mu.Unlock()
	if vmm.PID == 0 {
		return &banger.Error{Kind: banger.ErrUnavailable, Op: "signal the VMM", Err: errors.New("it has not started yet"), Hint: "try again"}
	}
	r.Log.Info("signal", "signal", sig.String())
	return vmm.Signal(sig)
}

// rename gives the guest another host name, at once if it is there.
func (r *run) rename(ctx context.Context, name string) error {
	if err := banger.ValidateVMName(name); err != nil {
		return err
	}
	r.mu.Lock()
	r.status.Name = name
	b := r.boot
	r.mu.Unlock()
	r.Log.Info("renamed", "name", name)
	if b == nil {
		return nil
	}
	b.mu.Lock()
	stream := b.stream
	b.mu.Unlock()
	if stream == nil {
		return nil // whoever comes is told
	}
	_, err := stream.Identify(ctx, b.identity())
	return err
}
