package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"banger"
)

// waitable are what Wait waits for. "deleted" is no state: a VM that is deleted has none.
var waitable = []string{string(banger.StateStopped), string(banger.StateRunning), string(banger.StateError), deleted}

const deleted = "deleted"

// Wait returns when a VM has come to where it is waited for: "stopped" is the end of a run in whatever way, "running", "error" or
// "deleted". It gives the record, the last one of a VM that is deleted. Nothing is polled.
// Errors: ErrInvalid for another word; ErrConflict when the VM can't come there by itself; ErrNotFound.
func (m *Manager) Wait(ctx context.Context, ref, what string) (banger.VM, error) {
	if !slices.Contains(waitable, what) {
		return banger.VM{}, &banger.Error{Kind: banger.ErrInvalid, Op: "wait for", Subject: fmt.Sprintf("%.40q", what),
			Err: errors.New("want one of " + strings.Join(waitable, ", ")), Hint: banger.DidYouMean(what, waitable)}
	}
	vm, err := m.Store.Get(ctx, ref)
	for err == nil {
		changed := m.Store.Changed()
		row, getErr := m.Store.Get(ctx, string(vm.ID))
		if errors.Is(getErr, banger.ErrNotFound) && what == deleted {
			return vm, nil
		}
		if getErr != nil {
			return vm, getErr
		}
		vm = row
		if there, err := arrived(vm, what); there || err != nil {
			return vm, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			err = &banger.Error{Kind: banger.ErrInterrupted, Op: "wait for vm", Subject: vm.Spec.Name, Err: context.Cause(ctx)}
		case <-m.life.Done():
			err = &banger.Error{Kind: banger.ErrUnavailable, Op: "wait for vm", Subject: vm.Spec.Name, Err: errors.New("the daemon ends")}
		}
	}
	return vm, err
}

// arrived tells whether a VM is where it is waited for.
func arrived(vm banger.VM, what string) (bool, error) {
	switch {
	case what == string(vm.State), what == string(banger.StateStopped) && vm.State == banger.StateError:
		return true, nil
	case what == string(banger.StateRunning) && vm.State == banger.StateError:
		return false, &banger.Error{Kind: banger.ErrConflict, Op: "wait for vm", Subject: vm.Spec.Name, Err: errors.New("it is in state error: " + vm.LastError),
			Hint: "banger vm start " + vm.Spec.Name}
	}
	return false, nil
}
