package lifecycle

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"banger"
)

// A living VMM whose next supervisor can't be started is never ended for that: it gets one when that works again.
func TestSupervisorThatCantBeStarted(t *testing.T) {
	for _, failing := range []string{"machine: relaunch", "machine: status"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			vm := w.mustCreate("x", true)
			w.awaitWatcher(vm.ID)
			var refused atomic.Int32
			w.gate = func(_ *daemon, op string) bool { return op == failing && refused.Add(1) <= 6 }
			w.killProcesses(vm.ID, true, false)
			synctest.Wait()
			if got := w.get("x"); refused.Load() == 0 || got.State != banger.StateRunning || !w.vmmLives(vm.ID) {
				t.Errorf("%s, refused %d times: %+v, VMM lives: %v", failing, refused.Load(), got, w.vmmLives(vm.ID))
			}
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if wrong := w.broken(); len(wrong) > 0 {
				t.Errorf("%s, then not: %v", failing, wrong)
			}
			w.guestEnds(vm.ID, banger.ExitPowerOff) // it is watched
			w.await("the watched end", func() bool { return w.get("x").State == banger.StateStopped })
		})
	}
}

// What waits for a new supervisor can be stopped, and its death is told of.
func TestEndWithoutSupervisor(t *testing.T) {
	for what, end := range map[string]func(*world, banger.VMID) error{
		"stop": func(w *world, _ banger.VMID) error {
			_, err := w.Stop(w.t.Context(), "x", 0, nil)
			return err
		},
		"death": func(w *world, id banger.VMID) error {
			w.killProcesses(id, false, true)
			time.Sleep(2 * lastPause)
			synctest.Wait()
			return nil
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			vm := w.mustCreate("x", true)
			w.awaitWatcher(vm.ID)
			w.gate = func(_ *daemon, op string) bool { return op == "machine: relaunch" }
			w.killProcesses(vm.ID, true, false)
			synctest.Wait()
			if err := end(w, vm.ID); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if got := w.get("x"); got.State != banger.StateStopped || w.vmmLives(vm.ID) {
				t.Errorf("after the %s: %+v, VMM lives: %v", what, got, w.vmmLives(vm.ID))
			}
		})
	}
}

func (w *world) vmmLives(id banger.VMID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runs[id].vmm
}
