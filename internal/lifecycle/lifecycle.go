// Package lifecycle is the only package that knows the order of steps in a VM's life.
//
// Every step's intent is in the store before its effect; create.go and start.go undo their effects in reverse when a
// later step fails; recover.go compares records and host after a crash and finishes or undoes. One operation per VM runs at a
// time (claim.go), different VMs in parallel. A row that says stopped means: every process of the run is proved dead.
package lifecycle

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"banger"
	"banger/api"
	"banger/internal/disk"
	"banger/internal/filesync"
	"banger/internal/machine"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/store"
	"banger/internal/transfer"
)

// Store keeps records durably: package store, or one that fails as planned.
type Store interface {
	Reserve(ctx context.Context, vm banger.VM, holder *proc.Handle) error
	Update(ctx context.Context, id banger.VMID, change func(*banger.VM) error) (banger.VM, error)
	Delete(ctx context.Context, id banger.VMID) error
	Erased(ctx context.Context) (map[banger.VMID]bool, error)
	Forget(ctx context.Context, ids []banger.VMID) error
	List(ctx context.Context) ([]banger.VM, error)
	Get(ctx context.Context, ref string) (banger.VM, error)
	Resolve(ctx context.Context, refs []string) ([]store.Resolved, error)
	Changed() <-chan struct{}
	DeleteLease(ctx context.Context, id banger.VMID) error
	Leases(ctx context.Context) ([]store.Lease, error)
}

// Images gives bases. Ensure builds a missing one and reports that as stage "image"; Get finds a published one by key, Resolve
// by name or the beginning of a key. Base gives the file that a machine boots from, once it is known to be as it was. Delete removes
// an image, Prune those that may go.
type Images interface {
	Ensure(ctx context.Context, name string, progress banger.ProgressFunc) (banger.Image, error)
	Get(key string) (banger.Image, error)
	Resolve(ref string) (banger.Image, error)
	Base(ctx context.Context, image banger.Image, progress banger.ProgressFunc) (path string, err error)
	Delete(key string) error
	Prune(ctx context.Context, inUse map[string]bool, all, dryRun bool) (api.Pruned, error)
}

// Kernels gives kernels and the initrd that boots one with the guest's binary. Ensure reports stage "kernel". Delete removes one,
// also a damaged one.
type Kernels interface {
	Ensure(ctx context.Context, name string, progress banger.ProgressFunc) (banger.Kernel, error)
	Initrd(ctx context.Context, kernel banger.Kernel, guestBinary string) (path string, err error)
	Delete(ctx context.Context, name string) (banger.Kernel, error)
}

// Homes are the directories of the VMs.
type Homes interface {
	// Create makes the directory with keys and disk, durably. On error nothing is left.
	Create(ctx context.Context, home Home) error
	// Check says what is wrong with a directory that a start needs. Errors: ErrCorrupt.
	Check(id banger.VMID) error
	// Grow makes the disk of a VM that does not run larger; one that has the size is left alone. On error it is as it was.
	Grow(id banger.VMID, size int64) error
	// Remove removes the directory; a missing one is no error.
	Remove(id banger.VMID) error
	// List gives the ids of all directories.
	List() ([]banger.VMID, error)
}

// Home is what a VM's directory is made from.
type Home struct {
	ID        banger.VMID
	Name      string
	ImageKey  string
	DiskBytes int64
	GitName   string // may be empty
	GitEmail  string
	Sync      []filesync.File
}

// Machines are the supervisors. Status, Ready, Stats, Wait, Shutdown, Signal and Rename ask the one of a VM and fail with
// ErrUnavailable when none answers.
type Machines interface {
	// Launch starts a supervisor for a new run; what an earlier run recorded is removed first. It returns when the supervisor's
	// process exists and its socket takes connections. On error nothing runs.
	Launch(ctx context.Context, cfg machine.Config) error
	// Relaunch starts another supervisor for the run whose own died; it takes the living VMM over. One that lives and does not answer
	// is ended first.
	Relaunch(ctx context.Context, id banger.VMID) error

	Status(ctx context.Context, id banger.VMID) (machine.Status, error)
	Ready(ctx context.Context, id banger.VMID) (machine.Status, error)
	Stats(ctx context.Context, id banger.VMID) (machine.Stats, error)
	Wait(ctx context.Context, id banger.VMID) (banger.Exit, error)
	Shutdown(ctx context.Context, id banger.VMID, timeout time.Duration) (banger.Exit, error)
	Signal(ctx context.Context, id banger.VMID, sig syscall.Signal) error
	// Rename gives the running guest another host name, which the run keeps whatever becomes of its supervisor.
	Rename(ctx context.Context, id banger.VMID, name string) error
	// SetNet changes what the run's network reaches, whatever becomes of its supervisor.
	SetNet(ctx context.Context, id banger.VMID, policy banger.NetPolicy) error

	// Sync has the running guest bring files up to date.
	Sync(ctx context.Context, id banger.VMID, files []filesync.File) (transfer.Synced, error)

	// Handles gives the processes of the last run, zero when there are none, and which of them live. When their record is damaged
	// they are found by other means.
	Handles(id banger.VMID) (handles machine.Handles, supervisor, vmm bool, err error)
	// Damage says why the record of those processes can't be read. Errors: ErrCorrupt.
	Damage(id banger.VMID) error
	// ExitRecord gives what the last run's supervisor wrote at its end; nil when there is none.
	ExitRecord(id banger.VMID) (*banger.Exit, error)
	// Finish returns when supervisor and VMM are proved dead: it gives the supervisor the time grace, then kills both.
	Finish(ctx context.Context, id banger.VMID, grace time.Duration) error
}

// VMM is what runs guests on this host.
type VMM struct {
	Program string // path
	Accel   string // "kvm" or "tcg"
	TSCKHz  uint64
}

// Defaults are what a request leaves open.
type Defaults struct {
	Image        string
	Kernel       string
	CPUs         int           // of the host
	MemoryMiB    int           // of the host
	StopIdle     time.Duration // 0: never
	PublishAll   bool          // ports of VMs are opened unasked
	MaxMemoryMiB int           // of all running VMs together; 0: no limit
	New          Sizes         // of a new VM; what is 0 goes by the host
	BootDeadline time.Duration // per attempt; 0: by how the VMM runs
	StopTimeout  time.Duration
	Net          banger.NetPolicy
	Sync         []banger.FileSync // for every VM
}

// Sizes are those of a VM.
type Sizes struct {
	VCPU      int
	MemoryMiB int
	DiskBytes int64
}

// Config wires a Manager.
type Config struct {
	Dir      statedir.Dir
	Store    Store
	Images   Images
	Kernels  Kernels
	Homes    Homes
	Machines Machines
	Defaults Defaults
	Guest    string // path of banger-guest
	UserHome string // of the host's user, whose files are synced
	// Probe finds the VMM and how it runs; it remembers. Errors: ErrUnavailable when there is none.
	Probe func(ctx context.Context) (VMM, error)
	// Gone returns nil when a process is gone.
	Gone func(ctx context.Context, holder proc.Handle) error
	// Keep keeps, durably, what is in the workspaces of a VM that does not run and is about to be deleted. Optional: nothing is kept.
	Keep func(ctx context.Context, vm banger.VM, files *disk.FS) ([]banger.Autosave, error)
	Log  *slog.Logger     // optional: discards
	Idle func()           // optional: called when an operation has ended and no other runs
	Now  func() time.Time // optional: time.Now
	// HostTime is the clock of the host's boot.
	HostTime func() (banger.HostTime, error) // optional: proc.HostTime
}

// undoTimeout bounds an undo: it runs when the operation's own context may have ended.
const undoTimeout = time.Minute

// failedRunKept is how long a VM that did not boot is kept for a look when it was to be removed.
const failedRunKept = time.Hour

// Manager runs the operations on all VMs of one state directory.
type Manager struct {
	Config
	claims  claims
	watched watchers
	// basesInUse is held for reading while a VM is made: until its record names its base, and its kernel is there.
	basesInUse sync.RWMutex

	accel atomic.Value  // string: of the last probe
	aged  chan struct{} // holds one token when the ages of VMs are to be looked at

	life   context.Context // ends with Close
	end    context.CancelFunc
	active atomic.Int32   // operations
	work   sync.WaitGroup // operations, watchers and leases
}

// New makes a Manager. It does no I/O; call Recover before anything else.
func New(cfg Config) *Manager {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.HostTime == nil {
		cfg.HostTime = proc.HostTime
	}
	if cfg.Idle == nil {
		cfg.Idle = func() {}
	}
	m := &Manager{Config: cfg, aged: make(chan struct{}, 1)}
	m.life, m.end = context.WithCancel(context.Background())
	return m
}

// Close ends operations, watchers and leases and waits for them. VMs go on: a creation is undone, the rest is taken up again by
// the next Recover.
func (m *Manager) Close() {
	m.end()
	m.work.Wait()
}

// Accel is the accelerator of the last probe, "" before the first.
func (m *Manager) Accel() string {
	accel, _ := m.accel.Load().(string)
	return accel
}

func (m *Manager) probe(ctx context.Context) (VMM, error) {
	vmm, err := m.Probe(ctx)
	if err == nil {
		m.accel.Store(vmm.Accel)
	}
	return vmm, err
}

// detach runs op apart from its caller: ctx bounds the waiting only. The operation has ctx's values and ends with the Manager.
func (m *Manager) detach(ctx context.Context, op func(context.Context) (banger.VM, error)) (banger.VM, error) {
	type result struct {
		vm  banger.VM
		err error
	}
	done := make(chan result, 1)
	m.spawn(ctx, func(ctx context.Context) {
		m.active.Add(1)
		defer m.rest()
		vm, err := op(ctx)
		if err != nil && vm.ID != "" {
			m.mend(vm.ID)
		}
		done <- result{vm, err}
	})
	select {
	case r := <-done:
		return r.vm, r.err
	case <-ctx.Done():
		return banger.VM{}, &banger.Error{Kind: banger.ErrInterrupted, Err: context.Cause(ctx)}
	}
}

// rest ends an operation.
func (m *Manager) rest() {
	if m.active.Add(-1) == 0 {
		m.Idle()
	}
}

// spawn starts a goroutine that ends with the Manager; values come from ctx.
func (m *Manager) spawn(ctx context.Context, fn func(context.Context)) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(m.life, cancel)
	m.work.Go(func() {
		defer cancel()
		defer stop()
		fn(ctx)
	})
}

// fresh is a context for an undo or a record that must be made although ctx may have ended.
func fresh(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
}

// update changes a record even if the operation's context has ended.
func (m *Manager) update(ctx context.Context, id banger.VMID, change func(*banger.VM)) (banger.VM, error) {
	ctx, cancel := fresh(ctx)
	defer cancel()
	return m.Store.Update(ctx, id, func(vm *banger.VM) error {
		change(vm)
		return nil
	})
}

func newID() banger.VMID {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand
	return banger.VMID(hex.EncodeToString(b[:]))
}
