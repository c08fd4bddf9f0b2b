package script

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"banger"
	"banger/api"
	"banger/internal/config"
	"banger/internal/daemon"
	"banger/internal/filesync"
	"banger/internal/lifecycle"
	"banger/internal/machine"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/store"
	"banger/internal/transfer"
)

// world is one daemon on its socket.
type world struct {
	dir     statedir.Dir
	db      *store.Store
	manager *lifecycle.Manager
	server  *daemon.Server
	opened  time.Time
	log     *os.File
	slow    chan struct{} // closed: what has "slow" for its image goes on

	mu   sync.Mutex
	runs map[banger.VMID]*run
}

func newWorld(root, home string) (*world, error) {
	w := &world{dir: statedir.Dir{Root: root}, runs: map[banger.VMID]*run{}, opened: time.Now(), slow: make(chan struct{})}
	if err := w.dir.Ensure(); err != nil {
		return nil, err
	}
	ctx := context.Background()
	var err error
	if w.db, err = store.Open(ctx, w.dir.Database()); err != nil {
		return nil, err
	}
	log, file, err := daemon.OpenLog(w.dir.DaemonLog())
	if err != nil {
		return nil, err
	}
	w.log = file
	records := &lifecycle.SSHConfig{Store: w.db, Dir: w.dir, Program: "/opt/banger", Log: log, User: func(vm banger.VM) string { return w.manager.User(vm) }}
	w.manager = lifecycle.New(lifecycle.Config{Dir: w.dir, Log: log, Store: records, Images: images{w.slow, w.base()}, Kernels: kernels{}, Homes: homes{w.dir}, Machines: machines{w},
		Guest:    "/guest",
		UserHome: home,
		Defaults: lifecycle.Defaults{Image: imageName, Kernel: "debian", CPUs: 8, MemoryMiB: 16384, MaxMemoryMiB: 16384 * 8 / 10, BootDeadline: time.Minute, StopTimeout: 5 * time.Second},
		Probe: func(context.Context) (lifecycle.VMM, error) {
			return lifecycle.VMM{Program: "/qemu", Accel: "tcg"}, nil
		},
		Gone: func(ctx context.Context, _ proc.Handle) error { <-ctx.Done(); return ctx.Err() },
	})
	if err := w.manager.Recover(ctx); err != nil {
		return nil, err
	}
	w.server = daemon.New(daemon.Config{VMs: w.manager, Log: log,
		Images:  images{w.slow, w.base()},
		Kernels: kernels{},
		Catalog: daemon.Catalog{Index: catalogIndex, BundleImage: bundleImage, BundleKernel: bundleKernel},
		Status: func(context.Context) (api.Status, error) {
			return api.Status{Version: "v0", PID: os.Getpid(), StateDir: root, Accel: w.manager.Accel()}, nil
		},
		Settings: func(context.Context) ([]banger.Setting, error) {
			settings := config.Loaded{Config: config.Default()}
			return settings.Settings(), nil
		},
		Shutdown: func() {},
		Identify: func(pid int) (proc.Handle, error) { return proc.Handle{PID: pid}, nil },
	})
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.dir.DaemonSocket(), Net: "unix"})
	if err != nil {
		return nil, err
	}
	go w.server.Serve(l, os.Getuid())
	return w, nil
}

func (w *world) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	w.server.Close(ctx)
	w.manager.Close()
	w.db.Close()
	w.log.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.runs {
		r.end(banger.ExitKilled, "")
	}
}

// crash ends the VMM of a VM as if it had died.
func (w *world) crash(name string) error {
	vm, err := w.db.Get(context.Background(), name)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs[vm.ID].end(banger.ExitCrash, "signal: killed")
	return nil
}

const imageName = "debian-bookworm-slim"

var (
	image = banger.Image{Name: imageName, Key: strings.Repeat("5eed", 16), Boot: banger.BootAgent, SizeBytes: 200 << 20, Source: "packages debian:bookworm",
		CreatedAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	kernel = banger.Kernel{Name: "debian", Version: "6.1.0-1-cloud-amd64", SizeBytes: 80 << 20, Source: "linux-image-cloud-amd64", CreatedAt: image.CreatedAt,
		VmlinuxSHA: strings.Repeat("c0de", 16), VmlinuxBytes: 50 << 20, ModuleCount: 1234, Features: []banger.KernelFeature{
			{Name: "overlay", State: banger.FeatureModule, Required: true}, {Name: "fuse", State: banger.FeatureMissing}, {Name: "tun", State: banger.FeatureUnknown}}}
)

type images struct {
	slow <-chan struct{}
	base string // a file that is there once a VM with files was made
}

// await waits when the image, or the VM, is a slow one.
func (i images) await(ctx context.Context, ref string) error {
	if ref != "slow" {
		return nil
	}
	select {
	case <-i.slow:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (i images) Ensure(ctx context.Context, name string, progress banger.ProgressFunc) (banger.Image, error) {
	defer progress.Begin("image", "image "+name)()
	if err := i.await(ctx, name); err != nil || name == "slow" {
		return image, err
	}
	if name != imageName {
		return banger.Image{}, &banger.Error{Kind: banger.ErrNotFound, Op: "image", Subject: name, Hint: banger.DidYouMean(name, []string{imageName})}
	}
	return image, nil
}

func (images) Get(string) (banger.Image, error) { return image, nil }

func (images) List() ([]banger.Image, error) { return []banger.Image{image}, nil }

func (images) Resolve(ref string) (banger.Image, error) {
	if ref != imageName && !strings.HasPrefix(image.Key, ref) {
		return banger.Image{}, &banger.Error{Kind: banger.ErrNotFound, Op: "image", Subject: ref, Hint: banger.DidYouMean(ref, []string{imageName})}
	}
	return image, nil
}

func (images) Delete(string) error { return nil }

func (images) Build(_ context.Context, req api.BuildRequest, progress banger.ProgressFunc) (banger.Image, error) {
	defer progress.Begin("image", "building image "+req.Name)()
	if req.From == "debian:nosuch" {
		return banger.Image{}, banger.Invalidf("from %q", req.From)
	}
	return banger.Image{Name: req.Name, Key: image.Key, Boot: req.Boot, Kernel: req.Kernel, Missing: []string{"/usr/bin/extra"},
		Source: fmt.Sprintf("%s %q %d", req.From, req.Packages, len(req.Definition))}, nil
}

func (i images) Pull(ctx context.Context, req api.PullRequest, progress banger.ProgressFunc) (banger.Image, error) {
	defer progress.Begin("image", "pulling image "+req.Ref)()
	if err := i.await(ctx, req.Ref); err != nil {
		return banger.Image{}, err
	}
	return banger.Image{Name: cmp.Or(req.Name, req.Ref), Key: image.Key, Boot: req.Boot, Kernel: req.Kernel, Source: req.Ref}, nil
}

func (images) Import(_ context.Context, req api.ImportRequest, progress banger.ProgressFunc) (banger.Image, error) {
	defer progress.Begin("image", "importing image "+req.Name)()
	content, err := os.ReadFile(req.Path)
	return banger.Image{Name: req.Name, Key: image.Key, Boot: req.Boot, Kernel: req.Kernel, Source: fmt.Sprintf("%d bytes", len(content))}, err
}

// homes are real directories, of which those of VMs named "files" have a disk.
type homes struct{ dir statedir.Dir }

func (h homes) Create(ctx context.Context, home lifecycle.Home) error {
	dir := h.dir.VM(home.ID)
	if err := os.Mkdir(dir.Path, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(dir.KnownHosts(), nil, 0o600); err != nil || home.Name != "files" {
		return err
	}
	return makeFiles(ctx, h.dir, home)
}
func (h homes) Check(id banger.VMID) error  { _, err := os.Stat(h.dir.VM(id).Path); return err }
func (homes) Grow(banger.VMID, int64) error { return nil }
func (h homes) Remove(id banger.VMID) error { return os.RemoveAll(h.dir.VM(id).Path) }

func (h homes) List() (ids []banger.VMID, err error) {
	entries, err := os.ReadDir(h.dir.VMs())
	for _, e := range entries {
		ids = append(ids, banger.VMID(e.Name()))
	}
	return ids, err
}

// run is one run of a VM.
type run struct {
	cfg   machine.Config
	l     *net.UnixListener
	ring  *machine.Ring
	ended chan struct{}
	once  sync.Once
	exit  banger.Exit // once ended
	name  atomic.Value
}

func (r *run) end(cause banger.ExitCause, detail string) {
	r.once.Do(func() {
		r.exit = banger.Exit{Cause: cause, Detail: detail, At: time.Now().UTC()}
		r.l.Close()
		r.ring.Close()
		close(r.ended)
	})
}

func (r *run) status() machine.Status {
	name, _ := r.name.Load().(string)
	s := machine.Status{Name: cmp.Or(name, r.cfg.Name), Phase: machine.PhaseReady, Accel: r.cfg.Accel, Attempts: 1, Timings: []banger.Timing{
		{Side: "host", Step: "start vmm", Elapsed: 12 * time.Millisecond}, {Side: "guest", Step: "mount", Elapsed: 34 * time.Millisecond}}}
	select {
	case <-r.ended:
		s.Phase, s.Exit = machine.PhaseEnded, &r.exit
	default:
	}
	return s
}

// machines are the supervisors of all runs.
type machines struct{ *world }

var errNoRun = &banger.Error{Kind: banger.ErrUnavailable, Err: errors.New("no supervisor answers")}

func (m machines) get(id banger.VMID) (*run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.runs[id]; r != nil {
		return r, nil
	}
	return nil, errNoRun
}

func (m machines) Launch(_ context.Context, cfg machine.Config) error {
	socket := m.dir.VM(cfg.ID).MachineSocket()
	ring, err := machine.OpenRing(m.dir.VM(cfg.ID).ConsoleRing())
	if err != nil {
		return err
	}
	l, err := machine.Listen(socket)
	if err != nil {
		return err
	}
	r := &run{cfg: cfg, ring: ring, l: l, ended: make(chan struct{})}
	m.mu.Lock()
	m.runs[cfg.ID] = r
	m.mu.Unlock()
	go r.serve()
	return nil
}

func (m machines) Relaunch(context.Context, banger.VMID) error { return errNoRun }

func (m machines) Status(_ context.Context, id banger.VMID) (machine.Status, error) {
	r, err := m.get(id)
	if err != nil {
		return machine.Status{}, err
	}
	return r.status(), nil
}

func (m machines) Ready(ctx context.Context, id banger.VMID) (machine.Status, error) {
	if r, err := m.get(id); err == nil {
		if err := (images{slow: m.slow}).await(ctx, r.cfg.Name); err != nil {
			return machine.Status{}, err
		}
	}
	return m.Status(ctx, id)
}

func (m machines) Wait(ctx context.Context, id banger.VMID) (banger.Exit, error) {
	r, err := m.get(id)
	if err != nil {
		return banger.Exit{}, err
	}
	select {
	case <-r.ended:
		return r.exit, nil
	case <-ctx.Done():
		return banger.Exit{}, ctx.Err()
	}
}

// Stats is of a guest that keeps half a processor busy.
func (m machines) Stats(_ context.Context, id banger.VMID) (machine.Stats, error) {
	if _, err := m.get(id); err != nil {
		return machine.Stats{}, err
	}
	clock := time.Since(m.opened)
	return machine.Stats{VMM: &banger.ProcessUsage{CPU: clock / 2, ResidentBytes: 300 << 20, Clock: clock}, Machine: banger.ProcessUsage{ResidentBytes: 9 << 20, Clock: clock},
		Streams: machine.Streams{Open: 3, Begun: 5}, Net: banger.NetTraffic{SentBytes: 1536, ReceivedBytes: 7 << 20}}, nil
}

func (m machines) Shutdown(_ context.Context, id banger.VMID, timeout time.Duration) (banger.Exit, error) {
	r, err := m.get(id)
	if err != nil {
		return banger.Exit{}, err
	}
	if timeout > 0 {
		r.end(banger.ExitPowerOff, "")
	}
	r.end(banger.ExitKilled, "")
	return r.exit, nil
}

func (m machines) Signal(_ context.Context, id banger.VMID, sig syscall.Signal) error {
	r, err := m.get(id)
	if err == nil {
		r.end(banger.ExitKilled, "signal: "+sig.String())
	}
	return err
}

func (m machines) SetNet(_ context.Context, id banger.VMID, policy banger.NetPolicy) error {
	_, err := m.get(id)
	return err
}

// Sync stands for a guest whose user has changed ~/.kept and made a link of ~/.link.
func (m machines) Sync(_ context.Context, id banger.VMID, files []filesync.File) (synced transfer.Synced, err error) {
	for _, f := range files {
		switch f.Guest {
		case "/root/.kept":
			synced.Kept = append(synced.Kept, transfer.SyncedFile{Path: "root/.kept", Note: ".kept.banger-old"})
		case "/root/.link":
			synced.Left = append(synced.Left, transfer.SyncedFile{Path: "root/.link", Note: "a \x1b[31mlink"})
		}
	}
	_, err = m.get(id)
	return synced, err
}

func (m machines) Rename(_ context.Context, id banger.VMID, name string) error {
	r, err := m.get(id)
	if err == nil {
		r.name.Store(name)
	}
	return err
}

func (m machines) Handles(id banger.VMID) (h machine.Handles, supervisor, vmm bool, err error) {
	r, err := m.get(id)
	if err != nil {
		return h, false, false, nil
	}
	h = machine.Handles{Supervisor: proc.Handle{PID: 1001}, VMM: proc.Handle{PID: 1002}}
	alive := r.status().Phase == machine.PhaseReady
	return h, alive, alive, nil
}

func (m machines) Damage(banger.VMID) error { return nil }

func (m machines) ExitRecord(id banger.VMID) (*banger.Exit, error) {
	r, err := m.get(id)
	if err != nil || r.status().Exit == nil {
		return nil, nil
	}
	return &r.exit, nil
}

func (m machines) Finish(_ context.Context, id banger.VMID, _ time.Duration) error {
	if r, err := m.get(id); err == nil {
		r.end(banger.ExitKilled, "")
	}
	return nil
}
