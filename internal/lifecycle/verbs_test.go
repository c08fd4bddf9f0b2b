package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/api"
	"banger/internal/machine"
)

func TestRestart(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("x", true)
	got, err := w.Restart(t.Context(), "x", 0, nil)
	if err != nil || got.State != banger.StateRunning || got.Boots != 2 || got.Exit != nil {
		t.Errorf("Restart = %+v, %v", got, err)
	}
	if _, err := w.Stop(t.Context(), "x", 0, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Restart(t.Context(), "x", 0, nil); err != nil || got.State != banger.StateRunning || got.Boots != 3 {
		t.Errorf("Restart of a stopped VM = %+v, %v", got, err)
	}
	w.guestEnds(vm.ID, banger.ExitPanic)
	w.await("state error", func() bool { return w.get("x").State == banger.StateError })
	if got, err := w.Restart(t.Context(), "x", 0, nil); err != nil || got.State != banger.StateRunning || got.LastError != "" {
		t.Errorf("Restart after a panic = %+v, %v", got, err)
	}
	for _, tc := range []struct {
		ref     string
		timeout time.Duration
		kind    error
	}{{"nosuch", 0, banger.ErrNotFound}, {"x", -1, banger.ErrInvalid}} {
		if _, err := w.Restart(t.Context(), tc.ref, tc.timeout, nil); !errors.Is(err, tc.kind) {
			t.Errorf("Restart(%s, %s) = %v, want %v", tc.ref, tc.timeout, err, tc.kind)
		}
	}
	if wrong := w.broken(); len(wrong) > 0 {
		t.Error(wrong)
	}
}

// A stop that comes while a VM is being restarted has the last word.
func TestStopEndsARestart(t *testing.T) {
	w := newWorld(t)
	w.mustCreate("x", true)
	w.mu.Lock()
	w.slow = make(chan struct{})
	w.mu.Unlock()
	failed := make(chan error, 1)
	go func() {
		_, err := w.Restart(t.Context(), "x", 0, nil)
		failed <- err
	}()
	w.await("the start", func() bool { return w.get("x").State == banger.StateStarting })
	if vm, err := w.Stop(t.Context(), "x", 0, nil); err != nil || vm.State != banger.StateStopped {
		t.Errorf("Stop = %+v, %v", vm, err)
	}
	if err := <-failed; !errors.Is(err, banger.ErrConflict) {
		t.Errorf("Restart = %v, want a conflict", err)
	}
}

func TestKill(t *testing.T) {
	w := newWorld(t)
	w.mustCreate("x", true)
	if vm, err := w.Kill(t.Context(), "x", "KILL", nil); err != nil || vm.State != banger.StateStopped || vm.Exit == nil || vm.Exit.Cause != banger.ExitKilled {
		t.Errorf("Kill = %+v, %v, want stopped by a kill", vm, err)
	}
	if vm, err := w.Kill(t.Context(), "x", "9", nil); err != nil || vm.State != banger.StateStopped {
		t.Errorf("Kill of a stopped VM = %+v, %v", vm, err)
	}
	if _, err := w.Kill(t.Context(), "x", "TERM", nil); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("a signal to a stopped VM = %v, want a conflict", err)
	}
	if _, err := w.Kill(t.Context(), "x", "NOSUCH", nil); !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("no signal = %v", err)
	}
	if _, err := w.Start(t.Context(), "x", nil); err != nil {
		t.Fatal(err)
	}
	if vm, err := w.Kill(t.Context(), "x", "CONT", nil); err != nil || vm.State != banger.StateRunning {
		t.Errorf("a signal that ends nothing: %+v, %v", vm, err)
	}
	if _, err := w.Kill(t.Context(), "x", "TERM", nil); err != nil {
		t.Error(err)
	}
	vm, err := w.Wait(t.Context(), "x", "stopped")
	if err != nil || vm.State != banger.StateStopped || vm.Exit.Cause != banger.ExitKilled {
		t.Errorf("after a signal that ends the VMM: %+v, %v, want stopped by a kill", vm, err)
	}
	if wrong := w.broken(); len(wrong) > 0 {
		t.Error(wrong)
	}
}

// A stop that takes its time is ended by a kill.
func TestKillHastensAStop(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("x", true)
	w.mu.Lock()
	w.deaf = true
	w.mu.Unlock()
	stopped := make(chan banger.VM, 1)
	go func() {
		vm, err := w.Stop(t.Context(), "x", time.Hour, nil)
		if err != nil {
			t.Error(err)
		}
		stopped <- vm
	}()
	w.await("stopping", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.runs[vm.ID].asked
	})
	if vm, err := w.Kill(t.Context(), "x", "KILL", nil); err != nil || vm.State != banger.StateStopped {
		t.Errorf("Kill = %+v, %v", vm, err)
	}
	if vm := <-stopped; vm.State != banger.StateStopped || vm.Exit.Cause != banger.ExitKilled {
		t.Errorf("Stop = %+v, want stopped by a kill", vm)
	}
}

// What is deleted by force is not asked: nothing of it is kept.
func TestDeleteByForceKills(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("x", true)
	w.mu.Lock()
	r := w.runs[vm.ID]
	w.mu.Unlock()
	if _, err := w.Delete(t.Context(), "x", true, nil); err != nil || r.exit.Cause != banger.ExitKilled {
		t.Errorf("Delete: %v, exit %+v, want a kill", err, r.exit)
	}
}

func TestRename(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("x", true)
	w.mustCreate("taken", false)
	for _, tc := range []struct {
		ref, name string
		kind      error
	}{
		{"x", "No_Good", banger.ErrInvalid}, {"x", "", banger.ErrInvalid}, {"x", "taken", banger.ErrConflict}, {"nosuch", "y", banger.ErrNotFound},
	} {
		if _, err := w.Rename(t.Context(), tc.ref, tc.name, nil); !errors.Is(err, tc.kind) {
			t.Errorf("Rename(%s, %q) = %v, want %v", tc.ref, tc.name, err, tc.kind)
		}
	}
	if w.runs[vm.ID].name != "x" {
		t.Errorf("a rename that was refused reached the guest: %s", w.runs[vm.ID].name)
	}
	for _, name := range []string{"y", "y", "x", "y"} {
		if got, err := w.Rename(t.Context(), string(vm.ID), name, nil); err != nil || got.Spec.Name != name || w.runs[vm.ID].name != name {
			t.Errorf("Rename to %s = %+v, %v, the guest is called %s", name, got, err, w.runs[vm.ID].name)
		}
	}
	if got, err := w.Rename(t.Context(), "taken", "x", nil); err != nil || got.Spec.Name != "x" {
		t.Errorf("Rename of a stopped VM = %+v, %v", got, err)
	}
	w.restart()
	if wrong := w.misnamed(); w.get("y").ID != vm.ID || len(wrong) > 0 {
		t.Errorf("after a restart: %v", wrong)
	}
}

// A guest that does not answer is renamed all the same: it is told when its supervisor is taken up again.
func TestRenameWithoutAnAnswer(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("x", true)
	w.awaitWatcher(vm.ID)
	w.mu.Lock()
	w.runs[vm.ID].supervisor = false // unnoticed
	w.mu.Unlock()
	var told []string
	got, err := w.Rename(t.Context(), "x", "y", func(p banger.Progress) { told = append(told, p.Text) })
	if err != nil || got.Spec.Name != "y" || len(told) != 1 || !strings.Contains(told[0], "called x") {
		t.Errorf("Rename = %+v, %v, told %q", got, err, told)
	}
	w.mu.Lock()
	w.runs[vm.ID].supervisor = true
	w.mu.Unlock()
	w.restart()
	if wrong := w.misnamed(); len(wrong) > 0 {
		t.Error(wrong)
	}
}

// awaitWatcher waits until the daemon follows a run.
func (w *world) awaitWatcher(id banger.VMID) {
	w.await("the watcher's connection", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.runs[id].watched
	})
}

// misnamed gives the guests that have another name than their VM.
func (w *world) misnamed() (wrong []string) {
	for _, vm := range w.list() {
		w.mu.Lock()
		if r := w.runs[vm.ID]; r != nil && r.supervisor && vm.State == banger.StateRunning && r.name != vm.Spec.Name {
			wrong = append(wrong, "the guest of "+vm.Spec.Name+" is called "+r.name)
		}
		w.mu.Unlock()
	}
	return wrong
}

func TestWait(t *testing.T) {
	for _, tc := range []struct {
		what, want string
		begin      func(w *world)
		events     []func(w *world)
		state      banger.VMState
		kind       error
	}{
		{"stopped already", "stopped", nil, nil, banger.StateStopped, nil},
		{"runs already", "running", start, nil, banger.StateRunning, nil},
		{"started", "running", nil, []func(*world){start}, banger.StateRunning, nil},
		{"powers off", "stopped", start, []func(*world){ends(banger.ExitPowerOff)}, banger.StateStopped, nil},
		{"panics", "stopped", start, []func(*world){ends(banger.ExitPanic)}, banger.StateError, nil},
		{"panics, waited for", "error", start, []func(*world){ends(banger.ExitPanic)}, banger.StateError, nil},
		{"reboots, then powers off", "stopped", start, []func(*world){ends(banger.ExitReboot), rebooted, ends(banger.ExitPowerOff)}, banger.StateStopped, nil},
		{"does not get ready", "running", nil, []func(*world){func(w *world) { w.boot = banger.ExitNoBoot; w.Start(w.t.Context(), "x", nil) }}, banger.StateError, banger.ErrConflict},
		{"deleted", "deleted", nil, []func(*world){remove}, banger.StateStopped, nil},
		{"deleted, another thing waited for", "running", nil, []func(*world){remove}, banger.StateStopped, banger.ErrNotFound},
		{"the daemon ends", "running", nil, []func(*world){func(w *world) { w.Manager.Close() }}, banger.StateStopped, banger.ErrUnavailable},
		{"another word", "stoped", nil, nil, "", banger.ErrInvalid},
	} {
		t.Run(tc.what, func(t *testing.T) {
			w := newWorld(t)
			w.mustCreate("x", false)
			if tc.begin != nil {
				tc.begin(w)
			}
			m := w.Manager
			type result struct {
				vm  banger.VM
				err error
			}
			done := make(chan result, 1)
			go func() {
				vm, err := m.Wait(context.Background(), "x", tc.want)
				done <- result{vm, err}
			}()
			w.await("somebody who waits", func() bool { return w.waiters.Load() > 0 || len(done) > 0 })
			for _, event := range tc.events {
				event(w)
			}
			r := <-done
			if r.vm.State != tc.state || (tc.kind == nil) != (r.err == nil) || tc.kind != nil && !errors.Is(r.err, tc.kind) {
				t.Errorf("Wait = %s, %v, want %s, %v", r.vm.State, r.err, tc.state, tc.kind)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := newWorld(t)
	w.mustCreate("x", false)
	if _, err := w.Wait(ctx, "x", "running"); !errors.Is(err, banger.ErrInterrupted) && !errors.Is(err, context.Canceled) {
		t.Errorf("Wait whose caller leaves = %v", err)
	}
	if _, err := w.Wait(t.Context(), "nosuch", "running"); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("Wait for an unknown VM = %v", err)
	}
}

func start(w *world)  { w.Start(w.t.Context(), "x", nil) }
func remove(w *world) { w.Delete(w.t.Context(), "x", true, nil) }

func ends(cause banger.ExitCause) func(*world) {
	return func(w *world) { w.guestEnds(w.get("x").ID, cause) }
}

func rebooted(w *world) {
	w.await("the second boot", func() bool { vm := w.get("x"); return vm.State == banger.StateRunning && vm.Boots == 2 })
	w.settle()
}

// A list waits for nothing: not for a VM that starts for ever, not for one that somebody works on, not for admission.
func TestListWaitsForNothing(t *testing.T) {
	w := newWorld(t)
	w.slow = make(chan struct{})
	defer close(w.slow)
	vm := w.mustCreate("x", false)
	go w.Start(context.Background(), "x", nil)
	w.await("starting", func() bool { return w.get("x").State == banger.StateStarting })
	release, err := w.claims.take(t.Context(), admission)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if list, err := w.List(ctx); err != nil || len(list) != 1 || list[0].State != banger.StateStarting {
		t.Errorf("List = %+v, %v", list, err)
	}
	if got, err := w.Resolve(ctx, []string{"x"}); err != nil || got[0].ID != vm.ID {
		t.Errorf("Resolve = %+v, %v", got, err)
	}
	if got, err := w.set("x", banger.SpecChange{VCPU: number(2)}, true); err != nil || len(got) != 1 {
		t.Errorf("dry run of a change = %q, %v", got, err)
	}
}

func TestResolve(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("x", false)
	got, err := w.Resolve(t.Context(), []string{"x", "nosuch", string(vm.ID[:6])})
	if err != nil || len(got) != 3 || got[0].ID != vm.ID || got[0].Error != nil || got[2].Name != "x" || got[2].Ref != string(vm.ID[:6]) {
		t.Errorf("Resolve = %+v, %v", got, err)
	}
	if body := got[1].Error; body == nil || body.Kind != "not_found" || got[1].ID != "" {
		t.Errorf("Resolve of an unknown VM = %+v", got[1])
	}
}

// changes is every operation that changes a VM otherwise than making, starting, stopping and deleting it do.
func (w *world) changes() func() error {
	m := w.Manager
	return func() (failed error) {
		ctx := context.Background()
		for _, op := range []func() error{
			func() error { _, err := m.Create(ctx, api.CreateRequest{Name: "x", Start: true}, nil, nil); return err },
			func() error { _, err := m.Rename(ctx, "x", "y", nil); return err },
			func() error { _, err := m.Restart(ctx, "y", api.RestartRequest{}, nil); return err },
			func() error { _, err := m.Kill(ctx, "y", "KILL", nil); return err },
			func() error { _, err := m.Rename(ctx, "y", "z", nil); return err },
			func() error { _, err := m.Restart(ctx, "z", api.RestartRequest{}, nil); return err },
			func() error { _, err := m.Kill(ctx, "z", "CONT", nil); return err },
		} {
			if err := op(); failed == nil {
				failed = err
			}
		}
		return failed
	}
}

// The configuration has the new name whether or not a supervisor answers: one that takes the run over reads it there.
func TestRenameIsKept(t *testing.T) {
	s := Supervisors{Dir: newStateDir(t)}
	dir := s.Dir.VM(homeID)
	if err := os.Mkdir(dir.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	want := machine.Config{ID: homeID, Name: "old", VCPU: 3, Env: map[string]string{"A": "1"}}
	if err := s.configure(want); err != nil {
		t.Fatal(err)
	}
	if err := s.Rename(t.Context(), homeID, "new"); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Rename without a supervisor = %v, want unavailable", err)
	}
	var got machine.Config
	text, err := os.ReadFile(dir.MachineConfig())
	if err == nil {
		err = json.Unmarshal(text, &got)
	}
	want.Name = "new"
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("configuration: %v\n%s", err, diff)
	}
	if err := os.WriteFile(dir.MachineConfig(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Rename(t.Context(), homeID, "other"); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("Rename with a damaged configuration = %v, want corrupt", err)
	}
	if text, err := os.ReadFile(dir.MachineConfig()); err != nil || string(text) != "{" {
		t.Errorf("a damaged configuration was written over: %q, %v", text, err)
	}
}
