package lifecycle

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"banger"
	"banger/api"
)

// sized makes a stopped VM.
func (w *world) sized(name string, mib int) banger.VM {
	w.t.Helper()
	vm, err := w.Create(w.t.Context(), api.CreateRequest{Name: name, MemoryMiB: &mib}, nil, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return vm
}

func TestAdmission(t *testing.T) {
	w := newWorld(t)
	w.Defaults.MaxMemoryMiB = 4096
	for name, mib := range map[string]int{"small": 512, "half": 2048, "other": 2048, "large": 5000} {
		w.sized(name, mib)
	}
	start := func(name string, overcommit bool) error {
		_, err := w.Manager.Start(t.Context(), name, api.StartRequest{Overcommit: overcommit}, nil)
		return err
	}
	refused := func(what string, err error, say, hint string) {
		t.Helper()
		if !errors.Is(err, banger.ErrRefused) || !strings.Contains(err.Error(), say) || banger.HintOf(err) != hint {
			t.Errorf("%s: %v (hint %q), want refused with %q, hint %q", what, err, banger.HintOf(err), say, hint)
		}
	}
	refused("more than all", start("large", false), "5000 MiB", "give it less memory, or add --overcommit")
	for _, name := range []string{"small", "half"} {
		if err := start(name, false); err != nil {
			t.Fatal(err)
		}
	}
	refused("one too many", start("other", false), "there run half (2048 MiB), small (512 MiB)", "banger vm stop half, or add --overcommit")
	if got := w.get("other"); got.State != banger.StateStopped || got.LastError != "" {
		t.Errorf("a start that was refused left %+v", got)
	}
	mib := 3000
	_, err := w.Create(t.Context(), api.CreateRequest{Name: "new", MemoryMiB: &mib, Start: true}, nil, nil)
	refused("a new one", err, "3000 MiB", "banger vm stop half, or add --overcommit")
	if len(w.list()) != 4 || len(w.broken()) > 0 {
		t.Errorf("a creation that was refused left %v, %v", w.list(), w.broken())
	}
	if err := start("half", false); err != nil {
		t.Errorf("a running one again: %v", err)
	}
	if vm, err := w.Restart(t.Context(), "half", 0, nil); err != nil || vm.State != banger.StateRunning {
		t.Errorf("a restart needs no more than it has: %+v, %v", vm, err)
	}
	if _, err := w.set("half", banger.SpecChange{MemoryMiB: number(4000)}, false); err != nil {
		t.Fatal(err)
	}
	_, err = w.Restart(t.Context(), "half", 0, nil)
	refused("a restart with more", err, "4000 MiB", "banger vm stop small, or add --overcommit")
	if got := w.get("half"); got.State != banger.StateRunning || got.Boots != 2 {
		t.Errorf("a restart that was refused ended the run: %+v", got)
	}
	if err := start("other", true); err != nil {
		t.Errorf("with --overcommit: %v", err)
	}
	w.guestEnds(w.get("other").ID, banger.ExitReboot)
	w.await("the second boot", func() bool { vm := w.get("other"); return vm.State == banger.StateRunning && vm.Boots == 2 })
	if _, err := w.Stop(t.Context(), "half", 0, nil); err != nil {
		t.Fatal(err)
	}
	refused("what was set is what counts", start("half", false), "4000 MiB", "banger vm stop other small, or add --overcommit")
}

// Many that start at once take no more than there is.
func TestAdmissionAtOnce(t *testing.T) {
	w := newWorld(t)
	w.Defaults.MaxMemoryMiB = 3 * 1024
	const all = 12
	for i := range all {
		w.sized(fmt.Sprintf("vm-%d", i), 1024)
	}
	var group sync.WaitGroup
	var admitted atomic.Int32
	for i := range all {
		group.Go(func() {
			_, err := w.Start(t.Context(), fmt.Sprintf("vm-%d", i), nil)
			if err == nil {
				admitted.Add(1)
			} else if !errors.Is(err, banger.ErrRefused) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := admitted.Load(); got != 3 {
		t.Errorf("%d of %d were admitted, want 3", got, all)
	}
}
