package lifecycle

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"banger"
	"banger/internal/machine"
)

// Recover makes records and host agree after any end of the last daemon. It returns when every VM is either settled or claimed:
// taking up active ones goes on beside, so a request on one of them waits and the others do not. One bad VM does not keep the
// daemon from opening. Call it once, before any operation.
func (m *Manager) Recover(ctx context.Context) error {
	vms, err := m.Store.List(ctx)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	known := map[banger.VMID]bool{}
	active := map[banger.VMID]string{}
	for _, vm := range vms {
		if isActive(vm.State) {
			active[vm.ID] = vm.Spec.Name
		}
	}
	if err := machine.NamePeers(m.Dir.Peers(), active); err != nil {
		m.Log.ErrorContext(ctx, "name the sockets by which VMs reach each other", "err", err)
	}
	for _, vm := range vms {
		known[vm.ID] = true
		switch {
		case vm.State == banger.StateCreating:
			if err := m.erase(ctx, vm); err != nil {
				m.Log.ErrorContext(ctx, "undo a creation that was cut off", "vm", vm.ID, "err", err)
				m.mend(vm.ID)
			}
		case isActive(vm.State):
			m.takeUp(vm)
		default:
			m.settle(ctx, vm)
		}
	}
	m.removeStrays(ctx, known)
	leases, err := m.Store.Leases(ctx)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	for _, lease := range leases {
		m.watchLease(lease)
	}
	m.spawn(context.Background(), m.keepAges)
	return nil
}

// takeUp resumes an active VM in the background, with its claim held from now on.
func (m *Manager) takeUp(vm banger.VM) {
	claimed, release, err := m.claims.takeYielding(m.life, vm.ID)
	if err != nil {
		return // the daemon ends
	}
	m.active.Add(1)
	m.work.Go(func() {
		defer m.rest()
		defer release()
		if err := m.resume(claimed, vm); err != nil && claimed.Err() == nil {
			m.insist(claimed, func() error { return m.fail(claimed, vm, err) })
		}
	})
}

// settle ends processes that a stopped VM can't have. One whose last run left a damaged record is shown to be in error until a start or
// a stop has put that in order.
func (m *Manager) settle(ctx context.Context, vm banger.VM) {
	damage := m.Machines.Damage(vm.ID)
	_, supervisor, vmm, err := m.Machines.Handles(vm.ID)
	if err == nil && (supervisor || vmm) {
		err = m.finish(ctx, vm.ID)
	}
	if err == nil && damage != nil && vm.State == banger.StateStopped {
		_, err = m.update(ctx, vm.ID, func(vm *banger.VM) { vm.State, vm.LastError = banger.StateError, damage.Error() })
	}
	if err != nil {
		m.Log.ErrorContext(ctx, "settle", "vm", vm.ID, "err", err)
	}
}

// removeStrays removes the directories of erased VMs that no process uses. One without a record that was never erased is left alone: an older
// copy of the database does not know the VMs that came after it.
func (m *Manager) removeStrays(ctx context.Context, known map[banger.VMID]bool) {
	erased, err := m.Store.Erased(ctx)
	if err != nil {
		m.Log.ErrorContext(ctx, "list erased VMs", "err", err)
		return
	}
	ids, err := m.Homes.List()
	if err != nil {
		m.Log.ErrorContext(ctx, "list directories of VMs", "err", err)
		return
	}
	for _, id := range ids {
		if !erased[id] {
			if !known[id] {
				m.Log.WarnContext(ctx, "directory of an unknown VM is left alone", "vm", id)
			}
			continue
		}
		_, supervisor, vmm, err := m.Machines.Handles(id)
		if err == nil && !supervisor && !vmm {
			err = m.Homes.Remove(id)
		}
		if err != nil || supervisor || vmm {
			m.Log.WarnContext(ctx, "directory of an erased VM is left", "vm", id, "supervisor", supervisor, "vmm", vmm, "err", err)
			delete(erased, id)
		}
	}
	if len(erased) == 0 {
		return
	}
	if err := m.Store.Forget(ctx, slices.Collect(maps.Keys(erased))); err != nil {
		m.Log.ErrorContext(ctx, "forget erased VMs", "err", err)
	}
}
