package lifecycle

import (
	"context"
	"fmt"
	"time"

	"banger"
	"banger/internal/machine"
)

// watch follows a running VM to its end, without polling. It ends with the run or with the Manager.
func (m *Manager) watch(vm banger.VM) {
	m.watched.add(vm.ID, 1)
	m.spawn(context.Background(), func(ctx context.Context) {
		exit, waitErr := m.Machines.Wait(ctx, vm.ID)
		var release func()
		var err error
		if ctx.Err() == nil {
			ctx, release, err = m.claims.takeYielding(ctx, vm.ID)
		}
		m.watched.add(vm.ID, -1)
		if release == nil {
			return
		}
		defer release()
		var row banger.VM
		m.insist(ctx, func() error {
			row, err = m.Store.Get(ctx, string(vm.ID))
			return err
		})
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
			m.insist(ctx, func() error { return m.fail(ctx, row, err) })
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
// is adopted, a living VMM gets a new one, and a run that ended is recorded. While its VMM lives the guest runs on: a supervisor that can't
// be started is tried again. It holds the claim.
func (m *Manager) resume(ctx context.Context, vm banger.VM) error {
	status, err := m.contact(ctx, vm.ID)
	for pause := firstPause; err != nil; pause = min(2*pause, lastPause) {
		if ctx.Err() != nil {
			return err
		}
		exit, endErr := m.unattended(ctx, vm)
		if endErr != nil {
			return endErr
		}
		if exit != nil {
			return m.conclude(ctx, vm, *exit)
		}
		if err = m.Machines.Relaunch(ctx, vm.ID); err == nil {
			status, err = m.contact(ctx, vm.ID)
		}
		if err != nil {
			m.Log.WarnContext(ctx, "start a new supervisor for a living VMM", "vm", vm.ID, "name", vm.Spec.Name, "again_in", pause, "err", err)
			wait(ctx, pause)
			continue
		}
		m.Log.InfoContext(ctx, "new supervisor for a living VMM", "vm", vm.ID, "name", vm.Spec.Name)
	}
	if status.Exit != nil {
		return m.conclude(ctx, vm, *status.Exit)
	}
	m.tellName(ctx, vm, status.Name)
	m.retellNet(ctx, vm, status.Net)
	return m.adopt(ctx, vm)
}

// unattended gives the end of a run whose supervisor is gone; nil while the VMM lives.
func (m *Manager) unattended(ctx context.Context, vm banger.VM) (*banger.Exit, error) {
	record, err := m.record(vm)
	if err != nil {
		m.Log.WarnContext(ctx, "read exit record", "vm", vm.ID, "err", err)
	}
	if record != nil {
		return record, nil
	}
	handles, _, lives, err := m.Machines.Handles(vm.ID)
	if err != nil || lives {
		return nil, err
	}
	if err := m.Machines.Damage(vm.ID); err != nil {
		return nil, err
	}
	exit := banger.Exit{Cause: banger.ExitUnknown, Detail: "VMM and supervisor are gone", At: m.Now().UTC()}
	if handles.VMM.PID == 0 {
		exit.Detail = "the run was cut off before it had a VMM"
	}
	return &exit, nil
}

// What a supervisor gets that lives and does not answer, before another takes its place.
const (
	contactAttempts = 3
	contactTimeout  = 10 * time.Second
)

// contact asks the supervisor of a run how that is.
func (m *Manager) contact(ctx context.Context, id banger.VMID) (status machine.Status, err error) {
	for attempt := 1; ; attempt++ {
		asking, cancel := context.WithTimeout(ctx, contactTimeout)
		status, err = m.Machines.Status(asking, id)
		cancel()
		if err == nil || ctx.Err() != nil || attempt == contactAttempts {
			return status, err
		}
		if _, lives, _, handlesErr := m.Machines.Handles(id); handlesErr != nil || !lives {
			return status, err
		}
		wait(ctx, firstPause)
	}
}

// wait returns when the time is over or ctx ends.
func wait(ctx context.Context, pause time.Duration) {
	select {
	case <-time.After(pause):
	case <-ctx.Done():
	}
}

// adopt goes on with a run that a supervisor serves.
func (m *Manager) adopt(ctx context.Context, vm banger.VM) (err error) {
	switch vm.State {
	case banger.StateRunning:
		m.watch(vm)
	case banger.StateStopping:
		_, err = m.shutdown(ctx, vm, m.stopTimeout(vm, 0))
	case banger.StateStarting:
		if _, err = m.awaitReady(ctx, vm, nil); isBootFailure(err) {
			err = nil
		}
	}
	return err
}

// fail puts a VM that can't be taken up into state error, with no process left. Its error means that the row tells something else still.
func (m *Manager) fail(ctx context.Context, vm banger.VM, cause error) error {
	m.Log.ErrorContext(ctx, "vm failed", "vm", vm.ID, "name", vm.Spec.Name, "err", cause)
	err := m.finish(ctx, vm.ID)
	if err == nil {
		_, err = m.update(ctx, vm.ID, func(vm *banger.VM) { vm.State, vm.LastError = banger.StateError, cause.Error() })
	}
	if err != nil {
		m.Log.ErrorContext(ctx, "record that vm failed", "vm", vm.ID, "err", err)
	}
	return err
}
