package lifecycle

import (
	"context"

	"banger"
	"banger/internal/store"
)

// watchLease deletes the VM when its lease ends: the holder is gone.
func (m *Manager) watchLease(lease store.Lease) {
	m.spawn(context.Background(), func(ctx context.Context) {
		if err := m.Gone(ctx, lease.Holder); err != nil {
			if ctx.Err() == nil {
				m.Log.ErrorContext(ctx, "watch lease", "vm", lease.VM, "err", err)
			}
			return
		}
		m.insist(ctx, func() error { return m.endLease(ctx, lease) })
	})
}

// endLease gives an error when the VM is still there.
func (m *Manager) endLease(ctx context.Context, lease store.Lease) error {
	vm, release, err := m.claimForEnd(ctx, string(lease.VM))
	if err != nil {
		return err
	}
	defer release()
	if neverBooted(vm) {
		return m.keepFailed(ctx, vm.ID)
	}
	return m.removeAlone(ctx, vm, "its lease ended")
}

// removeAlone deletes a VM that nobody is there to ask for. It holds the claim.
func (m *Manager) removeAlone(ctx context.Context, vm banger.VM, why string) error {
	m.active.Add(1)
	defer m.rest()
	if err := m.remove(ctx, vm, nil, false); err != nil {
		m.Log.ErrorContext(ctx, "delete vm", "why", why, "vm", vm.ID, "name", vm.Spec.Name, "err", err)
		_, _ = m.update(ctx, vm.ID, func(vm *banger.VM) { vm.LastError = "it was to be deleted, as " + why + ", and stays: " + err.Error() })
		return err
	}
	m.Log.InfoContext(ctx, "deleted: "+why, "vm", vm.ID, "name", vm.Spec.Name)
	return nil
}

func neverBooted(vm banger.VM) bool {
	return vm.State == banger.StateError && vm.Exit != nil && vm.Boots == 0
}

// keepFailed gives a VM that did not boot some time for a look, whether or not its holder lives: it ages, if it does not sooner anyway.
func (m *Manager) keepFailed(ctx context.Context, id banger.VMID) error {
	_, err := m.update(ctx, id, func(vm *banger.VM) {
		if left, _ := m.timeLeft(*vm); vm.ExpiresAt.IsZero() || left > failedRunKept {
			m.setAge(vm, failedRunKept)
		}
	})
	if err == nil {
		ctx, cancel := fresh(ctx)
		defer cancel()
		err = m.Store.DeleteLease(ctx, id)
	}
	m.lookAgain()
	if err != nil {
		m.Log.ErrorContext(ctx, "keep vm for a look", "vm", id, "err", err)
	}
	return err
}
