package lifecycle

import (
	"context"
	"errors"
	"time"

	"banger"
)

// netTimeout bounds how long a supervisor may take to change its policy.
const netTimeout = 10 * time.Second

// SetNet changes what a VM's network reaches; of a running one it holds when SetNet returns.
// Errors: ErrInvalid; ErrNotFound for a rule to remove that is not there; ErrUnavailable when a running VM could not be told: the
// change is recorded, and holds when its supervisor answers again or at its next start.
func (m *Manager) SetNet(ctx context.Context, ref string, change banger.NetChange) (banger.VM, error) {
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
		vm, err = m.Store.Update(ctx, vm.ID, func(vm *banger.VM) (err error) {
			vm.Spec.Net, err = change.Apply(vm.Spec.Net)
			return err
		})
		if err != nil {
			return vm, &banger.Error{Op: "change network of vm", Subject: vm.Spec.Name, Err: err}
		}
		m.Log.InfoContext(ctx, "network policy", "vm", vm.ID, "name", vm.Spec.Name, "policy", vm.Spec.Net.String())
		if !isActive(vm.State) {
			return vm, nil
		}
		if err := m.tellNet(ctx, vm); err != nil {
			return vm, &banger.Error{Kind: banger.ErrUnavailable, Op: "change network of vm", Subject: vm.Spec.Name,
				Err: errors.Join(errors.New("the change is recorded, but the running machine goes on as before"), err), Hint: "banger vm restart " + vm.Spec.Name}
		}
		return vm, nil
	})
}

// tellNet makes the run of a VM obey the VM's policy.
func (m *Manager) tellNet(ctx context.Context, vm banger.VM) error {
	ctx, cancel := context.WithTimeout(ctx, netTimeout)
	defer cancel()
	return m.Machines.SetNet(ctx, vm.ID, vm.Spec.Net)
}

// retellNet is tellNet for a run that may have missed a change while there was no daemon.
func (m *Manager) retellNet(ctx context.Context, vm banger.VM, known banger.NetPolicy) {
	if known.Or(banger.NetFull).String() == vm.Spec.Net.Or(banger.NetFull).String() {
		return
	}
	if err := m.tellNet(ctx, vm); err != nil {
		m.Log.WarnContext(ctx, "tell the network policy", "vm", vm.ID, "err", err)
	}
}
