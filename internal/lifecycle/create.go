package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"banger"
	"banger/api"
	"banger/internal/proc"
	"banger/internal/store"
)

// Create makes a VM and starts it when the request says so. holder is the process whose end removes a VM that asks for it.
// Unlike all other operations it ends with ctx: a caller that leaves has its creation undone. A VM that does not boot is
// kept in state error.
func (m *Manager) Create(ctx context.Context, req api.CreateRequest, holder *proc.Handle, progress banger.ProgressFunc) (banger.VM, error) {
	m.active.Add(1)
	defer m.rest()
	m.work.Add(1)
	defer m.work.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.life, cancel)()

	vmm, err := m.probe(ctx)
	if err != nil {
		return banger.VM{}, err
	}
	vm, err := m.draft(req, vmm)
	if err != nil {
		return banger.VM{}, err
	}
	if req.Start {
		if err := m.fits(ctx, vm, vm.Spec.MemoryMiB, req.Overcommit); err != nil {
			return banger.VM{}, &banger.Error{Op: "create vm", Subject: vm.Spec.Name, Err: err}
		}
	}
	if !req.Remove {
		holder = nil
	}
	if req.TTL > 0 {
		defer m.lookAgain()
	}
	claimed, release, err := m.claims.takeYielding(ctx, vm.ID)
	if err != nil {
		return banger.VM{}, err
	}
	defer release()
	vm, err = m.create(claimed, req, vm, holder, vmm, progress)
	if err != nil {
		if cause := context.Cause(claimed); cause != nil && !isBootFailure(err) {
			err = &banger.Error{Kind: banger.ErrInterrupted, Err: errors.Join(cause, err)}
		}
		return vm, &banger.Error{Op: "create vm", Subject: vm.Spec.Name, Err: err}
	}
	m.Log.InfoContext(ctx, "created", "vm", vm.ID, "name", vm.Spec.Name, "state", vm.State)
	return vm, nil
}

// draft resolves what the request leaves open and checks the result.
func (m *Manager) draft(req api.CreateRequest, vmm VMM) (banger.VM, error) {
	sizes := m.newSizes(vmm.Accel)
	spec := banger.VMSpec{Name: req.Name, Image: req.Image, Env: req.Env, User: req.User, Labels: req.Labels, Publish: req.Publish, CA: req.CA, Sync: req.Sync,
		VCPU: sizes.VCPU, MemoryMiB: sizes.MemoryMiB, DiskBytes: sizes.DiskBytes, StopIdle: m.Defaults.StopIdle}
	if spec.Name == "" {
		spec.Name = randomName()
	}
	if spec.Image == "" {
		spec.Image = m.Defaults.Image
	}
	var err error
	if spec.Net, err = req.Net.Apply(m.Defaults.Net); err != nil {
		return banger.VM{}, err
	}
	if req.VCPU != nil {
		spec.VCPU = *req.VCPU
	}
	if req.MemoryMiB != nil {
		spec.MemoryMiB = *req.MemoryMiB
	}
	if req.DiskBytes != nil {
		spec.DiskBytes = *req.DiskBytes
	}
	if req.StopIdle != nil {
		spec.StopIdle = *req.StopIdle
	}
	if err := spec.Validate(); err != nil {
		return banger.VM{}, err
	}
	if err := m.checkSync(spec.Sync); err != nil {
		return banger.VM{}, err
	}
	if req.TTL < 0 {
		return banger.VM{}, banger.Invalidf("time to live %s: want a positive one", req.TTL)
	}
	vm := banger.VM{ID: newID(), Spec: spec, State: banger.StateCreating, Kernel: req.Kernel, Remove: req.Remove, CreatedAt: m.Now().UTC()}
	m.setAge(&vm, req.TTL)
	return vm, nil
}

// create holds the claim. On error everything is undone, but for a VM that did not boot.
func (m *Manager) create(ctx context.Context, req api.CreateRequest, vm banger.VM, holder *proc.Handle, vmm VMM, progress banger.ProgressFunc) (banger.VM, error) {
	start := time.Now()
	vm, err := m.reserve(ctx, vm, holder, req.Name == "")
	if err != nil {
		return vm, err
	}
	progress.Report(banger.Progress{Stage: "reserve", Subject: vm.Spec.Name, Done: true, Elapsed: time.Since(start)})
	row, err := m.fill(ctx, req, vm, vmm, progress)
	switch {
	case err == nil && holder != nil:
		m.watchLease(store.Lease{VM: vm.ID, Holder: *holder})
	case isBootFailure(err) && holder != nil:
		if m.keepFailed(ctx, vm.ID) != nil { // it is tried again
			m.watchLease(store.Lease{VM: vm.ID, Holder: *holder})
		}
	case err != nil && !isBootFailure(err):
		if undoErr := m.erase(ctx, vm); undoErr != nil {
			err = errors.Join(err, undoErr)
			m.mend(vm.ID)
		}
		return vm, err
	}
	return row, err
}

// fill makes all of a reserved VM. It undoes nothing.
func (m *Manager) fill(ctx context.Context, req api.CreateRequest, vm banger.VM, vmm VMM, progress banger.ProgressFunc) (banger.VM, error) {
	m.basesInUse.RLock()
	defer m.basesInUse.RUnlock()
	image, kernel, err := m.parts(ctx, vm, progress)
	if err != nil {
		return vm, err
	}
	vm.ImageKey, vm.Kernel = image.Key, kernel // stored with the next change of state
	if _, err := m.Images.Base(ctx, image, progress); err != nil {
		return vm, err // before the disk is made for it
	}
	files := m.collect(vm, image)
	if err := errors.Join(files.Failed...); err != nil {
		return vm, err
	}
	end := progress.Begin("disk", "applying work seed")
	if err := m.Homes.Create(ctx, Home{ID: vm.ID, Name: vm.Spec.Name, ImageKey: image.Key, DiskBytes: vm.Spec.DiskBytes,
		GitName: req.GitName, GitEmail: req.GitEmail, Sync: files.Files}); err != nil {
		return vm, fmt.Errorf("make disk: %w", err)
	}
	end()
	if err := ctx.Err(); err != nil {
		return vm, err
	}
	if req.Start {
		return m.boot(ctx, vm, vmm, req.Overcommit, "", progress)
	}
	m.tellLeft(ctx, vm, files, progress)
	return m.update(ctx, vm.ID, func(row *banger.VM) {
		row.State, row.ImageKey, row.Kernel, row.Synced = banger.StateStopped, vm.ImageKey, vm.Kernel, files.Entries
	})
}

// reserve stores the record. A generated name that is taken is replaced by another.
func (m *Manager) reserve(ctx context.Context, vm banger.VM, holder *proc.Handle, generated bool) (banger.VM, error) {
	for attempt := 0; ; attempt++ {
		err := m.Store.Reserve(ctx, vm, holder)
		if err == nil || !generated || attempt == 10 || !errors.Is(err, banger.ErrConflict) {
			return vm, err
		}
		vm.Spec.Name = randomName()
	}
}

// parts gets image and kernel ready. Which kernel is known at once unless the image, still to be made, may name one.
func (m *Manager) parts(ctx context.Context, vm banger.VM, progress banger.ProgressFunc) (image banger.Image, kernel string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kernel = cmp.Or(vm.Kernel, m.Defaults.Kernel)
	var group sync.WaitGroup
	var imageErr, kernelErr error
	group.Go(func() {
		if image, imageErr = m.Images.Ensure(ctx, vm.Spec.Image, progress); imageErr != nil {
			cancel()
		}
	})
	group.Go(func() {
		if known, err := m.Images.Resolve(vm.Spec.Image); err == nil {
			kernel = cmp.Or(vm.Kernel, known.Kernel, m.Defaults.Kernel)
		}
		if _, kernelErr = m.Kernels.Ensure(ctx, kernel, progress); kernelErr != nil {
			cancel()
		}
	})
	group.Wait()
	if err := firstCause(imageErr, kernelErr); err != nil {
		return image, kernel, err
	}
	if own := cmp.Or(vm.Kernel, image.Kernel, m.Defaults.Kernel); own != kernel {
		kernel = own
		_, err = m.Kernels.Ensure(ctx, kernel, progress)
	}
	return image, kernel, err
}

// firstCause prefers the error that made the other one be canceled.
func firstCause(a, b error) error {
	switch {
	case a == nil || errors.Is(a, context.Canceled) && b != nil && !errors.Is(b, context.Canceled):
		return b
	case b == nil || errors.Is(b, context.Canceled):
		return a
	}
	return errors.Join(a, b)
}
