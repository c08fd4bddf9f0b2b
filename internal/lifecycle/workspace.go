package lifecycle

import (
	"context"
	"fmt"
	"slices"

	"banger"
)

// SetWorkspace records what has gone into a VM, in place of an older record of the same guest path.
// Errors: ErrInvalid; ErrConflict for more than [banger.MaxWorkspaces].
func (m *Manager) SetWorkspace(ctx context.Context, ref string, ws banger.Workspace) (banger.VM, error) {
	if err := ws.Validate(); err != nil {
		return banger.VM{}, err
	}
	vm, err := m.Store.Get(ctx, ref)
	if err != nil {
		return vm, err
	}
	return m.Store.Update(ctx, vm.ID, func(vm *banger.VM) error {
		vm.Workspaces = slices.DeleteFunc(vm.Workspaces, func(old banger.Workspace) bool { return old.GuestPath == ws.GuestPath })
		if len(vm.Workspaces) >= banger.MaxWorkspaces {
			return &banger.Error{Kind: banger.ErrConflict, Op: "workspace of vm", Subject: vm.Spec.Name, Err: fmt.Errorf("it has %d already", len(vm.Workspaces))}
		}
		vm.Workspaces = append(vm.Workspaces, ws)
		return nil
	})
}
