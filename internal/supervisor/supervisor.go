// Package supervisor runs one VM from its start to its end, inside banger-machine: it starts the VMM or takes one over
// whose supervisor died, keeps the console, tells the guest who it is, serves machine.sock and writes the exit record.
//
// supervisor.go is the order of a run, boot.go one VMM of it, takeover.go one whose supervisor died; guest.go signs in to the guest;
// server.go answers clients, shutdown.go ends the run; record.go writes what others read when we are gone.
package supervisor

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"banger"
	"banger/internal/channel"
	"banger/internal/machine"
	"banger/internal/netstack"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/vmm"
)

const (
	maxAttempts = 2
	// emulationFactor is how much longer a boot may take by emulation when it was to take KVM.
	emulationFactor = 4
	killTimeout     = 30 * time.Second
	// terminateTimeout is what the guest gets when the supervisor itself is told to end.
	terminateTimeout = 10 * time.Second
	drainTimeout     = 2 * time.Second
)

// Config wires a run.
type Config struct {
	Machine  machine.Config
	Driver   vmm.Driver
	Listener *net.UnixListener // machine.sock; the run closes it
	Log      *slog.Logger      // optional: discards
	// InitPatience is how long requests wait for the image's own init.
	InitPatience time.Duration // optional: [machine.InitPatience]
	// ClockChanges tells each time the host's clock is set, or goes on after a sleep, until ctx ends.
	ClockChanges func(ctx context.Context) (<-chan struct{}, error) // optional: the kernel's word
}

// Spec is the machine that a configuration asks for.
func Spec(cfg machine.Config) vmm.Spec {
	return vmm.Spec{
		ID: cfg.ID, Dir: cfg.Dir, Program: cfg.QEMU, Accel: vmm.Accelerator(cfg.Accel), TSCKHz: cfg.TSCKHz,
		VCPU: cfg.VCPU, MemoryMiB: cfg.MemoryMiB, Kernel: cfg.Vmlinux, Initrd: cfg.Initrd,
		// The kernel has AppArmor switched on, and Docker then fails in images without the program that loads its profiles.
		BootArgs: []string{"banger.boot=" + string(cfg.Boot), "apparmor=0"},
		Drives: []vmm.Drive{
			{Serial: banger.DriveBase, Path: cfg.Base, ReadOnly: true},
			{Serial: banger.DriveModules, Path: cfg.Modules, ReadOnly: true},
			{Serial: banger.DriveDisk, Path: cfg.Disk},
		},
		MTU: netstack.MTU,
	}
}

// Confinement is what a run needs beside what its driver needs. The network's sockets are the host's; its resolvers are in
// files that are replaced by others of their directories.
func Confinement(cfg machine.Config) proc.Confinement {
	c := proc.Confinement{ReadOnly: []string{"/proc", "/etc", "/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf"},
		ReadWrite: []string{cfg.Dir, os.DevNull}, Network: true}
	if cfg.Peers != "" {
		c.ReadWrite = append(c.ReadWrite, cfg.Peers)
	}
	return c
}

// run is one run of a VM.
type run struct {
	Config
	dir   statedir.VMDir
	keys  keys
	ring  *machine.Ring
	from  uint64 // where in the ring the last boot begins
	link  *link
	ports *ports

	network *network
	rest    func() // is told that something has ended for which memory was needed

	stop        context.Context // ends when the run is to end: nothing is started any more
	requestStop context.CancelFunc
	patience    context.Context // ends when a VMM that can't be taken over is to be killed
	giveUp      context.CancelFunc
	launched    chan struct{} // closed once boot is set
	settled     chan struct{} // closed once the guest is ready or the run has ended
	initUp      chan struct{} // closed once the image's init has come up
	ended       chan struct{} // closed once status.Exit is set and recorded
	settle      func()        // closes settled
	launch      func()        // closes launched
	markInit    func()        // closes initUp

	mu        sync.Mutex
	status    machine.Status
	handles   machine.Handles
	streams   machine.Streams
	signalled syscall.Signal // the last one that a client sent the VMM
	boot      *boot          // the newest
	readyAt   time.Time      // when the guest was ready, or taken over
}

// Run runs a VM until its end, which it records and returns. It takes over the VMM of a supervisor that died. The end of
// ctx shuts the VM down. An error means that nothing was started or touched.
func Run(ctx context.Context, cfg Config) (banger.Exit, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.ClockChanges == nil {
		cfg.ClockChanges = clockChanges
	}
	cfg.InitPatience = cmp.Or(cfg.InitPatience, machine.InitPatience)
	r := &run{Config: cfg, dir: statedir.VMDir{Path: cfg.Machine.Dir}, rest: FreeLater(), launched: make(chan struct{}), settled: make(chan struct{}), initUp: make(chan struct{}), ended: make(chan struct{})}
	defer cfg.Listener.Close()
	r.settle = sync.OnceFunc(func() { close(r.settled) })
	r.launch = sync.OnceFunc(func() { close(r.launched) })
	r.markInit = sync.OnceFunc(func() { close(r.initUp) })
	r.stop, r.requestStop = context.WithCancel(context.Background())
	defer r.requestStop()
	r.patience, r.giveUp = context.WithCancel(context.Background())
	defer r.giveUp()
	if err := r.prepare(); err != nil {
		return banger.Exit{}, &banger.Error{Op: "run vm", Subject: string(cfg.Machine.ID), Err: err}
	}
	defer context.AfterFunc(ctx, func() { r.shutdown(terminateTimeout) })()
	address := r.ports.begin(cfg.Machine.ID, cfg.Machine.Publish)
	r.mu.Lock()
	r.status.Address = address
	r.mu.Unlock()
	if cfg.Machine.PublishAll {
		go r.ports.keepOpen(r.stop, time.Tick(publishInterval))
	}
	server := r.serve()
	exit := r.live()
	r.end(exit)
	server.drain()
	return exit, nil
}

// prepare reads what the run needs and records this supervisor.
func (r *run) prepare() (err error) {
	if r.keys, err = readKeys(r.dir); err != nil {
		return err
	}
	if r.ring, err = machine.OpenRing(r.dir.ConsoleRing()); err != nil {
		return err
	}
	if r.network, err = openNetwork(r.dir.NetworkLog(), r.Machine, r.Log, r.rest); err != nil {
		return err
	}
	r.network.listen(r.Machine.Peers, r.Machine.ID)
	r.link = newLink(r.dir.GuestSocket(), r.keys)
	r.ports = newPorts(r.dir.GuestSocket(), r.awaitGuest, r.streaming, r.Log)
	if r.handles, err = readHandles(r.dir); err != nil {
		return err
	}
	if r.handles.Supervisor, err = proc.Self(); err != nil {
		return err
	}
	r.status = machine.Status{Name: r.Machine.Name, Net: r.Machine.Net.Or(banger.NetFull), Phase: machine.PhaseBooting, Accel: r.Machine.Accel, Attempts: max(1, r.handles.Attempt)}
	if r.Machine.Boot == banger.BootSystem {
		r.status.Init = machine.InitStarting
	}
	return machine.WriteHandles(r.dir, r.handles)
}

// live starts the VMM, again when that is worth a try, and returns when the last one has ended.
func (r *run) live() banger.Exit {
	spec, deadline := Spec(r.Machine), r.Machine.BootDeadline
	if r.handles.VMM.PID != 0 {
		return r.takeOver(spec, deadline)
	}
	for attempt := 1; ; attempt++ {
		r.begin(attempt, spec.Accel)
		exit := r.start(spec, deadline)
		again := exit.Cause == banger.ExitNoBoot || exit.Cause == banger.ExitCrash && spec.Accel == vmm.KVM
		if attempt == maxAttempts || r.stop.Err() != nil || r.wasReady() || !again {
			return exit
		}
		r.Log.Warn("the boot failed: one more", "cause", exit.Cause, "detail", exit.Detail)
		if spec.Accel == vmm.KVM {
			spec.Accel, deadline = vmm.TCG, emulationFactor*deadline
			r.say("KVM does not work here: booting by emulation, which is slow")
		}
		if spec.TSCKHz == 0 {
			spec.TSCKHz = vmm.TSCKHz()
		}
	}
}

// begin is an attempt in the status and on the console.
func (r *run) begin(attempt int, accel vmm.Accelerator) {
	r.mu.Lock()
	r.status.Attempts, r.status.Accel, r.status.Timings = attempt, string(accel), nil
	r.handles.Attempt = attempt
	r.mu.Unlock()
	r.link.emulated(accel == vmm.TCG)
	r.say(fmt.Sprintf("%s boot %d of vm %s (%s)", time.Now().UTC().Format(time.RFC3339), attempt, r.Machine.ID, accel))
	r.from = r.ring.Written()
}

// say writes a line of our own on the console.
func (r *run) say(text string) {
	if _, err := fmt.Fprintf(r.ring, "banger-machine: %s\r\n", text); err != nil {
		r.Log.Warn("write console ring", "err", err)
	}
}

// start boots the VM once and returns when its VMM has ended.
func (r *run) start(spec vmm.Spec, deadline time.Duration) banger.Exit {
	b, err := r.newBoot()
	if err != nil {
		return r.failed(err)
	}
	defer b.close()
	begun := time.Now()
	m, err := r.Driver.Start(r.stop, spec, r.recordVMM)
	if err != nil {
		return r.failed(err)
	}
	b.own(m)
	b.timed("start vmm", begun)
	r.set(b)
	return b.watch(deadline)
}

// set makes b what requests act upon. Who asks for the end waits for the first boot; a later one it may have missed.
func (r *run) set(b *boot) {
	r.mu.Lock()
	later := r.boot != nil
	r.boot = b
	r.mu.Unlock()
	r.launch()
	if later && r.stop.Err() != nil {
		b.kill()
	}
}

func (r *run) recordVMM(h proc.Handle) error {
	r.mu.Lock()
	r.handles.VMM, r.handles.Ready = h, false
	handles := r.handles
	r.mu.Unlock()
	return machine.WriteHandles(r.dir, handles)
}

// failed is the end of a run whose VMM did not start.
func (r *run) failed(err error) banger.Exit {
	if r.stop.Err() != nil {
		return r.exit(vmm.Exit{Cause: banger.ExitKilled, Detail: "the end was asked for before the VMM ran"})
	}
	return r.exit(vmm.Exit{Cause: banger.ExitCrash, Detail: escape(err.Error(), maxDetail)})
}

// exit adds what a record tells beside the VMM's end.
func (r *run) exit(e vmm.Exit) banger.Exit {
	tail, err := r.ring.Tail(r.from, maxTail)
	if err != nil {
		r.Log.Warn("read console ring", "err", err)
	}
	if e.Cause == banger.ExitReboot && !r.wasReady() && bytes.Contains(tail, []byte(panicLine)) {
		e = vmm.Exit{Cause: banger.ExitPanic, Detail: "the guest's kernel panicked"}
	}
	r.mu.Lock()
	signalled := r.signalled
	r.mu.Unlock()
	if e.Cause == banger.ExitCrash && signalled != 0 {
		e = vmm.Exit{Cause: banger.ExitKilled, Detail: fmt.Sprintf("the VMM was sent signal %d (%s)", int(signalled), signalled)}
	}
	return banger.Exit{Cause: e.Cause, Detail: e.Detail, Console: lastLines(tail), At: time.Now().UTC()}
}

// panicLine is what a kernel prints that panics. Before the guest has loaded the driver of the panic device, which it has
// when it is ready, a panic looks like a reboot otherwise.
const panicLine = "Kernel panic - not syncing"

// end records the end and tells it to who waits.
func (r *run) end(exit banger.Exit) {
	r.requestStop()
	r.link.close()
	r.ports.close()
	r.network.close()
	if err := writeJSON(r.dir.ExitRecord(), exit); err != nil {
		r.Log.Error("record the end", "err", err)
	}
	r.Log.Info("ended", "cause", exit.Cause, "detail", exit.Detail)
	r.mu.Lock()
	r.status.Phase, r.status.Exit = machine.PhaseEnded, &exit
	r.mu.Unlock()
	close(r.ended)
	r.settle()
	r.ring.Close()
}

func (r *run) wasReady() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.boot != nil && r.boot.isReady()
}

func (r *run) snapshot() machine.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// markReady is the guest's word that it serves.
func (r *run) markReady(hello channel.Hello, timings []banger.Timing) {
	r.mu.Lock()
	r.status.BootID = escape(hello.BootID, maxName)
	r.status.Timings = timings
	r.readyAt = time.Now()
	if r.status.Phase == machine.PhaseBooting {
		r.status.Phase = machine.PhaseReady
	}
	r.mu.Unlock()
	r.settle()
}

// initState is what the image's init says of itself.
func (r *run) initState(state string) {
	r.mu.Lock()
	r.status.Init = state
	r.mu.Unlock()
	r.markInit()
}

// recordReady lets a later supervisor know that the guest was ready.
func (r *run) recordReady() {
	r.mu.Lock()
	r.handles.Ready = true
	handles := r.handles
	r.mu.Unlock()
	if err := machine.WriteHandles(r.dir, handles); err != nil {
		r.Log.Warn("record that the guest is ready", "err", err)
	}
}

func (r *run) identity() channel.Identify {
	entropy := make([]byte, 32)
	_, _ = rand.Read(entropy) // never fails: crypto/rand
	return channel.Identify{HostName: r.snapshot().Name, HostKey: r.keys.hostPrivate, UserKeys: []string{r.keys.userPublic},
		Clock: time.Now(), Entropy: entropy, Env: r.Machine.Env, User: r.Machine.User, Locale: r.Machine.Locale, CA: r.Machine.CA, Network: guestNetwork(r.Machine.ID)}
}
