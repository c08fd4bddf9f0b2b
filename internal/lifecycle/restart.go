package lifecycle

import (
	"context"

	"banger"
	"banger/api"
)

// Restart stops a VM as Stop does and starts it again; nothing else happens to it in between. One that does not run is started.
// Errors: those of Stop and Start; ErrConflict when the VM is told to stop meanwhile.
func (m *Manager) Restart(ctx context.Context, ref string, req api.RestartRequest, progress banger.ProgressFunc) (banger.VM, error) {
	if req.Timeout < 0 {
		return banger.VM{}, badTimeout(req.Timeout)
	}
	return m.detach(ctx, func(ctx context.Context) (banger.VM, error) {
		vm, err := m.Store.Get(ctx, ref)
		if err != nil {
			return banger.VM{}, err
		}
		m.claims.interrupt(vm.ID)
		yielding, release, err := m.claims.takeYielding(ctx, vm.ID)
		if err != nil {
			return vm, err
		}
		defer release()
		now, err := m.Store.Get(ctx, string(vm.ID))
		if err != nil {
			return vm, err
		}
		vm, err = m.restart(ctx, yielding, now, req, progress)
		if err != nil {
			return vm, &banger.Error{Op: "restart vm", Subject: vm.Spec.Name, Err: err}
		}
		m.Log.InfoContext(ctx, "restarted", "vm", vm.ID, "name", vm.Spec.Name, "accel", vm.Accel)
		return vm, nil
	})
}

// restart holds the claim. A stop is never cut short: only the start yields.
func (m *Manager) restart(ctx, yielding context.Context, vm banger.VM, req api.RestartRequest, progress banger.ProgressFunc) (banger.VM, error) {
	spec := vm.Spec
	if vm.Pending != nil {
		spec = vm.Pending.Apply(spec)
	}
	if err := m.fits(ctx, vm, spec.MemoryMiB, req.Overcommit); err != nil {
		return vm, err // before it stops
	}
	end := progress.Begin("stop", "stopping the VM")
	vm, err := m.stop(ctx, vm, m.stopTimeout(vm, req.Timeout))
	if err != nil {
		return vm, err
	}
	end()
	if cause := context.Cause(yielding); cause != nil {
		return vm, &banger.Error{Kind: banger.ErrConflict, Err: cause}
	}
	if vm, err = m.takeChanges(ctx, vm); err != nil {
		return vm, err
	}
	return m.start(yielding, vm, req.Overcommit, progress)
}
