package lifecycle

import (
	"context"
	"maps"
	"time"

	"banger"
)

const (
	// lookEvery is how long a look may be put off: the wall clock may have been set meanwhile, and timers stand still while the host
	// sleeps.
	lookEvery = time.Hour
	// secondLook is how much later a wall clock must still say that a VM's time is up.
	secondLook = 10 * time.Minute
	// retryEvery is how long to wait with the next try to end a VM.
	retryEvery = 10 * time.Minute
)

// ages ends VMs whose time is up (--ttl) and stops those that nobody uses (--stop-idle). One goroutine looks at all of them; it
// sleeps until something is due, and for ever when no VM has an age.
//
// The rule of --ttl: the end is fixed by two clocks when it is set. In the same boot of the host that boot's clock alone counts,
// which nobody can set and which goes on while the host sleeps: whatever happens to the wall clock, also while no daemon runs,
// no VM ends early. After another boot of the host only the wall clock is left, which may be wrong when the
// host comes up. A VM whose time is up by it is looked at again after secondLook, and ends when its time is up then too.
//
// Now gives the wall clock; how long the daemon itself has waited is measured by the clock of timers, which nobody can set either.
type ages struct {
	*Manager
	doubts map[banger.VMID]time.Time // up by the wall clock alone, and since when
	idle   idleness
}

// lookAgain tells that a VM has got, or may have got, an age.
func (m *Manager) lookAgain() {
	select {
	case m.aged <- struct{}{}:
	default: // it is told already
	}
}

// setAge fixes when a VM is to be deleted: when ttl is over from now on, or never when that is 0. Call lookAgain when it is stored.
func (m *Manager) setAge(vm *banger.VM, ttl time.Duration) {
	vm.ExpiresAt, vm.ExpiresHost = time.Time{}, nil
	if ttl == 0 {
		return
	}
	vm.ExpiresAt = m.Now().Add(ttl).UTC()
	if now, err := m.HostTime(); err == nil {
		now.SinceBoot += ttl
		vm.ExpiresHost = &now
	}
}

// keepAges runs until ctx ends.
func (m *Manager) keepAges(ctx context.Context) {
	a := &ages{Manager: m, doubts: map[banger.VMID]time.Time{}, idle: idleness{Manager: m}}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-m.aged:
		case <-ctx.Done():
			return
		}
		timer.Stop()
		if wait, some := a.look(ctx); some {
			timer.Reset(wait)
		}
	}
}

// look ends what is due and tells how long nothing else will be, if any VM has an age.
func (a *ages) look(ctx context.Context) (wait time.Duration, some bool) {
	list, err := a.Store.List(ctx)
	if err != nil {
		a.Log.ErrorContext(ctx, "look at the ages of VMs", "err", err)
		return retryEvery, ctx.Err() == nil
	}
	sooner := func(d time.Duration) {
		if !some || d < wait {
			wait, some = d, true
		}
	}
	known := map[banger.VMID]bool{}
	for _, vm := range list {
		known[vm.ID] = true
		if !vm.ExpiresAt.IsZero() && vm.State != banger.StateCreating {
			sooner(a.lookAt(ctx, vm))
		}
	}
	maps.DeleteFunc(a.doubts, func(id banger.VMID, _ time.Time) bool { return !known[id] })
	if d, some := a.idle.look(ctx, list); some {
		sooner(d)
	}
	return wait, some
}

// lookAt ends a VM whose time is up and tells when to look again: also at one that should be gone by then.
func (a *ages) lookAt(ctx context.Context, vm banger.VM) time.Duration {
	left, sure := a.timeLeft(vm)
	switch {
	case left > 0:
		delete(a.doubts, vm.ID)
		return min(left, lookEvery)
	case !sure:
		since, doubted := a.doubts[vm.ID]
		if !doubted {
			since = time.Now()
			a.doubts[vm.ID] = since
		}
		if left := secondLook - time.Since(since); left > 0 {
			return left
		}
	}
	a.spawn(ctx, func(ctx context.Context) { a.expire(ctx, vm) })
	return retryEvery
}

// timeLeft is what a VM has to live; sure when a clock says so that nobody can set.
func (m *Manager) timeLeft(vm banger.VM) (left time.Duration, sure bool) {
	now, err := m.HostTime()
	if end := vm.ExpiresHost; err == nil && end != nil && end.BootID == now.BootID {
		return end.SinceBoot - now.SinceBoot, true
	}
	return vm.ExpiresAt.Sub(m.Now()), false
}

// expire deletes a VM whose time is up, unless it has got another age meanwhile.
func (m *Manager) expire(ctx context.Context, vm banger.VM) {
	now, release, err := m.claimForEnd(ctx, string(vm.ID))
	if err != nil {
		return // deleted already, or the daemon ends
	}
	defer release()
	if now.ExpiresAt.Equal(vm.ExpiresAt) {
		_ = m.removeAlone(ctx, now, "its time was up") // it is looked at again
	}
}
