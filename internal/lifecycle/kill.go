package lifecycle

import (
	"context"
	"fmt"
	"syscall"

	"banger"
	"banger/internal/machine"
)

// Kill ends a VM's run without asking the guest; a stop in progress loses its patience. A VM that does not run is no error, and state
// error becomes stopped. Another signal than KILL is sent to the VMM, and what becomes of that is not waited for.
// Errors: ErrInvalid for no signal; ErrConflict for another signal to a VM that does not run.
func (m *Manager) Kill(ctx context.Context, ref, signal string, progress banger.ProgressFunc) (banger.VM, error) {
	sig, err := machine.ParseSignal(signal)
	if err != nil {
		return banger.VM{}, err
	}
	return m.detach(ctx, func(ctx context.Context) (banger.VM, error) {
		vm, err := m.Store.Get(ctx, ref)
		if err != nil {
			return banger.VM{}, err
		}
		if sig != syscall.SIGKILL {
			return vm, m.signal(ctx, vm, sig)
		}
		defer progress.Begin("stop", "killing the VM")()
		if vm.State == banger.StateStopping {
			m.hasten(ctx, vm)
		}
		vm, release, err := m.claimForEnd(ctx, string(vm.ID))
		if err != nil {
			return vm, err
		}
		defer release()
		if vm, err = m.stop(ctx, vm, killAtOnce); err != nil {
			return vm, &banger.Error{Op: "kill vm", Subject: vm.Spec.Name, Err: err}
		}
		return vm, nil
	})
}

// hasten has the supervisor kill a VM that an operation waits for, which records the end. One that does not answer is that operation's
// own concern.
func (m *Manager) hasten(ctx context.Context, vm banger.VM) {
	if _, err := m.Machines.Shutdown(ctx, vm.ID, killAtOnce); err != nil {
		m.Log.WarnContext(ctx, "hasten a stop", "vm", vm.ID, "name", vm.Spec.Name, "err", err)
	}
}

// signal sends the VMM a signal. It takes no claim: a VM that somebody waits for can be signalled too.
func (m *Manager) signal(ctx context.Context, vm banger.VM, sig syscall.Signal) error {
	if !isActive(vm.State) {
		return &banger.Error{Kind: banger.ErrConflict, Op: "kill vm", Subject: vm.Spec.Name, Err: fmt.Errorf("it is %s", vm.State), Hint: "banger vm start " + vm.Spec.Name}
	}
	if err := m.Machines.Signal(ctx, vm.ID, sig); err != nil {
		return &banger.Error{Op: "kill vm", Subject: vm.Spec.Name, Err: err}
	}
	m.Log.InfoContext(ctx, "signalled", "vm", vm.ID, "name", vm.Spec.Name, "signal", sig.String())
	return nil
}
