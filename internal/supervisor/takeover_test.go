package supervisor

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"banger"
	"banger/internal/machine"
	"banger/internal/proc"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest"
)

// unwilling is a driver whose VMMs are not to be taken over at first.
type unwilling struct {
	*vmmtest.Memory
	refusals atomic.Int32
	refused  chan struct{} // one token for each
}

func (d *unwilling) Attach(ctx context.Context, spec vmm.Spec, h proc.Handle) (vmm.Machine, error) {
	if d.refusals.Add(-1) < 0 {
		return d.Memory.Attach(ctx, spec, h)
	}
	d.refused <- struct{}{}
	return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "take over", Err: errors.New("no answer")}
}

func newUnwilling(w *world, refusals int32) *unwilling {
	d := &unwilling{Memory: w.driver, refused: make(chan struct{}, 100)}
	d.refusals.Store(refusals)
	w.via = d
	return d
}

// A VMM that lives and does not answer at once is taken over when it does: its guest does not notice.
func TestTakeOverAtLast(t *testing.T) {
	w := newWorld(t, agent)
	vmmHandle := w.orphan(true)
	newUnwilling(w, 2)
	done := w.start(t.Context())
	if status := w.ready(); status.Phase != machine.PhaseReady {
		t.Fatalf("status %+v", status)
	}
	if h := w.handles(); h.VMM != vmmHandle || !vmmHandle.Alive() {
		t.Errorf("handles %+v, want the VMM %+v of before, alive", h, vmmHandle)
	}
	if result, out, err := w.exec("echo", "again"); err != nil || out != "again\n" {
		t.Errorf("exec = %+v, %q, %v", result, out, err)
	}
	var shown strings.Builder
	if _, err := w.client.Console(t.Context(), machine.ConsoleRequest{}, &shown); err != nil || strings.Count(shown.String(), "goes on trying") != 1 {
		t.Errorf("the console says %q, %v", shown.String(), err)
	}
	if exit, err := w.client.Shutdown(t.Context(), patience); err != nil || exit.Cause != banger.ExitPowerOff {
		t.Errorf("Shutdown = %+v, %v", exit, err)
	}
	w.finish(done)
}

// One that never answers can be ended: at once, or when the time for its guest to power off is over.
func TestEndOfWhatIsNotTakenOver(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Millisecond} {
		w := newWorld(t, agent)
		vmmHandle := w.orphan(true)
		d := newUnwilling(w, 1<<30)
		done := w.start(t.Context())
		<-d.refused
		<-d.refused
		if !vmmHandle.Alive() {
			t.Error("the VMM was ended unasked")
		}
		if exit, err := w.client.Shutdown(t.Context(), timeout); err != nil || exit.Cause != banger.ExitKilled {
			t.Errorf("Shutdown(%v) = %+v, %v", timeout, exit, err)
		}
		w.finish(done)
	}
}

// One that dies before it was taken over is told of at once.
func TestDeathOfWhatIsNotTakenOver(t *testing.T) {
	w := newWorld(t, agent)
	vmmHandle := w.orphan(true)
	d := newUnwilling(w, 1<<30)
	done := w.start(t.Context())
	<-d.refused
	if err := vmmHandle.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.refusals.Store(0)
	if exit := w.finish(done); exit.Cause != banger.ExitUnknown {
		t.Errorf("exit %+v, want unknown", exit)
	}
}

// Who wants the guest to power off waits until it can be asked.
func TestShutdownWaitsForTheTakeOver(t *testing.T) {
	w := newWorld(t, agent)
	w.orphan(true)
	d := newUnwilling(w, 2)
	done := w.start(t.Context())
	<-d.refused
	if exit, err := w.client.Shutdown(t.Context(), patience); err != nil || exit.Cause != banger.ExitPowerOff {
		t.Errorf("Shutdown = %+v, %v", exit, err)
	}
	w.finish(done)
}
