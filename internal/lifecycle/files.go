package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"

	"banger"
	"banger/internal/disk"
)

// ReadFiles gives use the file tree of a VM that does not run, and keeps the VM from starting until use returns: a start waits, while a
// stop, kill or delete ends the context of use.
// Errors: ErrNotFound; ErrConflict when the VM runs; ErrCorrupt for a damaged disk or image; those of use.
func (m *Manager) ReadFiles(ctx context.Context, ref string, use func(context.Context, *disk.FS) error) error {
	vm, err := m.Store.Get(ctx, ref)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.life, cancel)()
	ctx, release, err := m.claims.takeYielding(ctx, vm.ID)
	if err != nil {
		return err
	}
	defer release()
	m.active.Add(1)
	defer m.rest()
	if vm, err = m.Store.Get(ctx, string(vm.ID)); err != nil {
		return err
	}
	if err = m.atRest(ctx, vm); err == nil {
		err = m.readFiles(ctx, vm, use)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(ctx), errYield):
		err = &banger.Error{Kind: banger.ErrConflict, Err: errYield}
	}
	return &banger.Error{Op: "vm", Subject: vm.Spec.Name, Err: err}
}

// atRest makes sure that nothing writes to a VM's disk. It holds the claim. Errors: ErrConflict.
func (m *Manager) atRest(ctx context.Context, vm banger.VM) error {
	switch vm.State {
	case banger.StateStopped:
		return nil
	case banger.StateError:
		return m.finish(ctx, vm.ID)
	}
	return &banger.Error{Kind: banger.ErrConflict, Err: fmt.Errorf("it is %s", vm.State), Hint: "banger vm show " + vm.Spec.Name}
}

func (m *Manager) readFiles(ctx context.Context, vm banger.VM, use func(context.Context, *disk.FS) error) error {
	image, err := m.Images.Get(vm.ImageKey)
	if err != nil {
		return err
	}
	base, err := m.Images.Base(ctx, image, nil)
	if err != nil {
		return err
	}
	if err := m.Homes.Check(vm.ID); err != nil {
		return err
	}
	lower, lowerBytes, err := openSized(base)
	if err != nil {
		return err
	}
	defer lower.Close()
	upper, upperBytes, err := openSized(m.Dir.VM(vm.ID).Disk())
	if err != nil {
		return err
	}
	defer upper.Close()
	tree, err := disk.OpenFS(lower, lowerBytes, upper, upperBytes)
	if err != nil {
		return err
	}
	return use(ctx, tree)
}

func openSized(name string) (*os.File, int64, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, info.Size(), nil
}

// Lend boots a VM that does not run without the image's own init, tells when it is ready, and stops it when ctx, the borrower's, has
// ended. Until then it is the borrower's: a start waits, while a stop, kill, restart or delete ends the loan.
// Errors: those of Start; ErrConflict when the VM runs already or the loan was ended by somebody else.
func (m *Manager) Lend(ctx context.Context, ref string, progress banger.ProgressFunc, ready func(banger.VM)) error {
	borrower := ctx
	_, err := m.detach(ctx, func(ctx context.Context) (banger.VM, error) {
		vm, err := m.Store.Get(ctx, ref)
		if err != nil {
			return vm, err
		}
		yielding, release, err := m.claims.takeYielding(ctx, vm.ID)
		if err != nil {
			return vm, err
		}
		defer release()
		// A borrower that goes while the VM boots ends that as a stop would.
		yielding, yield := context.WithCancelCause(yielding)
		defer yield(nil)
		defer context.AfterFunc(borrower, func() { yield(errYield) })()
		if vm, err = m.Store.Get(ctx, string(vm.ID)); err == nil {
			err = m.atRest(ctx, vm)
		}
		if err == nil {
			vm, err = m.startAs(yielding, vm, false, banger.BootAgent, progress)
		}
		if err != nil {
			return vm, &banger.Error{Op: "start vm", Subject: vm.Spec.Name, Err: err}
		}
		m.Log.InfoContext(ctx, "lent", "vm", vm.ID, "name", vm.Spec.Name)
		ready(vm)
		<-yielding.Done()
		switch {
		case ctx.Err() != nil: // the daemon ends; the VM goes on, and its borrower asks the next daemon for the stop
			return vm, ctx.Err()
		case borrower.Err() == nil:
			return vm, &banger.Error{Kind: banger.ErrConflict, Op: "lend vm", Subject: vm.Spec.Name, Err: errYield}
		}
		return m.stop(ctx, vm, m.stopTimeout(vm, 0))
	})
	return err
}
