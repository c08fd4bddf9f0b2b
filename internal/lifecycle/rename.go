package lifecycle

import (
	"cmp"
	"context"
	"time"

	"banger"
	"banger/internal/machine"
)

// renameTimeout bounds how long a guest may take to get another host name.
const renameTimeout = 10 * time.Second

// Rename gives a VM another name. The guest of a running one gets its new host name at once; one that does not answer gets it when
// its supervisor is taken up again or at its next start, and that is told.
// Errors: ErrInvalid for a bad name; ErrConflict for a taken one.
func (m *Manager) Rename(ctx context.Context, ref, name string, progress banger.ProgressFunc) (banger.VM, error) {
	if err := banger.ValidateVMName(name); err != nil {
		return banger.VM{}, err
	}
	return m.detach(ctx, func(ctx context.Context) (banger.VM, error) {
		vm, err := m.Store.Get(ctx, ref)
		if err != nil {
			return banger.VM{}, err
		}
		release, err := m.claims.take(ctx, vm.ID)
		if err != nil {
			return vm, err
		}
		defer release()
		if vm, err = m.Store.Get(ctx, string(vm.ID)); err != nil {
			return vm, err
		}
		old := vm.Spec.Name
		m.forgetPeer(ctx, vm) // before another VM can have the name
		_, err = m.Store.Update(ctx, vm.ID, func(vm *banger.VM) error {
			vm.Spec.Name = name
			return nil
		})
		now, getErr := m.Store.Get(ctx, string(vm.ID))
		if getErr == nil {
			vm = now
		} else if err == nil {
			vm.Spec.Name = name
		}
		if isActive(vm.State) {
			m.namePeer(ctx, vm)
		}
		if err = cmp.Or(err, getErr); err != nil {
			return vm, &banger.Error{Op: "rename vm", Subject: old, Err: err}
		}
		m.Log.InfoContext(ctx, "renamed", "vm", vm.ID, "from", old, "name", name)
		if isActive(vm.State) && !m.tellName(ctx, vm, old) {
			progress.Notice("rename", "the guest does not answer: inside, "+name+" is called "+old+" until its next start")
		}
		return vm, nil
	})
}

// namePeer lets other VMs find a running one by its name, as far as their rules allow. It holds the claim.
func (m *Manager) namePeer(ctx context.Context, vm banger.VM) {
	if err := machine.NamePeer(m.Dir.Peers(), vm.Spec.Name, vm.ID); err != nil {
		m.Log.WarnContext(ctx, "other VMs do not find this one", "vm", vm.ID, "name", vm.Spec.Name, "err", err)
	}
}

// forgetPeer undoes namePeer.
func (m *Manager) forgetPeer(ctx context.Context, vm banger.VM) {
	if err := machine.ForgetPeer(m.Dir.Peers(), vm.Spec.Name, vm.ID); err != nil {
		m.Log.WarnContext(ctx, "other VMs still look for this one by a name it has no more", "vm", vm.ID, "name", vm.Spec.Name, "err", err)
	}
}

// tellName tells a running guest its name if that is another than it has, and whether it has it now. A supervisor that does not know
// which one it has (known is empty) is left alone.
func (m *Manager) tellName(ctx context.Context, vm banger.VM, known string) bool {
	if known == "" || known == vm.Spec.Name {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, renameTimeout)
	defer cancel()
	err := m.Machines.Rename(ctx, vm.ID, vm.Spec.Name)
	if err != nil {
		m.Log.WarnContext(ctx, "tell the guest its name", "vm", vm.ID, "name", vm.Spec.Name, "err", err)
	}
	return err == nil
}
