package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/api"
	"banger/internal/catalog"
	"banger/internal/config"
	"banger/internal/daemon"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/lifecycle"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/store"
	"banger/internal/tree"
	"banger/internal/workspace"
)

const (
	// stopTimeout is what a guest gets to power off before it is killed.
	stopTimeout = 10 * time.Second
	// lockTimeout bounds the wait for a daemon that is ending.
	lockTimeout = 15 * time.Second
	// drainTimeout bounds how long requests may go on when the daemon ends.
	drainTimeout = 3 * time.Second
	// gcPercent trades a little time for a small heap: the daemon idles nearly always.
	gcPercent = 40
	// restAfter is how long nothing is to be done before unused memory goes back to the host: that takes longer than many an operation.
	restAfter = time.Second
)

// serve opens everything in order, tells that it is ready, and answers until ctx ends or a client asks for the end.
func (m *Main) serve(ctx context.Context) error {
	debug.SetGCPercent(gcPercent)
	unix.Umask(0o077)
	cfg, err := config.Load()
	if err != nil {
		return err
	}
	if err := m.dir.Ensure(); err != nil {
		return err
	}
	if err := m.lock(ctx); err != nil {
		return err
	}
	log, file, err := daemon.OpenLog(m.dir.DaemonLog())
	if err != nil {
		return banger.SpaceError(err, m.dir.Root)
	}
	m.onClose(func() { file.Close() })
	if m.ready != nil { // started by a client: a panic's words must not get lost
		if err := unix.Dup3(int(file.Fd()), unix.Stderr, 0); err != nil {
			return fmt.Errorf("redirect standard error: %w", err)
		}
	}
	if warning := m.dir.Warning(); warning != nil {
		log.Warn("the state directory", "warning", warning, "hint", banger.HintOf(warning))
	}
	if err := refuseLostDatabase(m.dir); err != nil {
		return err
	}
	db, err := store.Open(ctx, m.dir.Database())
	if err != nil {
		return err
	}
	m.onClose(func() { db.Close() })
	w, err := m.wire(log, db, cfg.Config)
	if err != nil {
		return err
	}
	if err := w.images.CleanUp(ctx); err != nil {
		log.Warn("remove leftovers of images", "err", err)
	}
	if err := w.kernels.CleanUp(); err != nil {
		log.Warn("remove leftovers of kernels", "err", err)
	}
	if err := w.saves.CleanUp(); err != nil {
		log.Warn("remove leftovers of autosaves", "err", err)
	}
	if _, err := w.saves.Prune(time.Now(), workspace.SavesKept, false, false); err != nil {
		log.Warn("remove old autosaves", "err", err)
	}
	if err := w.catalog.CleanUp(); err != nil {
		log.Warn("remove leftovers of bundles", "err", err)
	}
	m.onClose(w.vms.Close)
	if err := w.vms.Recover(ctx); err != nil {
		return err
	}
	w.ssh.Sync(ctx)
	names := &names{dir: m.dir, get: w.vms.Store.Get, log: log}
	names.serve()
	m.onClose(names.close)
	listener, err := m.listen()
	if err != nil {
		return err
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	server := daemon.New(daemon.Config{VMs: w.vms, Images: w.images, Kernels: w.kernels, Saves: w.saves, Shutdown: end, Identify: proc.HandleOf, Log: log,
		Catalog:  daemon.Catalog{Index: w.catalog.Index, BundleImage: w.images.Bundle, BundleKernel: w.kernels.Bundle},
		Status:   m.status(w, names, time.Now()),
		Settings: func(ctx context.Context) ([]banger.Setting, error) { return settings(cfg, w.vms.NewSizes(ctx)), nil }})
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener, os.Getuid()) }()
	log.Info("serving", "version", version, "pid", os.Getpid(), "socket", m.dir.DaemonSocket())
	m.tellReady()
	select {
	case err = <-served:
	case <-ctx.Done():
		log.Info("ending", "reason", context.Cause(ctx).Error())
		drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		server.Close(drain)
		err = <-served
	}
	return err
}

// refuseLostDatabase refuses to begin with an empty database where VMs are: without their records they would be taken for leftovers, and
// their disks removed.
func refuseLostDatabase(dir statedir.Dir) error {
	if info, err := os.Stat(dir.Database()); err == nil && info.Size() > 0 {
		return nil
	}
	vms, err := os.ReadDir(dir.VMs())
	if err != nil || len(vms) == 0 {
		return err
	}
	return &banger.Error{Kind: banger.ErrCorrupt, Op: "open the database", Subject: dir.Database(),
		Err:  fmt.Errorf("it is gone, but there are directories of %d VMs in %s", len(vms), dir.VMs()),
		Hint: "put it back; or, to begin anew, move " + dir.VMs() + " away: the disks of the VMs are in it"}
}

// lock makes this the only daemon of the state directory. One that is ending is waited for.
func (m *Main) lock(ctx context.Context) error {
	file, err := os.OpenFile(m.dir.DaemonLock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return banger.SpaceError(err, m.dir.Root)
	}
	m.onClose(func() { file.Close() })
	if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		return nil
	}
	if conn, err := net.Dial("unix", m.dir.DaemonSocket()); err == nil {
		conn.Close()
		return &banger.Error{Kind: banger.ErrConflict, Op: "start bangerd", Subject: m.dir.Root, Err: errors.New("another daemon serves this state directory")}
	}
	locked := make(chan error, 1)
	go func() { locked <- unix.Flock(int(file.Fd()), unix.LOCK_EX) }()
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	select {
	case err := <-locked:
		return err
	case <-ctx.Done():
		return &banger.Error{Kind: banger.ErrConflict, Op: "start bangerd", Subject: m.dir.Root, Err: errors.New("another daemon holds the lock and does not answer")}
	}
}

// listen makes the socket; the lock says that an old one is nobody's.
func (m *Main) listen() (*net.UnixListener, error) {
	path := m.dir.DaemonSocket()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}) // 0600 from birth: umask
	if err != nil {
		return nil, banger.SpaceError(err, m.dir.Root)
	}
	return listener, nil
}

// wiring is the concrete parts, connected.
type wiring struct {
	catalog *catalog.Catalog
	images  *image.Manager
	kernels *kernel.Manager
	vms     *lifecycle.Manager
	ssh     *lifecycle.SSHConfig
	saves   workspace.Saves
}

func (m *Main) wire(log *slog.Logger, db *store.Store, cfg config.Config) (wiring, error) {
	self, err := os.Executable()
	if err != nil {
		return wiring{}, err
	}
	beside := func(name string) string { return filepath.Join(filepath.Dir(self), name) }
	deadline, err := bootDeadline()
	if err != nil {
		return wiring{}, err
	}
	home, _ := os.UserHomeDir() // without one there is nothing to sync, and that is told then
	var host unix.Sysinfo_t
	if err := unix.Sysinfo(&host); err != nil {
		return wiring{}, fmt.Errorf("ask for the host's memory: %w", err)
	}
	memory := int64(uint64(host.Totalram) * uint64(host.Unit))
	var keys []ed25519.PublicKey
	for _, key := range cfg.Catalog.Keys {
		keys = append(keys, ed25519.PublicKey(key))
	}
	offered := catalog.New(catalog.Config{URL: cfg.Catalog.URL, Keys: keys, Seen: m.dir.CatalogSeen(), Cache: m.dir.Bundles()})
	w := wiring{
		catalog: offered,
		saves:   workspace.Saves{Dir: m.dir.Autosaves()},
		kernels: kernel.New(kernel.Config{Dir: m.dir, Mirror: cfg.Debian.Mirror, Proxy: cfg.Debian.Proxy, Keyring: cfg.Debian.Keyring, Catalog: offered}),
	}
	w.images = image.New(image.Config{Dir: m.dir, Mirror: cfg.Debian.Mirror, Proxy: cfg.Debian.Proxy, Keyring: cfg.Debian.Keyring, Order: cfg.Images.Order, Registry: cfg.Images.Registry,
		Limits:  tree.Limits{Entries: cfg.Images.MaxEntries, Bytes: int64(cfg.Images.MaxBytes)},
		Catalog: w.catalog, EnsureKernel: func(ctx context.Context, name string, progress banger.ProgressFunc) error {
			_, err := w.kernels.Ensure(ctx, name, progress)
			return err
		}})
	w.ssh = &lifecycle.SSHConfig{Store: db, Dir: m.dir, Program: beside("banger"), Log: log, User: func(vm banger.VM) string { return w.vms.User(vm) }}
	w.vms = lifecycle.New(lifecycle.Config{
		Dir: m.dir, Store: w.ssh, Images: w.images, Kernels: w.kernels, Log: log, Idle: freeLater(),
		Homes:    lifecycle.Directories{Dir: m.dir},
		Machines: lifecycle.Supervisors{Dir: m.dir, Program: beside("banger-machine")},
		Guest:    beside("banger-guest"),
		UserHome: home,
		Keep:     keeper{dir: m.dir, saves: w.saves}.keep,
		Probe:    newProber(m.dir, log, self).probe,
		Gone:     func(ctx context.Context, holder proc.Handle) error { return holder.Wait(ctx) },
		Defaults: lifecycle.Defaults{Image: cfg.Images.Default, Kernel: kernel.DefaultName, CPUs: runtime.NumCPU(),
			MemoryMiB: int(memory >> 20), MaxMemoryMiB: int(cfg.VM.MaxMemory.Of(memory) >> 20),
			New: lifecycle.Sizes{VCPU: cfg.VMDefaults.VCPU, MemoryMiB: int(cfg.VMDefaults.Memory >> 20), DiskBytes: int64(cfg.VMDefaults.DiskSize)}, StopIdle: time.Duration(cfg.VMDefaults.AutoStopIdle),
			PublishAll: cfg.Ports.Publish == config.PublishAll, BootDeadline: deadline, StopTimeout: stopTimeout, Net: cfg.VMDefaults.Net, Sync: cfg.FileSync},
	})
	return w, nil
}

// freeLater gives what is called at the end of the work: it gives unused memory back once nothing has followed for a while.
func freeLater() func() {
	timer := time.AfterFunc(restAfter, debug.FreeOSMemory)
	return func() { timer.Reset(restAfter) }
}

// bootDeadline is what the user sets in BANGER_BOOT_DEADLINE, 0 when unset.
func bootDeadline() (time.Duration, error) {
	text := os.Getenv("BANGER_BOOT_DEADLINE")
	if text == "" {
		return 0, nil
	}
	deadline, err := time.ParseDuration(text)
	if err != nil || deadline < time.Second {
		return 0, banger.Invalidf("BANGER_BOOT_DEADLINE %q: want a duration of at least 1s", text)
	}
	return deadline, nil
}

// settings are those of the configuration, with what a new VM gets where that is left to this computer.
func settings(cfg config.Loaded, sizes lifecycle.Sizes) []banger.Setting {
	list := cfg.Settings()
	for i := range list {
		s := &list[i]
		switch {
		case s.Key == "vm_defaults.vcpu" && cfg.VMDefaults.VCPU == 0:
			s.Value, s.From = strconv.Itoa(sizes.VCPU), config.FromHost
		case s.Key == "vm_defaults.memory" && cfg.VMDefaults.Memory == 0:
			s.Value, s.From = banger.FormatSize(int64(sizes.MemoryMiB)<<20), config.FromHost
		}
	}
	return list
}

func (m *Main) status(w wiring, names *names, started time.Time) func(context.Context) (api.Status, error) {
	return func(ctx context.Context) (api.Status, error) {
		status := api.Status{Version: version, API: api.Version, PID: os.Getpid(), StateDir: m.dir.Root, Socket: m.dir.DaemonSocket(),
			Log: m.dir.DaemonLog(), StartedAt: started.UTC(), Accel: w.vms.Accel(), Goroutines: runtime.NumGoroutine(),
			Build: banger.Build{Version: version, Commit: commit, Built: built}.Complete()}
		status.DNS, status.HTTP = names.addresses()
		vms, err := w.vms.List(ctx)
		if err != nil {
			return status, err
		}
		for _, vm := range vms {
			if vm.State == banger.StateRunning {
				status.Running++
			}
		}
		return status, nil
	}
}
