package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"banger"
	"banger/api"
	"banger/internal/machine"
)

// bootFailure is a run that ended before its guest was ready. The VM is kept in state error.
type bootFailure struct{ exit banger.Exit }

func (e *bootFailure) Error() string {
	text := describe(e.exit)
	if e.exit.Console != "" {
		text += "\nlast lines of the console:\n" + strings.TrimRight(e.exit.Console, "\n")
	}
	return text
}

// Unwrap gives the kind: what was asked for is not there.
func (e *bootFailure) Unwrap() error { return banger.ErrUnavailable }

func isBootFailure(err error) bool {
	var failure *bootFailure
	return errors.As(err, &failure)
}

// Start boots a stopped VM and returns when its guest is ready. A running VM is no error.
// Errors: ErrNotFound; ErrConflict while it is created or stopped; ErrRefused when there is not the memory; ErrUnavailable when the guest does not get ready: the VM is in
// state error then.
func (m *Manager) Start(ctx context.Context, ref string, req api.StartRequest, progress banger.ProgressFunc) (banger.VM, error) {
	return m.detach(ctx, func(ctx context.Context) (banger.VM, error) {
		vm, err := m.Store.Get(ctx, ref)
		if err != nil {
			return banger.VM{}, err
		}
		ctx, release, err := m.claims.takeYielding(ctx, vm.ID)
		if err != nil {
			return banger.VM{}, err
		}
		defer release()
		if vm, err = m.Store.Get(ctx, string(vm.ID)); err != nil || vm.State == banger.StateRunning {
			return vm, err
		}
		if vm, err = m.takeChanges(ctx, vm); err == nil {
			vm, err = m.start(ctx, vm, req.Overcommit, progress)
		}
		if err != nil {
			return vm, &banger.Error{Op: "start vm", Subject: vm.Spec.Name, Err: err}
		}
		m.Log.InfoContext(ctx, "started", "vm", vm.ID, "name", vm.Spec.Name, "accel", vm.Accel)
		return vm, nil
	})
}

// start holds the claim. A start that fails before there was a guest leaves no process and state error, or stopped when the VM
// was told to stop; one that is cut off by the daemon's end is left to the next Recover.
func (m *Manager) start(ctx context.Context, vm banger.VM, overcommit bool, progress banger.ProgressFunc) (banger.VM, error) {
	return m.startAs(ctx, vm, overcommit, "", progress)
}

// startAs is start with another boot kind than the image's.
func (m *Manager) startAs(ctx context.Context, vm banger.VM, overcommit bool, kind banger.BootKind, progress banger.ProgressFunc) (banger.VM, error) {
	vmm, err := m.probe(ctx)
	if err != nil {
		return vm, err
	}
	if err := m.Homes.Check(vm.ID); err != nil {
		return vm, err
	}
	if vm.State != banger.StateStopped { // an operation that failed half-way may have left a run
		if err := m.finish(ctx, vm.ID); err != nil {
			return vm, err
		}
	}
	vm, err = m.boot(ctx, vm, vmm, overcommit, kind, progress)
	if err == nil || isBootFailure(err) || vm.State != banger.StateStarting || m.life.Err() != nil {
		return vm, err
	}
	if stopErr := m.giveUp(ctx, vm.ID); stopErr != nil {
		return vm, errors.Join(err, stopErr)
	}
	yielded := errors.Is(context.Cause(ctx), errYield)
	if yielded {
		err = &banger.Error{Kind: banger.ErrConflict, Err: errYield}
	}
	row, storeErr := m.update(ctx, vm.ID, func(vm *banger.VM) {
		if vm.State, vm.LastError = banger.StateError, err.Error(); yielded {
			vm.State, vm.LastError = banger.StateStopped, ""
		}
	})
	return row, errors.Join(err, storeErr)
}

// boot launches a run, with the image's boot kind if none is given, and waits until its guest is ready. It undoes nothing: on error a
// supervisor may run.
func (m *Manager) boot(ctx context.Context, vm banger.VM, vmm VMM, overcommit bool, kind banger.BootKind, progress banger.ProgressFunc) (banger.VM, error) {
	cfg, err := m.machineConfig(ctx, vm, vmm, progress)
	if err != nil {
		return vm, err
	}
	if err := checkPublish(vm.Spec.Publish); err != nil {
		return vm, err
	}
	cfg.Boot = cmp.Or(kind, cfg.Boot)
	end := progress.Begin("boot", "starting the VM")
	row, err := m.admit(ctx, vm, overcommit, func(row *banger.VM) error {
		row.State, row.ImageKey, row.Kernel, row.LastError, row.Exit = banger.StateStarting, vm.ImageKey, vm.Kernel, "", nil
		return nil
	})
	if err != nil {
		return vm, err
	}
	m.namePeer(ctx, row)
	if err := m.Machines.Launch(ctx, cfg); err != nil {
		return row, fmt.Errorf("start the machine: %w", err)
	}
	if vm, err = m.awaitReady(ctx, row, progress); err != nil {
		return vm, err
	}
	end()
	return vm, nil
}

// awaitReady brings a starting VM to running and watches it from then on.
func (m *Manager) awaitReady(ctx context.Context, vm banger.VM, progress banger.ProgressFunc) (banger.VM, error) {
	status, err := m.Machines.Ready(ctx, vm.ID)
	if err != nil {
		return vm, fmt.Errorf("wait for the guest: %w", err)
	}
	if status.Exit != nil {
		return m.failedBoot(ctx, vm, *status.Exit)
	}
	synced := m.sync(ctx, vm, progress)
	row, err := m.Store.Update(ctx, vm.ID, func(vm *banger.VM) error {
		vm.Synced = synced
		vm.State, vm.Accel, vm.StartedAt = banger.StateRunning, status.Accel, m.Now().UTC()
		vm.Boots++
		return nil
	})
	if err != nil {
		return vm, err
	}
	m.watch(row)
	if row.Spec.StopIdle > 0 {
		m.lookAgain()
	}
	return row, nil
}

// failedBoot records a run that ended before its guest was ready.
func (m *Manager) failedBoot(ctx context.Context, vm banger.VM, exit banger.Exit) (banger.VM, error) {
	vm, err := m.ended(ctx, vm, exit, banger.StateError)
	if err != nil {
		return vm, err
	}
	m.Log.WarnContext(ctx, "boot failed", "vm", vm.ID, "name", vm.Spec.Name, "cause", exit.Cause, "detail", exit.Detail)
	return vm, &banger.Error{Kind: banger.ErrUnavailable, Err: &bootFailure{exit}, Hint: "banger vm logs " + vm.Spec.Name}
}

func (m *Manager) machineConfig(ctx context.Context, vm banger.VM, vmm VMM, progress banger.ProgressFunc) (machine.Config, error) {
	image, err := m.Images.Get(vm.ImageKey)
	if err != nil {
		return machine.Config{}, err
	}
	kernel, err := m.Kernels.Ensure(ctx, vm.Kernel, progress)
	if err != nil {
		return machine.Config{}, err
	}
	initrd, err := m.Kernels.Initrd(ctx, kernel, m.Guest)
	if err != nil {
		return machine.Config{}, fmt.Errorf("make initrd: %w", err)
	}
	base, err := m.Images.Base(ctx, image, progress)
	if err != nil {
		return machine.Config{}, err
	}
	home, parts := m.Dir.VM(vm.ID), m.Dir.Kernel(kernel.Name)
	return machine.Config{
		ID: vm.ID, Name: vm.Spec.Name, Op: banger.OperationOf(ctx), Dir: home.Path, Driver: "qemu", QEMU: vmm.Program, Accel: vmm.Accel, TSCKHz: vmm.TSCKHz,
		VCPU: vm.Spec.VCPU, MemoryMiB: vm.Spec.MemoryMiB, Vmlinux: parts.Vmlinux(), Initrd: initrd,
		Base: base, Modules: parts.Modules(), Disk: home.Disk(), Boot: image.Boot, BootDeadline: m.bootDeadline(vmm.Accel),
		Env: environment(image, vm.Spec.Env), User: userOf(image, vm.Spec.User), Publish: vm.Spec.Publish, PublishAll: m.Defaults.PublishAll,
		Locale: hostLocale("/", os.Getenv), CA: vm.Spec.CA,
		Net: vm.Spec.Net, Peers: m.Dir.Peers(),
	}, nil
}

// Deadlines of one attempt to boot. Emulation is slow, and slower beside other work.
const (
	bootDeadlineKVM = 30 * time.Second
	bootDeadlineTCG = 2 * time.Minute
)

func (m *Manager) bootDeadline(accel string) time.Duration {
	switch {
	case m.Defaults.BootDeadline > 0:
		return m.Defaults.BootDeadline
	case accel == "kvm":
		return bootDeadlineKVM
	}
	return bootDeadlineTCG
}
