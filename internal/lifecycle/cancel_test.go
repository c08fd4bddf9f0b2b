package lifecycle

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"banger"
	"banger/api"
)

// A creation that is cancelled at any of its steps is undone when it returns, unless that was too late: then it is whole.
func TestCancelledAtEachStep(t *testing.T) {
	cancelled := 0
	for step := 0; ; step++ {
		w := newWorld(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		var reached atomic.Bool
		w.onStep = func(n int) {
			if n == step {
				reached.Store(true)
				cancel(errors.New("nobody wants it"))
			}
		}
		vm, err := w.Create(ctx, api.CreateRequest{Name: "x", Start: true}, nil, nil)
		left := w.list()
		switch {
		case err == nil && (len(left) != 1 || left[0].State != banger.StateRunning || vm.ID != left[0].ID):
			t.Errorf("step %d: too late, and left %+v", step, left)
		case err != nil && (!errors.Is(err, banger.ErrInterrupted) || !strings.Contains(err.Error(), "nobody wants it") || len(left) > 0):
			t.Errorf("step %d: Create = %v, left %+v", step, err, left)
		case err != nil:
			cancelled++
		}
		if wrong := w.broken(); len(wrong) > 0 {
			t.Errorf("step %d: %v", step, wrong)
		}
		if w.waited > 0 {
			t.Errorf("step %d: a run that goes on is waited for", step)
		}
		if !reached.Load() {
			t.Logf("%d steps, %d of them cancelled", step, cancelled)
			break
		}
	}
	if cancelled == 0 {
		t.Error("nothing was cancelled")
	}
}
