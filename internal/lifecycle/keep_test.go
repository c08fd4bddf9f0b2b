package lifecycle

import (
	"context"
	"errors"
	"testing"

	"banger"
	"banger/api"
	"banger/internal/disk"
)

// keep is what the daemon keeps work with: durable once its effect has happened.
func (d *daemon) keep(_ context.Context, vm banger.VM, files *disk.FS) ([]banger.Autosave, error) {
	if _, err := files.Lookup("/etc/motd", false); err != nil {
		return nil, err
	}
	err := d.effect("keep", func() error {
		if d.w.lives(vm.ID) {
			d.w.t.Errorf("work of %s is kept while its processes live", vm.ID)
		}
		if d.w.noKeep == nil {
			d.w.kept[vm.ID] = true
		}
		return d.w.noKeep
	})
	return []banger.Autosave{{VM: vm.Spec.Name, Bundle: "bundle"}}, err
}

// withWork makes a VM that a repository was put into and worked on.
func (w *world) withWork(name string) (banger.VM, error) {
	vm, err := w.Create(w.t.Context(), api.CreateRequest{Name: name}, nil, nil)
	if err != nil {
		return vm, err
	}
	w.writeFiles(vm.ID)
	if vm, err = w.SetWorkspace(w.t.Context(), name, banger.Workspace{GuestPath: "/root/repo", HostPath: "/src/repo"}); err != nil {
		return vm, err
	}
	w.mu.Lock()
	w.worked[vm.ID] = true
	w.mu.Unlock()
	return w.Start(w.t.Context(), name, nil)
}

// lost gives the VMs whose work is neither kept nor on a disk that a record names.
func (w *world) lost() (list []banger.VMID) {
	rows := map[banger.VMID]bool{}
	for _, vm := range w.list() {
		rows[vm.ID] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.worked {
		if !w.kept[id] && (!rows[id] || !w.homes[id]) {
			list = append(list, id)
		}
	}
	return list
}

// waysOut are the ways in which a VM with work goes.
var waysOut = map[string]func(w *world, vm banger.VM) error{
	"delete": func(w *world, vm banger.VM) error {
		_, err := w.Delete(w.t.Context(), string(vm.ID), true, nil)
		return err
	},
	"delete when stopped": func(w *world, vm banger.VM) error {
		if _, err := w.Stop(w.t.Context(), string(vm.ID), 0, nil); err != nil {
			return err
		}
		_, err := w.Delete(w.t.Context(), string(vm.ID), false, nil)
		return err
	},
	"delete when it crashed": func(w *world, vm banger.VM) error {
		w.guestEnds(vm.ID, banger.ExitPanic)
		_, err := w.Delete(w.t.Context(), string(vm.ID), true, nil)
		return err
	},
	"time is up": func(w *world, vm banger.VM) error {
		_, release, err := w.claimForEnd(w.t.Context(), string(vm.ID))
		if err != nil {
			return err
		}
		defer release()
		return w.removeAlone(w.t.Context(), vm, "its time was up")
	},
}

// Whatever step of the end of a VM fails, or the daemon dies at, its work is kept or still on its disk; then Recover converges and
// another deletion ends well.
func TestWorkIsNeverLost(t *testing.T) {
	for name, end := range waysOut {
		for _, crash := range []bool{false, true} {
			t.Run(name+map[bool]string{false: ", steps fail", true: ", the daemon crashes"}[crash], func(t *testing.T) {
				step := 0
				for keepFaulted(t, end, step, crash) {
					step++
				}
				t.Logf("%d steps", step)
				if step < 5 {
					t.Errorf("only %d steps", step)
				}
			})
		}
	}
}

// keepFaulted has one step fail; false when there was no such step.
func keepFaulted(t *testing.T, end func(*world, banger.VM) error, step int, crash bool) bool {
	w := newWorld(t)
	vm, err := w.withWork("x")
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	if crash {
		w.crashAt = w.steps + step
	} else {
		w.failStep = w.steps + step
	}
	w.mu.Unlock()
	err = w.do(func() error { return end(w, vm) })
	at := w.faulted()
	if at == "" && err != nil {
		t.Fatalf("no step failed and yet: %v", err)
	}
	if list := w.lost(); len(list) > 0 {
		t.Fatalf("step %d (%s): work of %v is lost", step, at, list)
	}
	if !crash {
		w.settle()
	}
	w.restart()
	if wrong := w.broken(); len(wrong) > 0 || len(w.lost()) > 0 {
		t.Fatalf("step %d (%s): %v, lost %v", step, at, wrong, w.lost())
	}
	if _, err := w.Delete(t.Context(), "x", true, nil); err != nil && !errors.Is(err, banger.ErrNotFound) {
		t.Fatalf("step %d (%s): delete: %v", step, at, err)
	}
	if !w.kept[vm.ID] || len(w.list()) > 0 {
		t.Fatalf("step %d (%s): kept %v, left %v", step, at, w.kept, w.list())
	}
	return at != ""
}

// A VM whose work can't be kept stays, whoever ends it; to discard the work is another word.
func TestWorkThatCannotBeKept(t *testing.T) {
	for name, end := range waysOut {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			vm, err := w.withWork("x")
			if err != nil {
				t.Fatal(err)
			}
			w.noKeep = &banger.Error{Kind: banger.ErrRefused, Err: errors.New("more than 1 GiB of untracked files")}
			if err := end(w, vm); !errors.Is(err, banger.ErrConflict) || !errors.Is(err, w.noKeep) {
				t.Errorf("%v, want a conflict with its reason", err)
			}
			w.restart()
			if list := w.lost(); len(list) > 0 || len(w.list()) != 1 {
				t.Fatalf("lost %v, left %v", list, w.list())
			}
			w.worked = map[banger.VMID]bool{}
			if _, err := w.Discard(t.Context(), "x", nil); err != nil || len(w.list()) > 0 {
				t.Errorf("Discard() = %v, left %v", err, w.list())
			}
		})
	}
}

// The holder of a lease goes: its VM is deleted once the work in it is kept, and stays when that can't be.
func TestLeaseKeepsWork(t *testing.T) {
	for _, can := range []bool{true, false} {
		w := newWorld(t)
		vm, err := w.Create(t.Context(), api.CreateRequest{Name: "x", Start: true, Remove: true}, w.holder(7), nil)
		if err != nil {
			t.Fatal(err)
		}
		w.writeFiles(vm.ID)
		if _, err := w.SetWorkspace(t.Context(), "x", banger.Workspace{GuestPath: "/root/repo", HostPath: "/src/repo"}); err != nil {
			t.Fatal(err)
		}
		w.worked[vm.ID] = true
		if !can {
			w.noKeep = errPlanned
		}
		w.exits(7)
		if can {
			w.await("the VM to go", func() bool { return len(w.list()) == 0 })
		} else {
			w.await("the reason", func() bool { return w.get("x").LastError != "" })
		}
		if list := w.lost(); len(list) > 0 || w.kept[vm.ID] != can {
			t.Errorf("lost %v, kept %v", list, w.kept)
		}
	}
}
