package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"banger"
)

// killAtOnce as the time that a guest gets to power off: it is not asked.
const killAtOnce = 0

// finishGrace is how long a supervisor may take to go once its run has ended.
const finishGrace = 5 * time.Second

// Stop asks the guest to sync and power off, waits up to timeout (0: the default), then kills the VMM. A start in progress is
// ended. A VM that does not run is no error; state error becomes stopped
// when its disk is there.
func (m *Manager) Stop(ctx context.Context, ref string, timeout time.Duration, progress banger.ProgressFunc) (banger.VM, error) {
	if timeout < 0 {
		return banger.VM{}, badTimeout(timeout)
	}
	return m.detach(ctx, func(ctx context.Context) (banger.VM, error) {
		vm, release, err := m.claimForEnd(ctx, ref)
		if err != nil {
			return vm, err
		}
		defer release()
		defer progress.Begin("stop", "stopping the VM")()
		if vm, err = m.stop(ctx, vm, m.stopTimeout(vm, timeout)); err != nil {
			return vm, &banger.Error{Op: "stop vm", Subject: vm.Spec.Name, Err: err}
		}
		return vm, nil
	})
}

func badTimeout(timeout time.Duration) error {
	return banger.Invalidf("timeout %s: want a positive duration", timeout)
}

// claimForEnd takes the claim of a VM whose run is to end; a start in progress yields.
func (m *Manager) claimForEnd(ctx context.Context, ref string) (banger.VM, func(), error) {
	vm, err := m.Store.Get(ctx, ref)
	if err != nil {
		return banger.VM{}, nil, err
	}
	m.claims.interrupt(vm.ID)
	release, err := m.claims.take(ctx, vm.ID)
	if err != nil {
		return vm, nil, err
	}
	now, err := m.Store.Get(ctx, string(vm.ID))
	if err != nil {
		release()
		return vm, nil, err
	}
	return now, release, nil
}

// stop holds the claim. It gives the guest timeout; [killAtOnce] does not ask it.
func (m *Manager) stop(ctx context.Context, vm banger.VM, timeout time.Duration) (banger.VM, error) {
	switch vm.State {
	case banger.StateStopped:
		return vm, nil
	case banger.StateError:
		if err := m.finish(ctx, vm.ID); err != nil {
			return vm, err
		}
		if err := m.Homes.Check(vm.ID); err != nil {
			return vm, err // it stays in error: it can't be started
		}
		return m.update(ctx, vm.ID, func(vm *banger.VM) { vm.State, vm.LastError = banger.StateStopped, "" })
	}
	vm, err := m.Store.Update(ctx, vm.ID, func(vm *banger.VM) error {
		vm.State = banger.StateStopping
		return nil
	})
	if err != nil {
		return vm, err
	}
	return m.shutdown(ctx, vm, timeout)
}

// shutdown ends the run of a stopping VM by its supervisor, or by force when that does not answer.
func (m *Manager) shutdown(ctx context.Context, vm banger.VM, timeout time.Duration) (banger.VM, error) {
	asking, cancel := context.WithTimeout(ctx, timeout+shutdownMargin)
	defer cancel()
	exit, err := m.Machines.Shutdown(asking, vm.ID, timeout)
	if err != nil && ctx.Err() != nil {
		return vm, err // the daemon ends; the next one goes on
	}
	if err != nil {
		m.Log.WarnContext(ctx, "supervisor does not answer: kill", "vm", vm.ID, "err", err)
		if err := m.finish(ctx, vm.ID); err != nil {
			return vm, err
		}
		exit = banger.Exit{Cause: banger.ExitKilled, Detail: "the supervisor did not answer", At: m.Now().UTC()}
		if record, err := m.record(vm); err == nil && record != nil {
			exit = *record
		}
	}
	vm, err = m.ended(ctx, vm, exit, banger.StateStopped)
	if err == nil {
		m.Log.InfoContext(ctx, "stopped", "vm", vm.ID, "name", vm.Spec.Name, "cause", exit.Cause, "detail", exit.Detail)
	}
	return vm, err
}

// shutdownMargin is what a supervisor may take beside the guest's time, until it counts as hung.
const shutdownMargin = 30 * time.Second

// slowStops is how much longer than usual an emulated guest may take to power off.
const slowStops = 4

// stopTimeout is what a guest gets to power off: what was asked for, else the default.
func (m *Manager) stopTimeout(vm banger.VM, asked time.Duration) time.Duration {
	switch {
	case asked > 0:
		return asked
	case vm.Accel == "tcg":
		return slowStops * m.Defaults.StopTimeout
	}
	return m.Defaults.StopTimeout
}

// ended records the end of a run once its processes are proved dead.
func (m *Manager) ended(ctx context.Context, vm banger.VM, exit banger.Exit, state banger.VMState) (banger.VM, error) {
	if err := m.finish(ctx, vm.ID); err != nil {
		return vm, err
	}
	m.forgetPeer(ctx, vm)
	return m.update(ctx, vm.ID, func(vm *banger.VM) {
		exit.Detail, vm.StopReason = cmp.Or(vm.StopReason, exit.Detail), ""
		vm.State, vm.Exit, vm.StoppedAt, vm.LastError = state, &exit, exit.At, "" // the time tells which record that was: clocks jump
		if state == banger.StateError {
			vm.LastError = describe(exit)
		}
	})
}

// finish proves that no process of a VM is left. Errors: ErrUnavailable when one survives.
func (m *Manager) finish(ctx context.Context, id banger.VMID) error {
	ctx, cancel := fresh(ctx)
	defer cancel()
	if err := m.Machines.Finish(ctx, id, finishGrace); err != nil {
		return fmt.Errorf("end the processes of vm %s: %w", id, err)
	}
	return nil
}

// giveUp is finish of a run that may go on and that nobody wants any more. Its supervisor is told, which need not answer: finish alone would
// wait all of its grace.
func (m *Manager) giveUp(ctx context.Context, id banger.VMID) error {
	ctx, cancel := fresh(ctx)
	defer cancel()
	asking, done := context.WithTimeout(ctx, finishGrace)
	defer done()
	_, _ = m.Machines.Shutdown(asking, id, killAtOnce)
	return m.finish(ctx, id)
}

// record is the exit record of the VM's last run; one that an earlier end has taken up already does not count.
func (m *Manager) record(vm banger.VM) (*banger.Exit, error) {
	exit, err := m.Machines.ExitRecord(vm.ID)
	if err != nil || exit == nil || exit.At.Equal(vm.StoppedAt) {
		return nil, err
	}
	return exit, nil
}

// describe is one line for people.
func describe(exit banger.Exit) string {
	text := map[banger.ExitCause]string{
		banger.ExitPowerOff: "the guest powered off",
		banger.ExitReboot:   "the guest rebooted",
		banger.ExitPanic:    "the guest's kernel panicked",
		banger.ExitKilled:   "the VMM was killed",
		banger.ExitCrash:    "the VMM crashed",
		banger.ExitNoBoot:   "the guest did not get ready",
	}[exit.Cause]
	if text == "" {
		text = "the run ended and nobody recorded how"
	}
	if exit.Detail != "" && exit.Detail != text {
		text += ": " + exit.Detail
	}
	return text
}

// Delete removes a VM with its disk and gives its last record. With force a running one is ended first. Work in it that the host does not have is
// kept. Errors: ErrConflict when it runs and force is not set, or when its work can't be kept.
func (m *Manager) Delete(ctx context.Context, ref string, force bool, progress banger.ProgressFunc) (banger.VM, error) {
	return m.delete(ctx, ref, force, false, progress)
}

// Discard is Delete with force that keeps no work.
func (m *Manager) Discard(ctx context.Context, ref string, progress banger.ProgressFunc) (banger.VM, error) {
	return m.delete(ctx, ref, true, true, progress)
}

func (m *Manager) delete(ctx context.Context, ref string, force, discard bool, progress banger.ProgressFunc) (banger.VM, error) {
	return m.detach(ctx, func(ctx context.Context) (banger.VM, error) {
		vm, err := m.Store.Get(ctx, ref)
		if err != nil {
			return banger.VM{}, err
		}
		if !force && isActive(vm.State) {
			return vm, stillRuns(vm)
		}
		row, release, err := m.claimForEnd(ctx, string(vm.ID))
		if errors.Is(err, banger.ErrNotFound) {
			return vm, nil // its creation was undone meanwhile
		}
		if err != nil {
			return vm, err
		}
		defer release()
		if !force && isActive(row.State) {
			return row, stillRuns(row)
		}
		defer progress.Begin("delete", "deleting the VM")()
		if err := m.remove(ctx, row, progress, discard); err != nil {
			return row, &banger.Error{Op: "delete vm", Subject: row.Spec.Name, Err: err}
		}
		m.Log.InfoContext(ctx, "deleted", "vm", row.ID, "name", row.Spec.Name)
		return row, nil
	})
}

func isActive(state banger.VMState) bool {
	return state == banger.StateStarting || state == banger.StateRunning || state == banger.StateStopping
}

func stillRuns(vm banger.VM) error {
	return &banger.Error{Kind: banger.ErrConflict, Op: "delete vm", Subject: vm.Spec.Name, Err: fmt.Errorf("it is %s", vm.State),
		Hint: fmt.Sprintf("banger vm stop %s, or use --force", vm.Spec.Name)}
}

// remove holds the claim. Work in the VM that the host does not have is kept first, unless it is to be discarded; a VM whose work can't be
// kept stays.
func (m *Manager) remove(ctx context.Context, vm banger.VM, progress banger.ProgressFunc, discard bool) (err error) {
	keep := len(vm.Workspaces) > 0 && !discard
	if isActive(vm.State) && vm.State != banger.StateStopping {
		var timeout time.Duration = killAtOnce
		if keep { // the guest writes what it has in memory
			timeout = m.stopTimeout(vm, 0)
		}
		if vm, err = m.stop(ctx, vm, timeout); err != nil {
			return err
		}
	}
	if keep {
		if err := m.keepWork(ctx, vm, progress); err != nil {
			return err
		}
	}
	return m.erase(ctx, vm)
}

// erase removes all of a VM once its processes are proved dead. The record goes before the directory: Recover removes the directory
// of an erased VM, and a record never tells of a disk that is gone.
func (m *Manager) erase(ctx context.Context, vm banger.VM) error {
	if err := m.giveUp(ctx, vm.ID); err != nil {
		return err
	}
	m.forgetPeer(ctx, vm)
	ctx, cancel := fresh(ctx)
	defer cancel()
	if err := m.Store.Delete(ctx, vm.ID); err != nil {
		return err
	}
	if err := m.Homes.Remove(vm.ID); err != nil {
		m.Log.WarnContext(ctx, "remove directory; the next start of the daemon tries again", "vm", vm.ID, "err", err)
	}
	return nil
}
