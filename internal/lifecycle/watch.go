package lifecycle

import (
	"context"
	"fmt"

	"banger"
)

// watch follows a running VM to its end, without polling. It ends with the run or with the Manager.
func (m *Manager) watch(vm banger.VM) {
	m.spawn(context.Background(), func(ctx context.Context) {
		exit, waitErr := m.Machines.Wait(ctx, vm.ID)
		if ctx.Err() != nil {
			return
		}
		ctx, release, err := m.claims.takeYielding(ctx, vm.ID)
		if err != nil {
			return
		}
		defer release()
		row, err := m.Store.Get(ctx, string(vm.ID))
		if err != nil || row.State != banger.StateRunning || row.Boots != vm.Boots {
			return // stopped or deleted by an operation, which has recorded that
		}
		if waitErr != nil {
			m.Log.WarnContext(ctx, "lost the supervisor", "vm", vm.ID, "name", vm.Spec.Name, "err", waitErr)
			err = m.resume(ctx, row)
		} else {
			err = m.conclude(ctx, row, exit)
		}
		if err != nil && ctx.Err() == nil {
			m.fail(ctx, row, err)
		}
	})
}

// conclude records the end of a run that nobody asked for. A guest that rebooted is started again on the same disk.
func (m *Manager) conclude(ctx context.Context, vm banger.VM, exit banger.Exit) error {
	state := banger.StateStopped
	switch {
	case vm.State == banger.StateStopping:
	case exit.Cause == banger.ExitPanic, exit.Cause == banger.ExitCrash, exit.Cause == banger.ExitNoBoot:
		state = banger.StateError
	}
	m.Log.InfoContext(ctx, "run ended", "vm", vm.ID, "name", vm.Spec.Name, "cause", exit.Cause, "detail", exit.Detail)
	if exit.Cause == banger.ExitReboot && vm.State != banger.StateStopping {
		return m.reboot(ctx, vm)
	}
	_, err := m.ended(ctx, vm, exit, state)
	return err
}

// reboot goes on with a VM whose guest rebooted. The record never says that it stopped: nobody asked for that, and the memory that
// it has is its own all the time.
func (m *Manager) reboot(ctx context.Context, vm banger.VM) error {
	if err := m.finish(ctx, vm.ID); err != nil {
		return err
	}
	if _, err := m.start(ctx, vm, true, nil); err != nil && !isBootFailure(err) {
		return fmt.Errorf("start after the guest's reboot: %w", err)
	}
	return nil
}

// resume takes up a VM whose record says that it is active, after the daemon's or the supervisor's death: a living supervisor
// is adopted, a living VMM gets a new one, and a run that ended is recorded. It holds the claim.
func (m *Manager) resume(ctx context.Context, vm banger.VM) error {
	status, err := m.Machines.Status(ctx, vm.ID)
	if err == nil && status.Exit == nil {
		m.tellName(ctx, vm, status.Name)
		return m.adopt(ctx, vm)
	}
	if err == nil {
		return m.conclude(ctx, vm, *status.Exit)
	}
	if ctx.Err() != nil {
		return err
	}
	record, err := m.record(vm)
	if err != nil {
		m.Log.WarnContext(ctx, "read exit record", "vm", vm.ID, "err", err)
	}
	if record != nil {
		return m.conclude(ctx, vm, *record)
	}
	handles, _, vmmLives, err := m.Machines.Handles(vm.ID)
	if err != nil {
		return err
	}
	if vmmLives {
		if err := m.Machines.Relaunch(ctx, vm.ID); err != nil {
			return fmt.Errorf("take over the VMM: %w", err)
		}
		m.Log.InfoContext(ctx, "new supervisor for a living VMM", "vm", vm.ID, "name", vm.Spec.Name)
		return m.adopt(ctx, vm)
	}
	exit := banger.Exit{Cause: banger.ExitUnknown, Detail: "VMM and supervisor are gone", At: m.Now().UTC()}
	if handles.VMM.PID == 0 {
		exit.Detail = "the run was cut off before it had a VMM"
	}
	return m.conclude(ctx, vm, exit)
}

// adopt goes on with a run that a supervisor serves.
func (m *Manager) adopt(ctx context.Context, vm banger.VM) (err error) {
	switch vm.State {
	case banger.StateRunning:
		m.watch(vm)
	case banger.StateStopping:
		_, err = m.shutdown(ctx, vm, m.stopTimeout(vm, 0))
	case banger.StateStarting:
		if _, err = m.awaitReady(ctx, vm); isBootFailure(err) {
			err = nil
		}
	}
	return err
}

// fail puts a VM that can't be taken up into state error, with no process left, as far as that can be had.
func (m *Manager) fail(ctx context.Context, vm banger.VM, cause error) {
	m.Log.ErrorContext(ctx, "vm failed", "vm", vm.ID, "name", vm.Spec.Name, "err", cause)
	if err := m.finish(ctx, vm.ID); err != nil {
		m.Log.ErrorContext(ctx, "vm failed", "vm", vm.ID, "err", err)
		return // its row goes on telling of processes
	}
	if _, err := m.update(ctx, vm.ID, func(vm *banger.VM) { vm.State, vm.LastError = banger.StateError, cause.Error() }); err != nil {
		m.Log.ErrorContext(ctx, "vm failed", "vm", vm.ID, "err", err)
	}
}
