package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/api"
	"banger/internal/filesync"
	"banger/internal/machine"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/store"
	"banger/internal/transfer"
)

var errPlanned = errors.New("planned failure")

// world is a host with real state: a database, directories, supervisors and VMMs. It outlives the daemon's managers.
type world struct {
	t        *testing.T
	dir      statedir.Dir
	home     string // of the host's user
	mu       sync.Mutex
	homes    map[banger.VMID]bool
	disks    map[banger.VMID]int64 // their sizes
	runs     map[banger.VMID]*run
	holders  map[int]chan struct{} // by pid; closed: gone
	boot     banger.ExitCause      // "": guests get ready; else how each boot ends
	deaf     bool                  // guests do not power off when asked
	waited   int                   // ends of runs that went on and had not been told: each takes all of the grace
	slow     chan struct{}         // not nil: guests get ready when it is closed
	noSpace  error                 // what Homes.Create gives
	noGrowth error                 // what Homes.Grow gives
	changed  error                 // what Images.Base gives
	waiters  atomic.Int32          // how often somebody asked for the next change
	steps    int
	failStep int // -1: none
	crashAt  int
	onStep   func(n int) // may be nil: before each step
	crashed  chan struct{}
	over     chan struct{}                   // closed at the end of the test
	gate     func(d *daemon, op string) bool // of a model: called before and after each effect, gives whether it fails
	byHand   atomic.Bool                     // guests get ready when a model says so
	lastOp   string
	accelErr error
	clock    hostClock
	measure  func(banger.VMID) machine.Stats // not nil: what Machines.Stats gives
	worked   map[banger.VMID]bool            // VMs with work that the host does not have
	kept     map[banger.VMID]bool            // those whose work is kept
	noKeep   error                           // what Keep gives
	lists    int                             // how often a daemon has read all records

	*Manager
	daemon  *daemon
	daemons []*daemon // all that there were
}

// run is one run of a VM: what the supervisor's and the VMM's processes are.
type run struct {
	cfg        machine.Config
	supervisor bool
	vmm        bool
	lost       chan struct{} // closed when this supervisor died
	ready      chan struct{}
	ended      chan struct{}
	exit       banger.Exit // once ended
	record     bool        // exit.json is there
	starts     int
	use        machine.Stats
	watched    bool   // somebody waits for its end
	name       string // of the guest
	net        banger.NetPolicy
	asked      bool            // to power off
	files      []filesync.File // that the guest has brought up to date
	damaged    bool            // handles.json is
}

// daemon is one life of bangerd. After its crash nothing that it does has an effect.
type daemon struct {
	w       *world
	dead    bool
	db      *store.Store
	manager *Manager
	open    atomic.Bool // it has recovered
}

func newWorld(t *testing.T) *world {
	return newWorldIn(t, t.TempDir())
}

func newWorldIn(t *testing.T, root string) *world {
	w := &world{t: t, dir: statedir.Dir{Root: root}, home: t.TempDir(), over: make(chan struct{}), homes: map[banger.VMID]bool{}, disks: map[banger.VMID]int64{}, runs: map[banger.VMID]*run{},
		worked: map[banger.VMID]bool{}, kept: map[banger.VMID]bool{}, holders: map[int]chan struct{}{}, failStep: -1, crashAt: -1, crashed: make(chan struct{}), clock: hostClock{bootID: "first boot", booted: time.Now()}}
	t.Cleanup(w.thaw)
	t.Cleanup(w.shut)
	if err := os.MkdirAll(w.dir.Peers(), 0o700); err != nil {
		t.Fatal(err)
	}
	w.open()
	return w
}

// thaw ends what crashed daemons have left.
func (w *world) thaw() {
	close(w.over)
	for _, d := range w.daemons {
		d.manager.end()
		d.db.Close()
	}
}

// open starts a daemon.
func (w *world) open() {
	w.t.Helper()
	w.Manager = w.newDaemon()
	if err := w.Recover(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.daemon.open.Store(true)
}

func (w *world) newDaemon() *Manager {
	w.t.Helper()
	db, err := store.Open(w.t.Context(), filepath.Join(w.dir.Root, "state.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	d := &daemon{w: w, db: db}
	d.manager = New(Config{Dir: w.dir, Store: faultyStore{db, d}, Images: images{d}, Kernels: kernels{d}, Homes: homes{d}, Machines: d, Guest: "/guest", UserHome: w.home,
		Defaults: Defaults{Sync: []banger.FileSync{{Host: "~/.netrc"}}, Image: "debian", Kernel: "kernel", CPUs: 8, MemoryMiB: 16384, BootDeadline: time.Minute, StopTimeout: time.Second},
		Probe:    func(context.Context) (VMM, error) { return VMM{Program: "/qemu", Accel: "tcg"}, w.accelErr },
		Gone:     w.gone, Now: w.clock.now, HostTime: w.clock.hostTime, Keep: d.keep})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.daemon, w.daemons = d, append(w.daemons, d)
	return d.manager
}

// Start and Restart are those of the daemon without anything asked for.
func (w *world) Start(ctx context.Context, ref string, progress banger.ProgressFunc) (banger.VM, error) {
	return w.Manager.Start(ctx, ref, api.StartRequest{}, progress)
}

func (w *world) Restart(ctx context.Context, ref string, timeout time.Duration, progress banger.ProgressFunc) (banger.VM, error) {
	return w.Manager.Restart(ctx, ref, api.RestartRequest{Timeout: timeout}, progress)
}

// crash freezes the daemon.
func (w *world) crash() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.daemon.dead = true
}

// shut ends the daemon, if it has not crashed, without planned faults from now on.
func (w *world) shut() {
	w.mu.Lock()
	w.failStep, w.crashAt = -1, -1
	dead := w.daemon.dead
	w.mu.Unlock()
	if !dead {
		w.Manager.Close()
		w.daemon.db.Close()
	}
}

// restart ends this daemon and starts another.
func (w *world) restart() {
	w.t.Helper()
	w.shut()
	w.open()
	w.settle()
}

// settle waits until no VM is claimed.
func (w *world) settle() {
	for _, vm := range w.list() {
		release, err := w.claims.take(w.t.Context(), vm.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		release()
	}
}

func (w *world) list() []banger.VM {
	w.t.Helper()
	w.mu.Lock()
	db := w.daemon.db
	w.mu.Unlock()
	vms, err := db.List(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return vms
}

// do runs an operation to its end or to the daemon's crash.
func (w *world) do(op func() error) error {
	done := make(chan error, 1)
	go func() { done <- op() }()
	select {
	case err := <-done:
		return err
	case <-w.crashed:
		return errPlanned
	}
}

// broken tells what is wrong: store, directories and processes must agree and nothing may be on its way.
func (w *world) broken() (wrong []string) {
	vms := w.list()
	w.mu.Lock()
	defer w.mu.Unlock()
	rows := map[banger.VMID]bool{}
	for _, vm := range vms {
		rows[vm.ID] = true
		r := w.runs[vm.ID]
		lives := r != nil && (r.supervisor || r.vmm)
		switch {
		case vm.State != banger.StateRunning && vm.State != banger.StateStopped && vm.State != banger.StateError:
			wrong = append(wrong, fmt.Sprintf("vm %s is %s for ever", vm.Spec.Name, vm.State))
		case vm.State == banger.StateRunning && (r == nil || !r.supervisor || !r.vmm):
			wrong = append(wrong, fmt.Sprintf("vm %s is running without processes", vm.Spec.Name))
		case vm.State != banger.StateRunning && lives:
			wrong = append(wrong, fmt.Sprintf("vm %s is %s with processes", vm.Spec.Name, vm.State))
		case !w.homes[vm.ID] && vm.State != banger.StateError: // with a reason: an undo that failed
			wrong = append(wrong, fmt.Sprintf("vm %s has no directory", vm.Spec.Name))
		}
		if id, err := machine.Peer(w.dir.Peers(), vm.Spec.Name); err == nil && id != vm.ID || err != nil && vm.State == banger.StateRunning {
			wrong = append(wrong, fmt.Sprintf("other VMs find %q by the name of %s, %s: %v", id, vm.ID, vm.Spec.Name, err))
		}
	}
	for id := range w.homes {
		if !rows[id] {
			wrong = append(wrong, fmt.Sprintf("directory %s has no record", id))
		}
	}
	for id, r := range w.runs {
		if !rows[id] && (r.supervisor || r.vmm) {
			wrong = append(wrong, fmt.Sprintf("processes of %s have no record", id))
		}
	}
	return wrong
}

// holder makes a living process.
func (w *world) holder(pid int) *proc.Handle {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holders[pid] = make(chan struct{})
	return &proc.Handle{PID: pid, StartTime: 1, BootID: "boot"}
}

func (w *world) exits(pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if done := w.holders[pid]; !isClosed(done) {
		close(done)
	}
}

func (w *world) gone(ctx context.Context, h proc.Handle) error {
	w.mu.Lock()
	done := w.holders[h.PID]
	w.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// faulted is the step that a planned fault has hit, "" before it has.
func (w *world) faulted() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lastOp
}

// freeze is what becomes of a crashed daemon's goroutines: they go no further.
func (w *world) freeze() {
	<-w.over
	runtime.Goexit()
}

// step is where faults happen: before an effect, when it is planned for.
func (d *daemon) step(op string) error {
	w := d.w
	if w.gate != nil && w.gate(d, op) {
		return fmt.Errorf("%s: %w", op, errPlanned)
	}
	w.mu.Lock()
	if d.dead {
		w.mu.Unlock()
		w.freeze()
	}
	n := w.steps
	w.steps++
	if n == w.failStep || n == w.crashAt {
		w.lastOp = op
	}
	if n == w.crashAt {
		d.dead = true
		close(w.crashed)
		w.mu.Unlock()
		w.freeze()
	}
	fail := n == w.failStep
	w.mu.Unlock()
	if w.onStep != nil {
		w.onStep(n)
	}
	if fail {
		return fmt.Errorf("%s: %w", op, errPlanned)
	}
	return nil
}

// effect is a step with an effect: it may fail or crash before, and crash behind.
func (d *daemon) effect(op string, fn func() error) error {
	if err := d.step(op); err != nil {
		return err
	}
	if err := d.alive(fn); err != nil {
		return err
	}
	d.w.mu.Lock()
	crash := d.w.crashAt >= 0
	d.w.mu.Unlock()
	switch {
	case crash:
		return d.step("after " + op)
	case d.w.gate != nil:
		d.w.gate(d, "after "+op)
	}
	return nil
}

// alive lets fn have its effect unless the daemon has crashed beside it since its step.
func (d *daemon) alive(fn func() error) error {
	d.w.mu.Lock()
	if d.dead {
		d.w.mu.Unlock()
		d.w.freeze()
	}
	defer d.w.mu.Unlock()
	return fn()
}

// hostClock is how far the host's wall clock is off, and since when it has been up.
type hostClock struct {
	mu      sync.Mutex // taken after world.mu
	wallOff time.Duration
	bootID  string
	booted  time.Time
}

func (c *hostClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Round(0).Add(c.wallOff)
}

func (c *hostClock) hostTime() (banger.HostTime, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return banger.HostTime{BootID: c.bootID, SinceBoot: time.Since(c.booted)}, nil
}

func (c *hostClock) setWall(off time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wallOff = off
}

// sleep is the host's: timers stand still meanwhile.
func (c *hostClock) sleep(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wallOff += d
	c.booted = c.booted.Add(-d)
}

// reboot begins another boot of the host. The wall clock is off afterwards.
func (c *hostClock) reboot(off time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wallOff, c.booted = off, time.Now()
	c.bootID += "+"
}

// check holds a record that was just stored against the host. w.mu is held.
func (d *daemon) check(vm banger.VM, was banger.VMState) {
	switch vm.State {
	case banger.StateStopped, banger.StateError:
		if d.w.lives(vm.ID) {
			d.w.t.Errorf("vm %s is stored as %s while its processes live", vm.Spec.Name, vm.State)
		}
	}
	if vm.State == banger.StateError && vm.LastError == "" {
		d.w.t.Errorf("vm %s is in error without a reason", vm.Spec.Name)
	}
	if vm.State != was {
		d.claimed("change to "+string(vm.State), vm.ID)
	}
}

// claimed tells of a change outside of every operation. While it recovers a daemon is alone.
func (d *daemon) claimed(op string, id banger.VMID) {
	if !d.open.Load() {
		return
	}
	d.manager.claims.mu.Lock()
	defer d.manager.claims.mu.Unlock()
	if d.manager.claims.held[id] == nil {
		d.w.t.Errorf("%s of %s without its claim", op, id)
	}
}

// lives tells whether a process of the VM does. w.mu is held.
func (w *world) lives(id banger.VMID) bool {
	r := w.runs[id]
	return r != nil && (r.supervisor || r.vmm)
}

type faultyStore struct {
	*store.Store
	d *daemon
}

func (s faultyStore) List(ctx context.Context) ([]banger.VM, error) {
	s.d.w.mu.Lock()
	s.d.w.lists++
	s.d.w.mu.Unlock()
	return s.Store.List(ctx)
}

func (s faultyStore) Reserve(ctx context.Context, vm banger.VM, h *proc.Handle) error {
	if err := s.d.step("store: reserve"); err != nil {
		return err
	}
	return s.d.alive(func() error { return s.Store.Reserve(ctx, vm, h) })
}

func (s faultyStore) Update(ctx context.Context, id banger.VMID, change func(*banger.VM) error) (banger.VM, error) {
	if err := s.d.step("store: update"); err != nil {
		vm, _ := s.Store.Get(ctx, string(id))
		return vm, err
	}
	var vm banger.VM
	err := s.d.alive(func() (err error) {
		var was banger.VMState
		vm, err = s.Store.Update(ctx, id, func(vm *banger.VM) error {
			was = vm.State
			return change(vm)
		})
		if err == nil {
			s.d.check(vm, was)
		}
		return err
	})
	return vm, err
}

func (s faultyStore) Delete(ctx context.Context, id banger.VMID) error {
	if err := s.d.step("store: delete"); err != nil {
		return err
	}
	return s.d.alive(func() error {
		if s.d.w.lives(id) {
			s.d.w.t.Errorf("record of %s removed while its processes live", id)
		}
		return s.Store.Delete(ctx, id)
	})
}

func (s faultyStore) Get(ctx context.Context, ref string) (banger.VM, error) {
	if err := s.d.step("store: get"); err != nil {
		return banger.VM{}, err
	}
	return s.Store.Get(ctx, ref)
}

func (s faultyStore) Changed() <-chan struct{} {
	defer s.d.w.waiters.Add(1)
	return s.Store.Changed()
}

func (s faultyStore) DeleteLease(ctx context.Context, id banger.VMID) error {
	if err := s.d.step("store: delete lease"); err != nil {
		return err
	}
	return s.d.alive(func() error { return s.Store.DeleteLease(ctx, id) })
}

func (d *daemon) Ensure(_ context.Context, name string, _ banger.ProgressFunc) (banger.Image, error) {
	if name != "debian" {
		return banger.Image{}, &banger.Error{Kind: banger.ErrNotFound, Op: "image", Subject: name}
	}
	return banger.Image{Name: name, Key: "key", Boot: banger.BootAgent}, d.step("image")
}

func (d *daemon) Get(key string) (banger.Image, error) {
	return banger.Image{Name: "debian", Key: key, Boot: banger.BootSystem}, d.step("image: get")
}

func (d *daemon) Resolve(ref string) (banger.Image, error) {
	if ref != "debian" {
		return banger.Image{}, &banger.Error{Kind: banger.ErrNotFound, Op: "image", Subject: ref}
	}
	return banger.Image{Name: ref, Key: "key"}, nil
}

type images struct{ *daemon }

func (i images) Delete(string) error { return i.step("image: delete") }

type kernels struct{ d *daemon }

func (k kernels) Ensure(_ context.Context, name string, _ banger.ProgressFunc) (banger.Kernel, error) {
	if name == "nosuch" {
		return banger.Kernel{}, &banger.Error{Kind: banger.ErrNotFound, Op: "kernel", Subject: name}
	}
	return banger.Kernel{Name: name}, k.d.step("kernel")
}

func (k kernels) Initrd(context.Context, banger.Kernel, string) (string, error) {
	return "/initrd", k.d.step("initrd")
}

func (k kernels) Delete(_ context.Context, name string) (banger.Kernel, error) {
	return banger.Kernel{Name: name}, k.d.step("kernel: delete")
}

type homes struct{ d *daemon }

func (h homes) Create(_ context.Context, home Home) error {
	return h.d.effect("home: create", func() error {
		if h.d.w.noSpace == nil {
			h.d.w.homes[home.ID], h.d.w.disks[home.ID] = true, home.DiskBytes
		}
		return h.d.w.noSpace
	})
}

func (h homes) Check(id banger.VMID) error {
	h.d.w.mu.Lock()
	defer h.d.w.mu.Unlock()
	if !h.d.w.homes[id] {
		return &banger.Error{Kind: banger.ErrCorrupt, Op: "disk", Subject: string(id)}
	}
	return nil
}

func (h homes) Grow(id banger.VMID, size int64) error {
	w := h.d.w
	w.mu.Lock()
	now := w.disks[id]
	w.mu.Unlock()
	if now == size {
		return nil
	}
	return h.d.effect("home: grow", func() error {
		if r := w.runs[id]; r != nil && (r.supervisor || r.vmm) || size < w.disks[id] {
			w.t.Errorf("disk of %s grows from %d to %d below living processes %+v", id, w.disks[id], size, r)
		}
		if w.noGrowth == nil {
			w.disks[id] = size
		}
		return w.noGrowth
	})
}

func (h homes) Remove(id banger.VMID) error {
	return h.d.effect("home: remove", func() error {
		h.d.claimed("removal", id)
		if h.d.w.lives(id) {
			h.d.w.t.Errorf("directory of %s removed below living processes", id)
		}
		delete(h.d.w.homes, id)
		return nil
	})
}

func (h homes) List() ([]banger.VMID, error) {
	h.d.w.mu.Lock()
	defer h.d.w.mu.Unlock()
	var ids []banger.VMID
	for id := range h.d.w.homes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

var errDamaged = &banger.Error{Kind: banger.ErrCorrupt, Op: "handles.json", Err: errors.New("damaged")}

var errNoAnswer = &banger.Error{Kind: banger.ErrUnavailable, Op: "machine", Err: errors.New("no answer")}

func (d *daemon) Launch(_ context.Context, cfg machine.Config) error {
	return d.effect("machine: launch", func() error {
		w := d.w
		d.claimed("launch", cfg.ID)
		if w.lives(cfg.ID) {
			w.t.Errorf("launch of %s beside living processes", cfg.ID)
		}
		if !w.homes[cfg.ID] {
			w.t.Errorf("launch of %s without a directory", cfg.ID)
		}
		r := &run{cfg: cfg, name: cfg.Name, net: cfg.Net, supervisor: true, vmm: true, lost: make(chan struct{}), ready: make(chan struct{}), ended: make(chan struct{})}
		w.runs[cfg.ID] = r
		switch {
		case w.boot != "":
			w.end(r, w.boot)
		case w.byHand.Load(): // a model says when
		case w.slow != nil:
			slow := w.slow
			go func() { <-slow; close(r.ready) }()
		default:
			close(r.ready)
		}
		return nil
	})
}

// end is the end of a run with a living supervisor: it writes the record and stays a while. w.mu is held.
func (w *world) end(r *run, cause banger.ExitCause) {
	select {
	case <-r.ended:
	default:
		r.vmm, r.record = false, true
		r.exit = banger.Exit{Cause: cause, Console: "last words", At: w.clock.now().UTC()}
		close(r.ended)
	}
}

// guestEnds ends a VM's run from inside.
func (w *world) guestEnds(id banger.VMID, cause banger.ExitCause) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end(w.runs[id], cause)
}

// killProcesses ends them without a record.
func (w *world) killProcesses(id banger.VMID, supervisor, vmm bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.runs[id]
	r.vmm = r.vmm && !vmm
	if supervisor && r.supervisor {
		r.supervisor = false
		close(r.lost)
	}
}

func (d *daemon) Relaunch(_ context.Context, id banger.VMID) error {
	return d.effect("machine: relaunch", func() error {
		r := d.w.runs[id]
		if r == nil {
			d.w.t.Errorf("relaunch of %s, which never ran", id)
			return errNoAnswer
		}
		d.claimed("relaunch", id)
		if r.supervisor {
			close(r.lost)
		}
		r.damaged = false
		r.supervisor, r.lost, r.starts, r.name, r.net = true, make(chan struct{}), r.starts+1, r.cfg.Name, r.cfg.Net
		if !r.vmm { // it died meanwhile
			d.w.end(r, banger.ExitUnknown)
		}
		return nil
	})
}

// serving gives a VM's run if its supervisor lives.
func (d *daemon) serving(op string, id banger.VMID) (*run, chan struct{}, error) {
	if err := d.step(op); err != nil {
		return nil, nil, err
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	r := d.w.runs[id]
	if r == nil || !r.supervisor {
		return nil, nil, errNoAnswer
	}
	return r, r.lost, nil
}

func (d *daemon) Status(_ context.Context, id banger.VMID) (machine.Status, error) {
	r, _, err := d.serving("machine: status", id)
	if err != nil {
		return machine.Status{}, err
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	return r.status(), nil
}

func (d *daemon) Signal(_ context.Context, id banger.VMID, sig syscall.Signal) error {
	r, _, err := d.serving("machine: signal", id)
	if err != nil {
		return err
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if sig == syscall.SIGTERM {
		d.w.end(r, banger.ExitKilled)
	}
	return nil
}

func (d *daemon) Rename(_ context.Context, id banger.VMID, name string) error {
	return d.effect("machine: rename", func() error {
		r := d.w.runs[id]
		if r == nil {
			return errNoAnswer
		}
		if r.cfg.Name = name; !r.supervisor {
			return errNoAnswer
		}
		r.name = name
		return nil
	})
}

func (d *daemon) Sync(_ context.Context, id banger.VMID, files []filesync.File) (transfer.Synced, error) {
	var synced transfer.Synced
	err := d.effect("machine: sync", func() error {
		r := d.w.runs[id]
		if !r.supervisor {
			return errNoAnswer
		}
		r.files, synced.Written = files, len(files)
		return nil
	})
	return synced, err
}

func (d *daemon) SetNet(_ context.Context, id banger.VMID, policy banger.NetPolicy) error {
	return d.effect("machine: set net", func() error {
		r := d.w.runs[id]
		if r.cfg.Net = policy; !r.supervisor {
			return errNoAnswer
		}
		r.net = policy
		return nil
	})
}

// status is what the supervisor tells. w.mu is held.
func (r *run) status() machine.Status {
	select {
	case <-r.ended:
		return machine.Status{Phase: machine.PhaseEnded, Accel: "tcg", Exit: &r.exit}
	default:
		return machine.Status{Name: r.name, Net: r.net, Phase: machine.PhaseReady, Accel: "tcg"}
	}
}

func (d *daemon) Ready(ctx context.Context, id banger.VMID) (machine.Status, error) {
	r, lost, err := d.serving("machine: ready", id)
	if err != nil {
		return machine.Status{}, err
	}
	select {
	case <-r.ready:
	case <-r.ended:
	case <-lost:
		return machine.Status{}, errNoAnswer
	case <-ctx.Done():
		return machine.Status{}, ctx.Err()
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	return r.status(), nil
}

func (d *daemon) Wait(ctx context.Context, id banger.VMID) (banger.Exit, error) {
	r, lost, err := d.serving("machine: wait", id)
	if err != nil {
		return banger.Exit{}, err
	}
	d.w.mu.Lock()
	r.watched = true
	d.w.mu.Unlock()
	select {
	case <-r.ended:
		return r.exit, nil
	case <-lost:
		return banger.Exit{}, errNoAnswer
	case <-ctx.Done():
		return banger.Exit{}, ctx.Err()
	}
}

func (d *daemon) Stats(_ context.Context, id banger.VMID) (machine.Stats, error) {
	r, _, err := d.serving("machine: stats", id)
	if err != nil {
		return machine.Stats{}, err
	}
	d.w.mu.Lock()
	measure := d.w.measure
	defer d.w.mu.Unlock()
	if measure != nil {
		return measure(id), nil
	}
	return r.use, nil
}

func (d *daemon) Shutdown(_ context.Context, id banger.VMID, timeout time.Duration) (banger.Exit, error) {
	r, lost, err := d.serving("machine: shutdown", id)
	if err != nil {
		return banger.Exit{}, err
	}
	d.w.mu.Lock()
	switch {
	case timeout == 0:
		d.w.end(r, banger.ExitKilled)
	case d.w.deaf:
		r.asked = true
		d.w.mu.Unlock()
		select {
		case <-r.ended:
		case <-lost:
			return banger.Exit{}, errNoAnswer
		}
		d.w.mu.Lock()
	default:
		d.w.end(r, banger.ExitPowerOff)
	}
	defer d.w.mu.Unlock()
	return r.exit, nil
}

func (d *daemon) Handles(id banger.VMID) (machine.Handles, bool, bool, error) {
	if err := d.step("machine: handles"); err != nil {
		return machine.Handles{}, false, false, err
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	r := d.w.runs[id]
	if r == nil {
		return machine.Handles{}, false, false, nil
	}
	return machine.Handles{Supervisor: proc.Handle{PID: 1}, VMM: proc.Handle{PID: 2}}, r.supervisor, r.vmm, nil
}

func (d *daemon) Damage(id banger.VMID) error {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if r := d.w.runs[id]; r != nil && r.damaged {
		return errDamaged
	}
	return nil
}

func (d *daemon) ExitRecord(id banger.VMID) (*banger.Exit, error) {
	if err := d.step("machine: exit record"); err != nil {
		return nil, err
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if r := d.w.runs[id]; r != nil && r.record {
		exit := r.exit
		return &exit, nil
	}
	return nil, nil
}

func (d *daemon) Finish(_ context.Context, id banger.VMID, _ time.Duration) error {
	return d.effect("machine: finish", func() error {
		r := d.w.runs[id]
		d.claimed("end", id)
		if r == nil {
			return nil
		}
		r.damaged = false
		if r.vmm {
			d.w.waited++
			r.vmm = false
			r.exit = banger.Exit{Cause: banger.ExitKilled, At: d.w.clock.now().UTC()}
			select {
			case <-r.ended:
			default:
				close(r.ended)
			}
		}
		if r.supervisor {
			r.supervisor = false
			close(r.lost)
		}
		return nil
	})
}
