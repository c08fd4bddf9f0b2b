package lifecycle

import (
	"context"
	"fmt"
	"slices"

	"banger"
	"banger/internal/disk"
)

// keepWork keeps what is in the workspaces of a VM that does not run and tells where. It holds the claim.
// Errors: ErrConflict when not all can be kept.
func (m *Manager) keepWork(ctx context.Context, vm banger.VM, progress banger.ProgressFunc) error {
	if m.Keep == nil {
		return nil
	}
	defer progress.Begin("save", "looking for work that the host does not have")()
	err := m.finish(ctx, vm.ID)
	if err == nil {
		err = m.readFiles(ctx, vm, func(ctx context.Context, files *disk.FS) error {
			kept, err := m.Keep(ctx, vm, files)
			for _, save := range kept {
				m.Log.InfoContext(ctx, "kept work", "vm", vm.ID, "name", vm.Spec.Name, "bundle", save.Bundle, "refs", len(save.Refs))
				progress.Notice("save", fmt.Sprintf("the work in %s is kept: banger autosave list (%s)", save.GuestPath, save.Bundle))
			}
			return err
		})
	}
	if err != nil {
		return &banger.Error{Kind: banger.ErrConflict, Op: "keep its work", Err: err,
			Hint: fmt.Sprintf("the VM stays; banger workspace export %s, or away with it all the same: banger vm delete --discard-work %s", vm.Spec.Name, vm.Spec.Name)}
	}
	return nil
}

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
		if i := slices.IndexFunc(vm.Workspaces, func(old banger.Workspace) bool { return old.GuestPath == ws.GuestPath }); i >= 0 {
			vm.Workspaces[i] = ws // the first one is where commands run
			return nil
		}
		if len(vm.Workspaces) >= banger.MaxWorkspaces {
			return &banger.Error{Kind: banger.ErrConflict, Op: "workspace of vm", Subject: vm.Spec.Name, Err: fmt.Errorf("it has %d already", len(vm.Workspaces))}
		}
		vm.Workspaces = append(vm.Workspaces, ws)
		return nil
	})
}
