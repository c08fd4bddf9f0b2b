package lifecycle

import (
	"context"
	"errors"
	"sync"
	"time"

	"banger"
)

// Pauses between attempts to use a store that fails.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// insist repeats what nobody would ask for again, until it works, the VM is gone or ctx ends.
func (m *Manager) insist(ctx context.Context, do func() error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		if err := do(); err == nil || errors.Is(err, banger.ErrNotFound) {
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// watchers counts who follows each running VM.
type watchers struct {
	mu    sync.Mutex
	count map[banger.VMID]int
}

func (w *watchers) add(id banger.VMID, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count == nil {
		w.count = map[banger.VMID]int{}
	}
	if w.count[id] += n; w.count[id] == 0 {
		delete(w.count, id)
	}
}

func (w *watchers) has(id banger.VMID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count[id] > 0
}

// mend does for a VM whose operation failed half-way what a new daemon would do: its record must not say for ever that something is
// going on. It waits for no one; a VM that an operation has left in order stays as it is.
func (m *Manager) mend(id banger.VMID) {
	m.spawn(context.Background(), func(ctx context.Context) {
		ctx, release, err := m.claims.takeYielding(ctx, id)
		if err != nil {
			return
		}
		defer release()
		m.insist(ctx, func() error {
			vm, err := m.Store.Get(ctx, string(id))
			if err != nil {
				return err
			}
			switch {
			case vm.State == banger.StateCreating:
				return m.erase(ctx, vm)
			case isActive(vm.State) && !(vm.State == banger.StateRunning && m.watched.has(id)):
				if err := m.resume(ctx, vm); err != nil && ctx.Err() == nil {
					return m.fail(ctx, vm, err)
				}
			}
			return nil
		})
	})
}
