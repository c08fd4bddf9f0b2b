package lifecycle

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/api"
)

func text(s string) *string               { return &s }
func number(n int) *int                   { return &n }
func size(gib int64) *int64               { gib <<= 30; return &gib }
func idle(d time.Duration) *time.Duration { return &d }

// set changes a VM and tells field and time of each change.
func (w *world) set(ref string, change banger.SpecChange, dryRun bool) ([]string, error) {
	result, err := w.Set(w.t.Context(), ref, change, dryRun)
	var told []string
	for _, c := range result.Changes {
		told = append(told, c.Field+" "+c.From+" "+c.To+": "+c.When)
	}
	return told, err
}

func TestSet(t *testing.T) {
	all := banger.SpecChange{VCPU: number(4), MemoryMiB: number(512), DiskBytes: size(16), StopIdle: idle(time.Hour),
		Env: map[string]*string{"A": text("1")}, Labels: map[string]*string{"team": text("blue")}}
	for _, running := range []bool{false, true} {
		w := newWorld(t)
		vm := w.mustCreate("x", running)
		later := map[bool]string{false: "now", true: "next start"}[running]
		want := []string{`stop idle 0s 1h: now`, `label team - "blue": now`, "vcpu 1 4: " + later, "memory 2048 MiB 512 MiB: " + later, "disk 8 GiB 16 GiB: " + later, "env A - (set): " + later}
		if !running {
			want = []string{"vcpu 1 4: now", "memory 2048 MiB 512 MiB: now", "disk 8 GiB 16 GiB: now", "stop idle 0s 1h: now", "env A - (set): now", `label team - "blue": now`}
		}
		before := w.get("x")
		got, err := w.set("x", all, true)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("running %v: dry run: %v\n%s", running, err, diff)
		}
		if diff := cmp.Diff(before, w.get("x")); diff != "" || w.disks[vm.ID] != 8<<30 {
			t.Errorf("running %v: a dry run changed something:\n%s", running, diff)
		}
		got, err = w.set("x", all, false)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("running %v: %v\n%s", running, err, diff)
		}
		now := w.get("x")
		if now.Spec.Labels["team"] != "blue" || now.Spec.StopIdle != time.Hour || (now.Spec.VCPU == 4) == running || (w.disks[vm.ID] == 16<<30) == running || (now.Pending != nil) != running {
			t.Errorf("running %v: %+v, pending %+v, disk %d", running, now.Spec, now.Pending, w.disks[vm.ID])
		}
		if now, err = w.Restart(t.Context(), "x", 0, nil); err != nil {
			t.Fatal(err)
		}
		cfg := w.runs[vm.ID].cfg
		if cfg.VCPU != 4 || cfg.MemoryMiB != 512 || cfg.Env["A"] != "1" || w.disks[vm.ID] != 16<<30 || now.Pending != nil || now.Spec.DiskBytes != 16<<30 {
			t.Errorf("running %v: it runs with %+v, record %+v", running, cfg, now)
		}
		if got, err := w.set("x", all, false); err != nil || got != nil {
			t.Errorf("running %v: the same again: %q, %v", running, got, err)
		}
	}
}

func TestSetRefuses(t *testing.T) {
	for _, running := range []bool{false, true} {
		w := newWorld(t)
		vm := w.mustCreate("x", running)
		before := w.get("x")
		for _, tc := range []struct {
			ref    string
			change banger.SpecChange
			kind   error
			say    string
		}{
			{"nosuch", banger.SpecChange{VCPU: number(2)}, banger.ErrNotFound, "nosuch"},
			{"x", banger.SpecChange{VCPU: number(0)}, banger.ErrInvalid, "vcpu 0"},
			{"x", banger.SpecChange{MemoryMiB: number(1)}, banger.ErrInvalid, "memory 1 MiB"},
			{"x", banger.SpecChange{Env: map[string]*string{"A-B": text("")}}, banger.ErrInvalid, "A-B"},
			{"x", banger.SpecChange{Labels: map[string]*string{"-": text("")}}, banger.ErrInvalid, "label"},
			{"x", banger.SpecChange{VCPU: number(2), DiskBytes: size(4)}, banger.ErrConflict, "the disk has 8 GiB and only grows: it can't shrink to 4 GiB"},
		} {
			if _, err := w.set(tc.ref, tc.change, false); !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.say) {
				t.Errorf("Set(%s, %+v) = %v, want %v with %q", tc.ref, tc.change, err, tc.kind, tc.say)
			}
		}
		if got, err := w.set("x", banger.SpecChange{DiskBytes: size(4)}, true); err != nil || len(got) != 1 || !strings.HasSuffix(got[0], ": impossible") {
			t.Errorf("dry run of a smaller disk: %q, %v", got, err)
		}
		if diff := cmp.Diff(before, w.get("x")); diff != "" || w.disks[vm.ID] != 8<<30 {
			t.Errorf("running %v: what was refused changed something:\n%s", running, diff)
		}
	}
}

// What waits for the next start can be taken back.
func TestSetTakenBack(t *testing.T) {
	w := newWorld(t)
	w.mustCreate("x", true)
	for _, step := range []struct {
		change banger.SpecChange
		vcpu   int // of what waits; 0: nothing
		disk   int64
	}{
		{banger.SpecChange{VCPU: number(4), DiskBytes: size(64)}, 4, 64 << 30},
		{banger.SpecChange{DiskBytes: size(16)}, 4, 16 << 30}, // smaller than what waits, but not than what is
		{banger.SpecChange{VCPU: number(1)}, 0, 16 << 30},
		{banger.SpecChange{DiskBytes: size(8)}, 0, 0},
	} {
		if _, err := w.set("x", step.change, false); err != nil {
			t.Fatal(err)
		}
		pending := w.get("x").Pending
		if pending == nil {
			pending = &banger.SpecChange{}
		}
		spec := pending.Apply(banger.VMSpec{})
		if spec.VCPU != step.vcpu || spec.DiskBytes != step.disk {
			t.Errorf("after %+v: %+v waits", step.change, pending)
		}
	}
	if w.get("x").Pending != nil {
		t.Error("nothing is different and yet something waits")
	}
}

// A change that is set while a VM runs is for it as soon as it stands still, too.
func TestSetAfterAStop(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("x", true)
	if _, err := w.set("x", banger.SpecChange{VCPU: number(4), DiskBytes: size(16)}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Stop(t.Context(), "x", 0, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.set("x", banger.SpecChange{MemoryMiB: number(512)}, false); err != nil {
		t.Fatal(err)
	}
	if got := w.get("x"); got.Pending != nil || got.Spec.VCPU != 4 || got.Spec.MemoryMiB != 512 || w.disks[vm.ID] != 16<<30 {
		t.Errorf("%+v, disk %d", got, w.disks[vm.ID])
	}
}

// A host that can't hold the disk leaves everything as it was, and what was is what starts.
func TestSetWithoutSpace(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("x", false)
	w.noGrowth = &banger.Error{Kind: banger.ErrUnavailable, Err: errors.New("no such space")}
	before := w.get("x")
	if _, err := w.set("x", banger.SpecChange{VCPU: number(4), DiskBytes: size(16)}, false); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Set = %v, want unavailable", err)
	}
	if diff := cmp.Diff(before, w.get("x")); diff != "" || w.disks[vm.ID] != 8<<30 {
		t.Errorf("it changed something:\n%s", diff)
	}
	if _, err := w.Start(t.Context(), "x", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.set("x", banger.SpecChange{DiskBytes: size(16)}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Restart(t.Context(), "x", 0, nil); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Restart = %v, want unavailable", err)
	}
	if got := w.get("x"); got.State != banger.StateStopped || got.Pending == nil || got.Spec.DiskBytes != 8<<30 {
		t.Errorf("after a start that could not grow the disk: %+v", got)
	}
	if _, err := w.set("x", banger.SpecChange{DiskBytes: size(8)}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Start(t.Context(), "x", nil); err != nil {
		t.Error(err)
	}
}

// A guest that reboots keeps what it has: the next start is one that somebody asked for.
func TestRebootTakesNoChanges(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("x", true)
	if _, err := w.set("x", banger.SpecChange{VCPU: number(4)}, false); err != nil {
		t.Fatal(err)
	}
	w.guestEnds(vm.ID, banger.ExitReboot)
	rebooted(w)
	if got := w.get("x"); got.Spec.VCPU != 1 || got.Pending == nil || w.runs[vm.ID].cfg.VCPU != 1 {
		t.Errorf("after the reboot: %+v, it runs with %d", got, w.runs[vm.ID].cfg.VCPU)
	}
}

// settings is a script of changes to what a VM is.
func (w *world) settings() func() error {
	m := w.Manager
	return func() (failed error) {
		ctx := context.Background()
		set := func(change banger.SpecChange) func() error {
			return func() error { _, err := m.Set(ctx, "x", change, false); return err }
		}
		for _, op := range []func() error{
			func() error { _, err := m.Create(ctx, api.CreateRequest{Name: "x"}, nil, nil); return err },
			set(banger.SpecChange{VCPU: number(2), DiskBytes: size(16)}),
			func() error { _, err := m.Start(ctx, "x", api.StartRequest{}, nil); return err },
			set(banger.SpecChange{MemoryMiB: number(512), DiskBytes: size(32), Labels: map[string]*string{"a": text("b")}}),
			func() error { _, err := m.Restart(ctx, "x", api.RestartRequest{}, nil); return err },
		} {
			if err := op(); failed == nil {
				failed = err
			}
		}
		return failed
	}
}

// unfit gives the VMs whose disk has another size after a start than their record says.
func (w *world) unfit() (wrong []string) {
	for _, vm := range w.list() {
		vm, err := w.Restart(w.t.Context(), string(vm.ID), 0, nil)
		if err != nil {
			wrong = append(wrong, vm.Spec.Name+": "+err.Error())
		}
		w.mu.Lock()
		if w.disks[vm.ID] != vm.Spec.DiskBytes || vm.Pending != nil || w.runs[vm.ID].cfg.VCPU != vm.Spec.VCPU {
			wrong = append(wrong, "the VM "+vm.Spec.Name+" is not what its record says")
		}
		w.mu.Unlock()
	}
	return wrong
}

// TestSetTTL moves the end of a VM: it counts from the change on, in the store with the rest of it.
func TestSetTTL(t *testing.T) {
	w := newWorld(t)
	vm, err := w.Create(t.Context(), api.CreateRequest{Name: "x", TTL: time.Hour}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	day := 24 * time.Hour
	dry, err := w.Set(t.Context(), "x", banger.SpecChange{TTL: &day}, true)
	if err != nil || len(dry.Changes) != 1 || dry.Changes[0].When != api.WhenNow || dry.Changes[0].Field != "deleted" {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	if now, _ := w.Store.Get(t.Context(), "x"); !now.ExpiresAt.Equal(vm.ExpiresAt) {
		t.Errorf("a dry run moved the end to %v", now.ExpiresAt)
	}
	set, err := w.Set(t.Context(), "x", banger.SpecChange{TTL: &day}, false)
	if err != nil || set.VM.ExpiresAt.Sub(vm.ExpiresAt) < 22*time.Hour || set.VM.ExpiresHost == nil {
		t.Errorf("Set(24h) = %v, %v", set.VM.ExpiresAt, err)
	}
	never := time.Duration(0)
	if set, err = w.Set(t.Context(), "x", banger.SpecChange{TTL: &never}, false); err != nil || !set.VM.ExpiresAt.IsZero() || set.VM.ExpiresHost != nil {
		t.Errorf("Set(0) = %v, %v", set.VM.ExpiresAt, err)
	}
}
