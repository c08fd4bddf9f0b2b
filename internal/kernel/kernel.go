// Package kernel keeps the kernels that guests boot: vmlinux, all modules as one file system, and the initrd made of a few of
// them and the guest's program.
//
// A kernel is made in a staging directory from a distribution's package and appears by rename; nothing of it changes afterwards
// but the cached initrds. fetch.go gets the package, by apt.go or from Debian's archive, unpack.go and vmlinux.go take it apart, module.go, index.go and trie.go do
// what depmod does, initrd.go makes initrds.
package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"banger"
	published "banger/internal/catalog"
	"banger/internal/share"
	"banger/internal/statedir"
)

// DefaultName is the kernel that Ensure can make by itself: Debian's for virtual machines.
const DefaultName = "debian-cloud"

// format is the version of a kernel's directory; a manifest of another is refused.
const format = 1

// Config wires a Manager.
type Config struct {
	Dir     statedir.Dir
	Mirror  string           // URL of the mirror that the default kernel comes from where there is no apt; empty: Debian's own
	Proxy   string           // URL of the proxy to it; empty: the environment's
	Keyring string           // file of the public keys that sign it; empty: Debian's
	Now     func() time.Time // optional: time.Now

	Catalog *published.Catalog // optional
}

// Manager makes and finds the kernels of one state directory.
type Manager struct {
	Config
	fetches     share.Group[banger.Kernel] // by name
	hostRoot    string                     // of the files of this computer
	hostRelease func() (string, error)

	mu      sync.Mutex
	claims  map[string]chan struct{} // closed when the claim on this kernel or initrd ends
	digests map[string]guestDigest   // of guest programs, by path
}

// New makes a Manager. It does no I/O.
func New(cfg Config) *Manager {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Manager{Config: cfg, hostRoot: "/", hostRelease: runningRelease, claims: map[string]chan struct{}{}, digests: map[string]guestDigest{}}
}

// manifest is kernel.json.
type manifest struct {
	Format int `json:"format"`
	banger.Kernel
	BootModules []string `json:"boot_modules"` // names, in load order
}

// Ensure gives the kernel of that name. One that is not there comes from the catalog, and DefaultName, when it does not come from there, is
// fetched, as stage "kernel"; callers share one doing, which ends early when all of them have left.
// Errors: ErrNotFound for an unknown name; ErrUnavailable without mirror or disk space, ErrRefused for a mirror that is not signed
// as it has to be. Nothing is left behind then.
func (m *Manager) Ensure(ctx context.Context, name string, progress banger.ProgressFunc) (banger.Kernel, error) {
	kernel, err := m.Get(name)
	if !errors.Is(err, banger.ErrNotFound) || name != DefaultName && !m.Catalog.Configured() || banger.ValidateKernelName(name) != nil {
		return kernel, err
	}
	op := "fetch kernel " + name
	return m.fetches.Do(ctx, op, name, progress, func(ctx context.Context, progress banger.ProgressFunc) (banger.Kernel, error) {
		end := progress.Begin("kernel", stageText(name))
		release, err := m.claim(ctx, name)
		if err != nil {
			return banger.Kernel{}, fmt.Errorf("wait for kernel %s: %w", name, err)
		}
		defer release()
		kernel, err := m.Get(name)
		if errors.Is(err, banger.ErrNotFound) { // else somebody has just made it
			kernel, err = m.obtain(ctx, name, progress)
		}
		if err != nil {
			return banger.Kernel{}, &banger.Error{Op: op, Err: err}
		}
		end()
		return kernel, nil
	})
}

func stageText(name string) string { return "fetching kernel " + name }

// claim waits until nobody else works on key.
func (m *Manager) claim(ctx context.Context, key string) (release func(), err error) {
	for {
		m.mu.Lock()
		claimed, taken := m.claims[key]
		if !taken {
			claimed = make(chan struct{})
			m.claims[key] = claimed
			m.mu.Unlock()
			return func() {
				m.mu.Lock()
				delete(m.claims, key)
				m.mu.Unlock()
				close(claimed)
			}, nil
		}
		m.mu.Unlock()
		select {
		case <-claimed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Get gives the kernel of that name. Errors: ErrNotFound; ErrCorrupt for a damaged directory; ErrUnsupported for one of another
// version of banger.
func (m *Manager) Get(name string) (banger.Kernel, error) {
	found, err := m.read(name)
	return found.Kernel, err
}

func (m *Manager) read(name string) (manifest, error) {
	if banger.ValidateKernelName(name) != nil {
		return manifest{}, m.unknown(name)
	}
	dir := m.Dir.Kernel(name)
	text, err := os.ReadFile(dir.Manifest())
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(dir.Path); errors.Is(err, fs.ErrNotExist) {
			return manifest{}, m.unknown(name)
		}
	}
	fail := func(kind, err error) (manifest, error) {
		return manifest{}, &banger.Error{Kind: kind, Op: "kernel", Subject: name, Err: err,
			Hint: "remove " + dir.Path + " to have it made anew"}
	}
	if err != nil {
		return fail(banger.ErrCorrupt, err)
	}
	var found manifest
	if err := json.Unmarshal(text, &found); err != nil {
		return fail(banger.ErrCorrupt, fmt.Errorf("kernel.json: %w", err))
	}
	if found.Format != format {
		return fail(banger.ErrUnsupported, fmt.Errorf("its directory has format %d, this banger knows %d", found.Format, format))
	}
	if found.Name != name {
		return fail(banger.ErrCorrupt, fmt.Errorf("kernel.json is of %.80q", found.Name))
	}
	size, err := sizeOf(dir)
	if err != nil {
		return fail(banger.ErrCorrupt, err)
	}
	if size != found.SizeBytes {
		return fail(banger.ErrCorrupt, fmt.Errorf("vmlinux and modules.ext4 have %d bytes, want %d", size, found.SizeBytes))
	}
	return found, nil
}

// sizeOf gives the size of vmlinux and modules together.
func sizeOf(dir statedir.KernelDir) (total int64, err error) {
	for _, path := range []string{dir.Vmlinux(), dir.Modules()} {
		info, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		total += info.Size()
	}
	return total, nil
}

func (m *Manager) unknown(name string) error {
	names := []string{DefaultName}
	if kernels, err := m.List(); err == nil {
		for _, k := range kernels {
			names = append(names, k.Name)
		}
	}
	slices.Sort(names)
	hint := banger.DidYouMean(name, slices.Compact(names))
	if name == DefaultName {
		hint = "it has not been fetched yet: banger kernel pull " + name
	}
	return &banger.Error{Kind: banger.ErrNotFound, Op: "kernel", Subject: fmt.Sprintf("%q", name), Hint: hint}
}

// List gives every kernel by name. A damaged one is left out: whoever needs it is told.
func (m *Manager) List() ([]banger.Kernel, error) {
	entries, err := os.ReadDir(m.Dir.Kernels())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list kernels: %w", err)
	}
	kernels := []banger.Kernel{}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		if found, err := m.read(entry.Name()); err == nil {
			kernels = append(kernels, found.Kernel)
		}
	}
	return kernels, nil
}

// CleanUp removes what was left behind when banger was cut off. No Ensure or Initrd may run.
func (m *Manager) CleanUp() error {
	var errs []error
	for _, pattern := range []string{".*", "*/.*"} { // staging directories; initrds that were being written
		left, err := filepath.Glob(filepath.Join(m.Dir.Kernels(), pattern))
		errs = append(errs, err)
		for _, path := range left {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	return errors.Join(errs...)
}
