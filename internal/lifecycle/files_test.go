package lifecycle

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"banger"
	"banger/internal/disk"
	"banger/internal/ext4/write"
	"banger/internal/statedir"
	"banger/internal/tree"
)

// bootOf is the boot kind of a VM's run.
func (w *world) bootOf(id banger.VMID) banger.BootKind {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runs[id].cfg.Boot
}

// A loan boots without the image's init, holds off a start, and ends with the borrower: then the start goes on, with the image's init.
func TestLend(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("x", false)
	borrower, giveBack := context.WithCancel(t.Context())
	defer giveBack()
	ready, ended := make(chan banger.VM, 1), make(chan error, 1)
	go func() { ended <- w.Lend(borrower, "x", nil, func(vm banger.VM) { ready <- vm }) }()
	if lent := <-ready; lent.State != banger.StateRunning || w.bootOf(vm.ID) != banger.BootAgent {
		t.Fatalf("lent %+v, boot kind %q", lent, w.bootOf(vm.ID))
	}
	started := make(chan error, 1)
	go func() {
		_, err := w.Start(t.Context(), "x", nil)
		started <- err
	}()
	if err := w.Lend(t.Context(), "nosuch", nil, nil); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("Lend of no VM: %v", err)
	}
	giveBack()
	if err := <-ended; !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("Lend: %v", err)
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if vm := w.get("x"); vm.State != banger.StateRunning || vm.Boots != 2 || w.bootOf(vm.ID) == banger.BootAgent {
		t.Errorf("after the loan: %+v, boot kind %q", vm, w.bootOf(vm.ID))
	}
	if err := w.Lend(t.Context(), "x", nil, nil); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("Lend of a running VM: %v", err)
	}
	if wrong := w.broken(); len(wrong) > 0 {
		t.Error(wrong)
	}
}

func TestLoanEnds(t *testing.T) {
	for name, end := range map[string]func(w *world) error{
		"stop":   func(w *world) error { _, err := w.Stop(t.Context(), "x", 0, nil); return err },
		"kill":   func(w *world) error { _, err := w.Kill(t.Context(), "x", "KILL", nil); return err },
		"delete": func(w *world) error { _, err := w.Delete(t.Context(), "x", true, nil); return err },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.mustCreate("x", false)
			ready, ended := make(chan banger.VM, 1), make(chan error, 1)
			go func() { ended <- w.Lend(t.Context(), "x", nil, func(vm banger.VM) { ready <- vm }) }()
			<-ready
			if err := end(w); err != nil {
				t.Error(err)
			}
			if err := <-ended; !errors.Is(err, banger.ErrConflict) {
				t.Errorf("Lend: %v, want a conflict", err)
			}
			if wrong := w.broken(); len(wrong) > 0 {
				t.Error(wrong)
			}
		})
	}
}

// A borrower that goes while the VM boots leaves it stopped.
func TestBorrowerGoesAtOnce(t *testing.T) {
	w := newWorld(t)
	w.mustCreate("x", false)
	w.mu.Lock()
	w.slow = make(chan struct{})
	w.mu.Unlock()
	borrower, giveBack := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Lend(borrower, "x", nil, func(banger.VM) { t.Error("it was ready") }) }()
	w.await("the start", func() bool { return w.get("x").State == banger.StateStarting })
	giveBack()
	if err := <-ended; !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("Lend: %v", err)
	}
	w.await("the stop", func() bool { return w.get("x").State == banger.StateStopped })
	if wrong := w.broken(); len(wrong) > 0 {
		t.Error(wrong)
	}
}

// The end of the daemon leaves a lent VM running; the next one stops it when it is asked.
func TestLoanOutlivesTheDaemon(t *testing.T) {
	w := newWorld(t)
	w.mustCreate("x", false)
	ready, ended := make(chan banger.VM, 1), make(chan error, 1)
	go func() { ended <- w.Lend(context.Background(), "x", nil, func(vm banger.VM) { ready <- vm }) }()
	<-ready
	w.restart()
	if err := <-ended; err == nil {
		t.Error("the loan ended well")
	}
	if vm := w.get("x"); vm.State != banger.StateRunning {
		t.Errorf("after the daemon's end: %+v", vm)
	}
	if vm, err := w.Stop(t.Context(), "x", 0, nil); err != nil || vm.State != banger.StateStopped {
		t.Errorf("Stop = %+v, %v", vm, err)
	}
}

// writeFiles gives a VM a disk, and all images a base.
func (w *world) writeFiles(id banger.VMID) {
	w.t.Helper()
	base := w.dir.Image("key")
	if err := errors.Join(os.MkdirAll(w.dir.VM(id).Path, 0o700), os.MkdirAll(base.Path, 0o700)); err != nil {
		w.t.Fatal(err)
	}
	src := tree.Of(tree.Directory("etc", 0o755), tree.Literal("etc/motd", 0o644, []byte("hello")))
	if _, err := write.CreateFile(w.t.Context(), base.Rootfs(), write.Options{SizeBytes: 8 << 20}, src); err != nil {
		w.t.Fatal(err)
	}
	if err := disk.Create(w.t.Context(), statedir.VMDir{Path: w.dir.VM(id).Path}, disk.Options{SizeBytes: 64 << 20, Time: time.Now()}); err != nil {
		w.t.Fatal(err)
	}
}

func TestReadFiles(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("x", false)
	w.writeFiles(vm.ID)
	entered, leave, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- w.ReadFiles(t.Context(), "x", func(_ context.Context, f *disk.FS) error {
			_, err := f.Lookup("/etc/motd", false)
			close(entered)
			<-leave
			return err
		})
	}()
	<-entered
	started := make(chan error, 1)
	go func() {
		_, err := w.Start(t.Context(), "x", nil)
		started <- err
	}()
	if state := w.get("x").State; state != banger.StateStopped {
		t.Errorf("it is %s while it is read", state)
	}
	close(leave)
	if err := errors.Join(<-ended, <-started); err != nil {
		t.Error(err)
	}
	never := func(context.Context, *disk.FS) error { t.Error("read"); return nil }
	for ref, want := range map[string]error{"x": banger.ErrConflict, "nosuch": banger.ErrNotFound} {
		if err := w.ReadFiles(t.Context(), ref, never); !errors.Is(err, want) {
			t.Errorf("ReadFiles(%s) = %v, want %v", ref, err, want)
		}
	}
	w.guestEnds(vm.ID, banger.ExitPanic)
	w.await("state error", func() bool { return w.get("x").State == banger.StateError })
	if err := w.ReadFiles(t.Context(), "x", func(context.Context, *disk.FS) error { return nil }); err != nil {
		t.Errorf("of a VM that failed: %v", err)
	}
}

// A deletion does not wait for who reads.
func TestReadFilesYields(t *testing.T) {
	w := newWorld(t)
	vm := w.mustCreate("x", false)
	w.writeFiles(vm.ID)
	entered, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- w.ReadFiles(t.Context(), "x", func(ctx context.Context, _ *disk.FS) error {
			close(entered)
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	<-entered
	if _, err := w.Delete(t.Context(), "x", false, nil); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, banger.ErrConflict) {
		t.Errorf("ReadFiles = %v, want a conflict", err)
	}
}
