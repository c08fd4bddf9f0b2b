package supervisor

import (
	"context"
	"errors"
	"time"

	"banger"
	"banger/internal/vmm"
)

const (
	attachTimeout = 10 * time.Second       // for each attempt to take a VMM over
	attachPause   = 100 * time.Millisecond // after the first one; it doubles
)

// takeOver goes on with the VMM of a supervisor that died. A guest that was ready before gets all the time it needs. Whatever keeps us
// from a VMM that lives, its guest runs on: there is another attempt until the VMM is gone, or who asked for the end has no patience left.
func (r *run) takeOver(spec vmm.Spec, deadline time.Duration) banger.Exit {
	r.link.emulated(spec.Accel == vmm.TCG)
	for attempt, pause := 1, attachPause; ; attempt, pause = attempt+1, min(2*pause, attachTimeout) {
		b, err := r.attach(spec)
		switch {
		case err == nil:
			r.Log.Info("took over", "vmm", r.handles.VMM.PID, "attempt", attempt)
			defer b.close()
			if r.handles.Ready {
				deadline = 0
				b.answered()
			}
			r.set(b)
			return b.watch(deadline)
		case errors.Is(err, banger.ErrNotFound):
			return r.exit(vmm.Exit{Cause: banger.ExitUnknown, Detail: "the VMM ended while it had no supervisor"})
		}
		r.Log.Warn("take the VMM over", "vmm", r.handles.VMM.PID, "attempt", attempt, "err", err)
		if attempt == 1 {
			r.say("the VMM does not answer its new supervisor, which goes on trying; banger vm kill ends it")
		}
		r.awaitEnd(pause)
		if r.patience.Err() != nil {
			r.killVMM()
			return r.failed(err)
		}
	}
}

// attach connects with a VMM that has no supervisor. Errors: ErrNotFound when it is gone.
func (r *run) attach(spec vmm.Spec) (*boot, error) {
	b, err := r.newBoot()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.patience, attachTimeout)
	defer cancel()
	m, err := r.Driver.Attach(ctx, spec, r.handles.VMM)
	if err != nil {
		b.close()
		return nil, err
	}
	b.own(m)
	return b, nil
}

// awaitEnd waits for the end of a VMM that has no supervisor, or of the patience with it, but no longer than limit.
func (r *run) awaitEnd(limit time.Duration) {
	ctx, cancel := context.WithTimeout(r.patience, limit)
	defer cancel()
	if err := r.handles.VMM.Wait(ctx); err != nil && !errors.Is(err, banger.ErrInterrupted) {
		r.Log.Warn("wait for the VMM", "err", err)
		<-ctx.Done()
	}
}

// killVMM ends a VMM that has no supervisor.
func (r *run) killVMM() {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	if err := r.handles.VMM.Kill(ctx); err != nil {
		r.Log.Error("kill the VMM", "err", err)
	}
}
