package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/api"
)

func (w *world) create(name string, start bool) (banger.VM, error) {
	return w.Create(w.t.Context(), api.CreateRequest{Name: name, Start: start}, nil, nil)
}

func (w *world) mustCreate(name string, start bool) banger.VM {
	w.t.Helper()
	vm, err := w.create(name, start)
	if err != nil {
		w.t.Fatal(err)
	}
	return vm
}

func (w *world) get(ref string) banger.VM {
	w.t.Helper()
	vm, err := w.daemon.db.Get(w.t.Context(), ref)
	if err != nil {
		w.t.Fatal(err)
	}
	return vm
}

// await waits for a VM's state; the watchers bring it about without polling, tests have to look.
func (w *world) await(what string, done func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited in vain for %s; VMs: %+v", what, w.list())
		}
	}
}

func TestLife(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("devbox", false)
	if vm.State != banger.StateStopped || vm.Spec.VCPU != 1 || vm.Spec.MemoryMiB != 2048 || vm.Spec.DiskBytes != 8<<30 || vm.ImageKey != "key" {
		t.Errorf("created %+v", vm)
	}
	for range 2 { // a running VM is no error
		vm, err := w.Start(t.Context(), "devbox", nil)
		if err != nil || vm.State != banger.StateRunning || vm.Boots != 1 || vm.StartedAt.IsZero() || vm.Accel != "tcg" {
			t.Fatalf("Start = %+v, %v", vm, err)
		}
	}
	cfg := w.runs[vm.ID].cfg
	if cfg.Name != "devbox" || cfg.Disk != w.dir.VM(vm.ID).Disk() || cfg.Base != w.dir.Image("key").Rootfs() || cfg.Initrd != "/initrd" || cfg.BootDeadline != time.Minute {
		t.Errorf("machine config = %+v", cfg)
	}
	if _, err := w.Delete(t.Context(), "devbox", false, nil); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("Delete of a running VM = %v, want a conflict", err)
	}
	for range 2 {
		vm, err := w.Stop(t.Context(), "devbox", 0, nil)
		if err != nil || vm.State != banger.StateStopped || vm.Exit == nil || vm.Exit.Cause != banger.ExitPowerOff {
			t.Fatalf("Stop = %+v, %v", vm, err)
		}
	}
	if vm, err := w.Start(t.Context(), "devbox", nil); err != nil || vm.Boots != 2 || vm.Exit != nil {
		t.Fatalf("second Start = %+v, %v", vm, err)
	}
	if _, err := w.Delete(t.Context(), "devbox", true, nil); err != nil {
		t.Fatal(err)
	}
	if wrong := w.broken(); len(wrong) > 0 || len(w.list()) > 0 {
		t.Errorf("left: %v", wrong)
	}
	if _, err := w.Start(t.Context(), "devbox", nil); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("Start of a deleted VM = %v, want not found", err)
	}
}

func TestBadRequestsLeaveNothing(t *testing.T) {
	num := func(n int) *int { return &n }
	size := func(n int64) *int64 { return &n }
	w := newWorld(t)
	w.mustCreate("taken", false)
	for _, tc := range []struct {
		what string
		req  api.CreateRequest
		kind error
	}{
		{"bad name", api.CreateRequest{Name: "No_Good"}, banger.ErrInvalid},
		{"no vcpu", api.CreateRequest{VCPU: num(0)}, banger.ErrInvalid},
		{"little memory", api.CreateRequest{MemoryMiB: num(10)}, banger.ErrInvalid},
		{"small disk", api.CreateRequest{DiskBytes: size(1024)}, banger.ErrInvalid},
		{"name taken", api.CreateRequest{Name: "taken"}, banger.ErrConflict},
		{"unknown image", api.CreateRequest{Image: "nosuch"}, banger.ErrNotFound},
		{"unknown kernel", api.CreateRequest{Kernel: "nosuch"}, banger.ErrNotFound},
	} {
		if _, err := w.Create(t.Context(), tc.req, nil, nil); !errors.Is(err, tc.kind) {
			t.Errorf("%s: Create = %v, want %v", tc.what, err, tc.kind)
		}
	}
	w.noSpace = &banger.Error{Kind: banger.ErrUnavailable, Err: errors.New("no space left on device")}
	if _, err := w.create("full", true); !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), "no space") {
		t.Errorf("no space: Create = %v", err)
	}
	w.accelErr = &banger.Error{Kind: banger.ErrUnavailable, Err: errors.New("no qemu")}
	if _, err := w.create("noqemu", true); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("no VMM: Create = %v", err)
	}
	if wrong := w.broken(); len(wrong) > 0 || len(w.list()) != 1 {
		t.Errorf("left: %v, %+v", wrong, w.list())
	}
}

func TestRunsThatEnd(t *testing.T) {
	for _, tc := range []struct {
		cause banger.ExitCause
		state banger.VMState
	}{
		{banger.ExitPowerOff, banger.StateStopped},
		{banger.ExitKilled, banger.StateStopped},
		{banger.ExitPanic, banger.StateError},
		{banger.ExitCrash, banger.StateError},
	} {
		w := newWorld(t)
		vm := w.mustCreate("x", true)
		w.guestEnds(vm.ID, tc.cause)
		w.await(string(tc.cause), func() bool { return w.get("x").State != banger.StateRunning })
		w.settle()
		got := w.get("x")
		if got.State != tc.state || got.Exit == nil || got.Exit.Cause != tc.cause || (got.LastError != "") != (tc.state == banger.StateError) {
			t.Errorf("%s: %+v, want state %s", tc.cause, got, tc.state)
		}
		if wrong := w.broken(); len(wrong) > 0 {
			t.Errorf("%s: %v", tc.cause, wrong)
		}
		if _, err := w.Start(t.Context(), "x", nil); err != nil {
			t.Errorf("%s: Start afterwards: %v", tc.cause, err)
		}
	}
}

func TestGuestRebootIsARestart(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("x", true)
	w.guestEnds(vm.ID, banger.ExitReboot)
	w.await("the second boot", func() bool { vm := w.get("x"); return vm.State == banger.StateRunning && vm.Boots == 2 })
}

func TestFailedBootIsKept(t *testing.T) {
	w := newWorld(t)
	w.boot = banger.ExitNoBoot
	vm, err := w.Create(t.Context(), api.CreateRequest{Name: "mute", Start: true, Remove: true}, w.holder(7), nil)
	if !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), "did not get ready") || !strings.Contains(err.Error(), "last words") {
		t.Errorf("Create = %v, want the reason and the console", err)
	}
	w.exits(7)
	w.restart()
	if vm = w.get("mute"); vm.State != banger.StateError || vm.Exit.Cause != banger.ExitNoBoot || vm.LastError == "" {
		t.Errorf("kept %+v, want state error by no-boot", vm)
	}
	if leases, err := w.daemon.db.Leases(t.Context()); err != nil || len(leases) != 0 {
		t.Errorf("leases = %+v, %v, want none: its holder does not matter any more", leases, err)
	}
}

func TestLease(t *testing.T) {
	for _, tc := range []struct {
		what   string
		events func(w *world)
	}{
		{"holder ends", func(w *world) { w.exits(7) }},
		{"holder ends after a restart", func(w *world) { w.restart(); w.exits(7) }},
		{"holder ends while no daemon runs", func(w *world) {
			w.shut()
			w.exits(7)
			w.open()
		}},
	} {
		w := newWorld(t)
		if _, err := w.Create(t.Context(), api.CreateRequest{Name: "x", Start: true, Remove: true}, w.holder(7), nil); err != nil {
			t.Fatal(err)
		}
		w.mustCreate("other", true)
		tc.events(w)
		w.await(tc.what, func() bool { return len(w.list()) == 1 && len(w.broken()) == 0 })
		if w.get("other").State != banger.StateRunning {
			t.Errorf("%s: the other VM is %s", tc.what, w.get("other").State)
		}
	}
}

func TestCallerLeaves(t *testing.T) {
	w := newWorld(t)
	w.slow = make(chan struct{})
	launched := func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.runs) > 0 }

	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := w.Create(ctx, api.CreateRequest{Name: "x", Start: true}, nil, nil)
		failed <- err
	}()
	w.await("the launch", launched)
	cancel()
	if err := <-failed; !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("Create = %v, want interrupted", err)
	}
	if wrong := w.broken(); len(wrong) > 0 || len(w.list()) > 0 {
		t.Errorf("a creation whose caller left was not undone: %v, %+v", wrong, w.list())
	}

	vm := w.mustCreate("y", false)
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		_, err := w.Start(ctx, "y", nil)
		failed <- err
	}()
	w.await("starting", func() bool { return w.get("y").State == banger.StateStarting })
	cancel()
	if err := <-failed; !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("Start = %v, want interrupted", err)
	}
	close(w.slow)
	w.await("the start that goes on", func() bool { return w.get(string(vm.ID)).State == banger.StateRunning })
}

func TestStopEndsAStart(t *testing.T) {
	for _, end := range []string{"stop", "delete"} {
		w := newWorld(t)
		w.slow = make(chan struct{})
		w.mustCreate("x", false)
		failed := make(chan error, 1)
		go func() {
			_, err := w.Start(t.Context(), "x", nil)
			failed <- err
		}()
		w.await("starting", func() bool { return w.get("x").State == banger.StateStarting })
		var err error
		if end == "stop" {
			_, err = w.Stop(t.Context(), "x", 0, nil)
		} else {
			_, err = w.Delete(t.Context(), "x", true, nil)
		}
		if err != nil {
			t.Errorf("%s during a start: %v", end, err)
		}
		if err := <-failed; !errors.Is(err, banger.ErrConflict) {
			t.Errorf("%s: Start = %v, want a conflict", end, err)
		}
		if wrong := w.broken(); len(wrong) > 0 {
			t.Errorf("%s: %v", end, wrong)
		}
	}
}

// Daemon, supervisor and VMM die in every combination while a VM runs.
func TestDeathsWhileRunning(t *testing.T) {
	for _, tc := range []struct {
		what            string
		supervisor, vmm bool
		recorded        banger.ExitCause
		state           banger.VMState
		adopted         int
	}{
		{"daemon alone", false, false, "", banger.StateRunning, 0},
		{"supervisor", true, false, "", banger.StateRunning, 1},
		{"supervisor and VMM", true, true, "", banger.StateStopped, 0},
		{"power-off with a record", true, true, banger.ExitPowerOff, banger.StateStopped, 0},
		{"panic with a record", true, true, banger.ExitPanic, banger.StateError, 0},
	} {
		for _, down := range []bool{false, true} { // is the daemon down meanwhile?
			w := newWorld(t)
			vm := w.mustCreate("x", true)
			if down {
				w.shut()
			}
			if tc.recorded != "" {
				w.guestEnds(vm.ID, tc.recorded)
			}
			w.killProcesses(vm.ID, tc.supervisor, tc.vmm)
			if down {
				w.open()
			}
			w.await(tc.what, func() bool {
				w.settle()
				w.mu.Lock()
				defer w.mu.Unlock()
				return w.runs[vm.ID].starts == tc.adopted
			})
			w.await(tc.what, func() bool { return w.get("x").State == tc.state && len(w.broken()) == 0 })
			if got := w.get("x"); tc.recorded != "" && got.Exit.Cause != tc.recorded {
				t.Errorf("%s, daemon down %v: exit %+v", tc.what, down, got.Exit)
			}
			if tc.state == banger.StateRunning { // it is watched still
				w.guestEnds(vm.ID, banger.ExitPowerOff)
				w.await("the watched end", func() bool { return w.get("x").State == banger.StateStopped })
			}
		}
	}
}

// A damaged record of processes is the concern of its VM alone, which can be started, stopped and deleted still.
func TestDamagedRecordOfProcesses(t *testing.T) {
	for _, tc := range []struct {
		what            string
		stopped         bool // before
		supervisor, vmm bool // die while the daemon is down
		state           banger.VMState
	}{
		{"stopped", true, false, false, banger.StateError},
		{"running", false, false, false, banger.StateRunning},
		{"the supervisor died", false, true, false, banger.StateRunning},
		{"both died", false, true, true, banger.StateError},
	} {
		for what, use := range map[string]func(w *world) error{
			"start":  func(w *world) error { _, err := w.Start(t.Context(), "x", nil); return err },
			"stop":   func(w *world) error { _, err := w.Stop(t.Context(), "x", 0, nil); return err },
			"delete": func(w *world) error { _, err := w.Delete(t.Context(), "x", true, nil); return err },
		} {
			w := newWorld(t)
			vm := w.mustCreate("x", true)
			w.mustCreate("other", true)
			if tc.stopped {
				if _, err := w.Stop(t.Context(), "x", 0, nil); err != nil {
					t.Fatal(err)
				}
			}
			w.shut()
			w.killProcesses(vm.ID, tc.supervisor, tc.vmm)
			w.mu.Lock()
			w.runs[vm.ID].damaged = true
			w.mu.Unlock()
			w.open()
			w.settle()
			if got := w.get("x"); got.State != tc.state || strings.Contains(got.LastError, "damaged") != (tc.state == banger.StateError) {
				t.Errorf("%s: %s, %q, want %s", tc.what, got.State, got.LastError, tc.state)
			}
			if got := w.get("other"); got.State != banger.StateRunning {
				t.Errorf("%s: the other one is %s", tc.what, got.State)
			}
			if err := use(w); err != nil {
				t.Errorf("%s, %s: %v", tc.what, what, err)
			}
			w.restart()
			if wrong := w.broken(); len(wrong) > 0 {
				t.Errorf("%s, %s: %v", tc.what, what, wrong)
			}
			want := map[string]banger.VMState{"start": banger.StateRunning, "stop": banger.StateStopped}[what]
			if what == "delete" {
				if len(w.list()) != 1 {
					t.Errorf("%s, deleted: %+v", tc.what, w.list())
				}
			} else if got := w.get("x"); got.State != want {
				t.Errorf("%s, %s: it is %s (%s), want %s", tc.what, what, got.State, got.LastError, want)
			}
		}
	}
}

// A supervisor that is dead at stop does not keep a VMM alive.
func TestStopWithoutSupervisor(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("x", true)
	w.awaitWatcher(vm.ID)
	w.mu.Lock()
	w.runs[vm.ID].supervisor = false // unnoticed: the connection still stands
	w.mu.Unlock()
	got, err := w.Stop(t.Context(), "x", 0, nil)
	if err != nil || got.State != banger.StateStopped || got.Exit.Cause != banger.ExitKilled {
		t.Errorf("Stop = %+v, %v, want killed", got, err)
	}
	if wrong := w.broken(); len(wrong) > 0 {
		t.Error(wrong)
	}
}

// script is every operation on one VM; it goes on after an error, as users do.
func (w *world) script() func() error {
	m := w.Manager // the crashed daemon's script must not go on with the next one
	holder := w.holder(7)
	return func() (failed error) {
		keep := func(err error) {
			if failed == nil {
				failed = err
			}
		}
		ctx := context.Background()
		_, err := m.Create(ctx, api.CreateRequest{Name: "x", Start: true}, nil, nil)
		keep(err)
		_, err = m.Stop(ctx, "x", 0, nil)
		keep(err)
		_, err = m.Start(ctx, "x", api.StartRequest{}, nil)
		keep(err)
		_, err = m.Create(ctx, api.CreateRequest{Name: "y", Start: true, Remove: true}, holder, nil)
		keep(err)
		_, err = m.Delete(ctx, "x", true, nil)
		keep(err)
		return failed
	}
}

// scripts are what the fault tests run.
var scripts = map[string]func(*world) func() error{"life": (*world).script, "changes": (*world).changes, "settings": (*world).settings}

func TestEachStepFails(t *testing.T) {
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) { eachStepFails(t, script) })
	}
}

func eachStepFails(t *testing.T, script func(*world) func() error) {
	for step := 0; ; step++ {
		w := newWorld(t)
		w.failStep = step
		err := w.do(script(w))
		if w.faulted() == "" {
			if err != nil {
				t.Fatalf("no step failed and yet: %v", err)
			}
			t.Logf("%d steps", step)
			break
		}
		w.settle()
		w.restart()
		if wrong := slices.Concat(w.broken(), w.misnamed(), w.unfit()); len(wrong) > 0 {
			t.Fatalf("failed at step %d (%s): %v", step, w.faulted(), wrong)
		}
		w.clear(step)
	}
}

func TestEachStepCrashes(t *testing.T) {
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) { eachStepCrashes(t, script) })
	}
}

func eachStepCrashes(t *testing.T, script func(*world) func() error) {
	for step := 0; ; step++ {
		w := newWorld(t)
		w.crashAt = step
		if w.do(script(w)); w.faulted() == "" {
			t.Logf("%d steps", step)
			break
		}
		w.restart()
		if wrong := slices.Concat(w.broken(), w.misnamed(), w.unfit()); len(wrong) > 0 {
			t.Fatalf("crashed at step %d (%s): %v", step, w.faulted(), wrong)
		}
		w.clear(step)
	}
}

// A daemon that crashes while it recovers from a crash converges still.
func TestCrashDuringRecovery(t *testing.T) {
	for first := 0; ; first++ {
		w := newWorld(t)
		w.crashAt = first
		if w.do(w.script()); w.faulted() == "" {
			break
		}
		for second := range 6 {
			w.mu.Lock()
			w.steps, w.crashAt, w.crashed = 0, second, make(chan struct{})
			w.mu.Unlock()
			manager := w.newDaemon()
			w.do(func() error { return manager.Recover(context.Background()) })
			w.crash()
		}
		w.restart()
		if wrong := w.broken(); len(wrong) > 0 {
			t.Fatalf("crashed at step %d and then during recovery: %v", first, wrong)
		}
		w.clear(first)
	}
}

// clear ends the leases and deletes what is left; then nothing may be there.
func (w *world) clear(step int) {
	w.t.Helper()
	for pid := range w.holders {
		w.exits(pid)
	}
	for _, vm := range w.list() {
		if _, err := w.Delete(w.t.Context(), string(vm.ID), true, nil); err != nil && !errors.Is(err, banger.ErrNotFound) {
			w.t.Fatalf("step %d (%s): delete: %v", step, w.faulted(), err)
		}
	}
	w.await("nothing left", func() bool { return len(w.list()) == 0 && len(w.broken()) == 0 && len(w.homes) == 0 })
}

// Many users and deaths at once: whatever they do, records and processes agree in the end.
func TestRandomInterleavings(t *testing.T) {
	const users, rounds = 6, 40
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := newWorld(t)
	var group sync.WaitGroup
	for user := range users {
		dice := rand.New(rand.NewPCG(seed, uint64(user)))
		group.Go(func() {
			for range rounds {
				w.randomAct(dice)
			}
		})
	}
	group.Wait()
	w.settle()
	w.await("agreement", func() bool { return len(w.broken()) == 0 })
	w.restart()
	if wrong := w.broken(); len(wrong) > 0 {
		t.Fatalf("seed %d: %v", seed, wrong)
	}
	w.clear(0)
}

func (w *world) randomAct(dice *rand.Rand) {
	name := fmt.Sprintf("vm-%d", dice.IntN(3))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if dice.IntN(4) == 0 {
		time.AfterFunc(time.Duration(dice.IntN(2000))*time.Microsecond, cancel)
	}
	var err error
	switch dice.IntN(12) {
	case 0, 1:
		_, err = w.Create(ctx, api.CreateRequest{Name: name, Start: dice.IntN(2) == 0}, nil, nil)
	case 2, 3:
		_, err = w.Start(ctx, name, nil)
	case 4:
		_, err = w.Stop(ctx, name, 0, nil)
	case 5:
		_, err = w.Delete(ctx, name, dice.IntN(2) == 0, nil)
	case 6:
		_, err = w.Restart(ctx, name, 0, nil)
	case 7:
		_, err = w.Kill(ctx, name, "KILL", nil)
	case 8:
		_, err = w.Rename(ctx, name, fmt.Sprintf("vm-%d", dice.IntN(3)), nil)
	case 9:
		_, err = w.Set(ctx, name, banger.SpecChange{VCPU: number(1 + dice.IntN(3)), DiskBytes: size(int64(8 + dice.IntN(8)))}, dice.IntN(2) == 0)
	default:
		vm, getErr := w.daemon.db.Get(ctx, name)
		w.mu.Lock()
		r := w.runs[vm.ID]
		w.mu.Unlock()
		if getErr != nil || r == nil {
			return
		}
		if dice.IntN(2) == 0 {
			w.killProcesses(vm.ID, true, dice.IntN(2) == 0)
		} else {
			w.guestEnds(vm.ID, []banger.ExitCause{banger.ExitPowerOff, banger.ExitReboot, banger.ExitPanic}[dice.IntN(3)])
		}
	}
	for _, kind := range []error{banger.ErrConflict, banger.ErrNotFound, banger.ErrInterrupted, banger.ErrUnavailable, context.Canceled} {
		if errors.Is(err, kind) {
			return
		}
	}
	if err != nil {
		w.t.Errorf("unexpected: %v", err)
	}
}

func TestDefaults(t *testing.T) {
	for _, tc := range []struct {
		cpus, memory int
		accel        string
		vcpu, mib    int
	}{
		{2, 1024, "kvm", 1, 256}, {8, 16384, "kvm", 2, 2048}, {64, 262144, "kvm", 4, 8192}, {64, 262144, "tcg", 1, 8192},
	} {
		if v, m := defaultVCPU(tc.cpus, tc.accel), defaultMemory(tc.memory); v != tc.vcpu || m != tc.mib {
			t.Errorf("defaults of %d cpus, %d MiB, %s = %d, %d, want %d, %d", tc.cpus, tc.memory, tc.accel, v, m, tc.vcpu, tc.mib)
		}
	}
	for range 100 {
		if name := randomName(); banger.ValidateVMName(name) != nil {
			t.Errorf("randomName() = %q", name)
		}
	}
}

func TestImagesInUseStay(t *testing.T) {
	w := newWorld(t)
	w.mustCreate("user", false)
	if _, err := w.DeleteImage(t.Context(), "debian"); !errors.Is(err, banger.ErrConflict) || !strings.Contains(err.Error(), "user") {
		t.Errorf("delete an image in use = %v", err)
	}
	if _, err := w.DeleteImage(t.Context(), "none"); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("delete an unknown image = %v", err)
	}
	if _, err := w.Delete(t.Context(), "user", false, nil); err != nil {
		t.Fatal(err)
	}
	w.basesInUse.RLock() // a VM is being made
	if _, err := w.DeleteImage(t.Context(), "debian"); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("delete an image while a VM is made = %v", err)
	}
	w.basesInUse.RUnlock()
	if image, err := w.DeleteImage(t.Context(), "debian"); err != nil || image.Key != "key" {
		t.Errorf("delete = %+v, %v", image, err)
	}
}

func TestKernelsInUseStay(t *testing.T) {
	w := newWorld(t)
	vm, err := w.Create(t.Context(), api.CreateRequest{Name: "user", Kernel: "mine", Start: true}, nil, nil)
	if err != nil || vm.Kernel != "mine" {
		t.Fatalf("Create = %+v, %v", vm, err)
	}
	if cfg := w.runs[vm.ID].cfg; cfg.Vmlinux != w.dir.Kernel("mine").Vmlinux() || cfg.Modules != w.dir.Kernel("mine").Modules() {
		t.Errorf("it boots %s with %s", cfg.Vmlinux, cfg.Modules)
	}
	if _, err := w.DeleteKernel(t.Context(), "mine"); !errors.Is(err, banger.ErrConflict) || !strings.Contains(err.Error(), "user") {
		t.Errorf("delete a kernel in use = %v", err)
	}
	if _, err := w.Delete(t.Context(), "user", true, nil); err != nil {
		t.Fatal(err)
	}
	w.basesInUse.RLock() // a VM is being made
	if _, err := w.DeleteKernel(t.Context(), "mine"); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("delete a kernel while a VM is made = %v", err)
	}
	w.basesInUse.RUnlock()
	if kernel, err := w.DeleteKernel(t.Context(), "mine"); err != nil || kernel.Name != "mine" {
		t.Errorf("delete = %+v, %v", kernel, err)
	}
	if !w.basesInUse.TryLock() {
		t.Error("the deletion keeps its lock")
	}
}

func TestWhatAnImageSays(t *testing.T) {
	image := banger.Image{Config: &banger.ImageConfig{Env: []string{"A=1", "B=x=y"}, User: "app:staff"}}
	if diff := cmp.Diff(map[string]string{"A": "2", "B": "x=y"}, environment(image, map[string]string{"A": "2"})); diff != "" {
		t.Error(diff)
	}
	for _, tc := range []struct{ image, own, want string }{{"app:staff", "", "app"}, {"app", "root", "root"}, {"1000:1000", "", "1000:1000"}, {"1000:staff", "", "1000"}, {"", "", ""}} {
		image.Config.User = tc.image
		if got := userOf(image, tc.own); got != tc.want {
			t.Errorf("user %q of %q: %q, want %q", tc.own, tc.image, got, tc.want)
		}
	}
	if environment(banger.Image{}, nil) != nil || userOf(banger.Image{}, "x") != "x" {
		t.Error("an image without a configuration changes something")
	}
}

// The host's clock may be set back between two runs: how the second one ended counts nevertheless, and the first one's record does not.
func TestClockJumps(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("x", true)
	if _, err := w.Stop(t.Context(), "x", 0, nil); err != nil {
		t.Fatal(err)
	}
	if record, err := w.record(w.get("x")); record != nil || err != nil {
		t.Errorf("the record of a run that was taken up counts again: %+v, %v", record, err)
	}
	if _, err := w.Start(t.Context(), "x", nil); err != nil {
		t.Fatal(err)
	}
	w.clock.setWall(-time.Hour)
	w.shut()
	w.guestEnds(vm.ID, banger.ExitPanic)
	w.killProcesses(vm.ID, true, true)
	w.open()
	w.settle()
	if got := w.get("x"); got.State != banger.StateError || got.Exit == nil || got.Exit.Cause != banger.ExitPanic {
		t.Errorf("after a panic at an earlier time: %s, %+v", got.State, got.Exit)
	}
}

// An older copy of the database, put back, does not know the VMs that came after it: their disks stay. What was erased goes, also when the
// daemon was killed in between.
func TestDirectoriesWithoutRecords(t *testing.T) {
	w := newWorld(t)
	const unknown, erased = banger.VMID("0000000000aa"), banger.VMID("0000000000bb")
	if err := w.daemon.db.Delete(t.Context(), erased); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.homes[unknown], w.homes[erased] = true, true
	w.mu.Unlock()
	w.restart()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.homes[unknown] || w.homes[erased] {
		t.Errorf("the unknown VM's directory stays: %t, the erased one's: %t; want true, false", w.homes[unknown], w.homes[erased])
	}
	if left, err := w.daemon.db.Erased(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("erased VMs after their directories are gone: %v, %v", left, err)
	}
	delete(w.homes, unknown)
}
