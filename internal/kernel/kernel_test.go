package kernel

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/internal/statedir"
)

const (
	showMeta   = "Package: linux-image-cloud-amd64\nVersion: 6.1-1\nDepends: linux-image-6.1.0-test (= 6.1-1), kmod | module-init-tools\n"
	showKernel = "Package: linux-image-6.1.0-test\nVersion: 6.1-1\nSize: 1000\n"
)

// newManager makes a manager whose apt tools are shell scripts. Empty: the tool is missing.
func newManager(t *testing.T, aptCache, aptGet string) *Manager {
	t.Helper()
	bin := t.TempDir()
	for name, script := range map[string]string{"apt-cache": aptCache, "apt-get": aptGet} {
		if script == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"cp", "cat", "sleep", "touch"} { // what the scripts need, and no real apt
		if err := os.Symlink(filepath.Join("/bin", name), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	m := New(Config{Dir: statedir.Dir{Root: filepath.Join(t.TempDir(), "s")}, Mirror: "http://127.0.0.1:1/debian"}) // where nobody listens
	if err := m.Dir.Ensure(); err != nil {
		t.Fatal(err)
	}
	return m
}

// withPackage is a manager whose apt gives one package.
func withPackage(t *testing.T, files map[string][]byte) *Manager {
	t.Helper()
	deb := debPackage(t, filepath.Join(t.TempDir(), "linux-image-6.1.0-test_6.1-1_amd64.deb"), files)
	return newManager(t, aptCacheScript, `test "$*" = "download -qq -o APT::Status-Fd=1 linux-image-6.1.0-test=6.1-1" || exit 9
echo dlstatus:1:0.0000:Retrieving; echo pmstatus; echo dlstatus:1:50.0000:Retrieving; cp `+deb+` .`)
}

const aptCacheScript = `case "$3" in
linux-image-cloud-amd64) cat <<END
` + showMeta + `END
;;
linux-image-6.1.0-test=6.1-1) cat <<END
` + showKernel + `END
;;
*) exit 9
esac`

// wantNothing checks that the directory of kernels is empty.
func wantNothing(t *testing.T, m *Manager) {
	t.Helper()
	if entries, err := os.ReadDir(m.Dir.Kernels()); err != nil || len(entries) > 0 {
		t.Errorf("left in kernels: %v, %v", entries, err)
	}
}

func TestEnsure(t *testing.T) {
	m := withPackage(t, packageFiles(t))
	var events []banger.Progress
	kernel, err := m.Ensure(t.Context(), DefaultName, func(p banger.Progress) { events = append(events, p) })
	if err != nil {
		t.Fatal(err)
	}
	if kernel.Name != DefaultName || kernel.Version != "6.1.0-test" || kernel.Source != "linux-image-6.1.0-test 6.1-1" || len(kernel.VmlinuxSHA) != 64 {
		t.Errorf("Ensure = %+v", kernel)
	}
	dir := m.Dir.Kernel(DefaultName)
	if vmlinux, err := os.ReadFile(dir.Vmlinux()); err != nil || !bytes.Equal(vmlinux, elfKernel(t, pvhNotes(t), 1<<16)) {
		t.Errorf("vmlinux: %d bytes, %v", len(vmlinux), err)
	}
	for _, path := range []string{dir.Vmlinux(), dir.Modules(), bootModule(dir.BootModules(), "virtio_blk")} {
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o444 {
			t.Errorf("%s: %v, %v, want mode 0444", path, info, err)
		}
	}
	entries, err := os.ReadDir(dir.Path)
	if err != nil || len(entries) != 4 {
		t.Errorf("the kernel's directory has %v, %v, want 4 entries", entries, err)
	}
	if len(events) < 5 || !events[len(events)-1].Done || !slices.ContainsFunc(events, func(p banger.Progress) bool {
		return p.Detail == "downloading" && p.Bytes == 500 && p.Total == 1000
	}) {
		t.Errorf("progress: %+v", events)
	}
	for _, p := range events {
		if p.Stage != "kernel" || p.Text == "" {
			t.Errorf("progress %+v has another stage or no text", p)
		}
	}
	events = nil
	again, err := m.Ensure(t.Context(), DefaultName, func(p banger.Progress) { events = append(events, p) })
	if err != nil || !cmp.Equal(again, kernel) || events != nil {
		t.Errorf("second Ensure = %+v, %v with progress %v, want the same in silence", again, err, events)
	}
	if list, err := m.List(); err != nil || len(list) != 1 || !cmp.Equal(list[0], kernel) {
		t.Errorf("List = %+v, %v", list, err)
	}
}

func TestEnsureFails(t *testing.T) {
	change := func(remove string, name string, content []byte) map[string][]byte {
		files := packageFiles(t)
		delete(files, remove)
		if name != "" {
			files[name] = content
		}
		return files
	}
	scripts := func(aptCache, aptGet string) func(*testing.T) *Manager {
		return func(t *testing.T) *Manager { return newManager(t, aptCache, aptGet) }
	}
	pkg := func(files map[string][]byte) func(*testing.T) *Manager {
		return func(t *testing.T) *Manager { return withPackage(t, files) }
	}
	const modules = "lib/modules/6.1.0-test/"
	for _, tc := range []struct {
		what string
		m    func(*testing.T) *Manager
		want error
		text string // in message and hint
	}{
		{"no apt", scripts("", ""), banger.ErrUnavailable, "apt"},
		{"no lists", scripts("echo 'E: No packages found' >&2; exit 100", ""), banger.ErrUnavailable, "sudo apt-get update"},
		{"meta package without a kernel", scripts("echo Package: linux-image-cloud-amd64", ""), banger.ErrUnavailable, "depends on no kernel"},
		{"apt-cache prints nonsense", scripts("echo nonsense", ""), banger.ErrUnavailable, "nonsense"},
		{"no mirror", scripts(aptCacheScript, "echo 'E: Failed to fetch' >&2; exit 100"), banger.ErrUnavailable, "mirror"},
		{"apt-get gives nothing", scripts(aptCacheScript, ""), banger.ErrUnavailable, ""},
		{"apt-get gives no package", scripts(aptCacheScript, "echo nothing > x.deb"), banger.ErrCorrupt, "ar archive"},
		{"no kernel in it", pkg(change("boot/vmlinuz-6.1.0-test", "", nil)), banger.ErrUnsupported, "no kernel"},
		{"kernel without modules", pkg(change("boot/vmlinuz-6.1.0-test", "boot/vmlinuz-6.2", []byte("x"))), banger.ErrUnsupported, "no modules of kernel 6.2"},
		{"two kernels", pkg(change("", "boot/vmlinuz-6.2", []byte("x"))), banger.ErrUnsupported, "6.2"},
		{"a module twice", pkg(change("", modules+"kernel/virtio/virtio.ko.gz", gzipped(t, elfModule(t, nil)))), banger.ErrCorrupt, "twice"},
		{"damaged module", pkg(change("", modules+"kernel/x.ko", []byte("\x7fELFx"))), banger.ErrCorrupt, "kernel/x.ko"},
		{"damaged compressed module", pkg(change("", modules+"kernel/x.ko.xz", []byte("\xfd7zXZ\x00x"))), banger.ErrCorrupt, "kernel/x.ko.xz"},
		{"no kernel image", pkg(change("", "boot/vmlinuz-6.1.0-test", []byte("text"))), banger.ErrUnsupported, "bzImage"},
		{"no overlay", pkg(change(modules+"kernel/fs/overlay.ko", "", nil)), banger.ErrUnsupported, "no overlay"},
		{"bad version", pkg(change("", "boot/vmlinuz-a b", []byte("x"))), banger.ErrUnsupported, `"a b"`},
	} {
		t.Run(tc.what, func(t *testing.T) {
			m := tc.m(t)
			kernel, err := m.Ensure(t.Context(), DefaultName, nil)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error()+banger.HintOf(err), tc.text) {
				t.Errorf("Ensure = %+v, %v (hint %q), want %v with %q", kernel, err, banger.HintOf(err), tc.want, tc.text)
			}
			wantNothing(t, m)
		})
	}
}

func TestEnsureUnknown(t *testing.T) {
	m := newManager(t, "", "")
	for _, name := range []string{"debian-clod", "", "..", "../x", "a/b", "A", ".x", strings.Repeat("x", 64)} {
		_, err := m.Ensure(t.Context(), name, nil)
		if !errors.Is(err, banger.ErrNotFound) || !strings.Contains(banger.HintOf(err), DefaultName) {
			t.Errorf("Ensure(%q) = %v (hint %q), want not found and the near name", name, err, banger.HintOf(err))
		}
	}
}

// TestEnsureTogether lets four ask at once while apt-get counts its calls.
func TestEnsureTogether(t *testing.T) {
	m := withPackage(t, packageFiles(t))
	var group sync.WaitGroup
	results, errs := make([]banger.Kernel, 4), make([]error, 4)
	for i := range results {
		group.Go(func() { results[i], errs[i] = m.Ensure(t.Context(), DefaultName, nil) })
	}
	group.Wait()
	for i := range results {
		if errs[i] != nil || !cmp.Equal(results[i], results[0]) { // equal times of creation: one was made
			t.Errorf("Ensure %d = %+v, %v, want %+v", i, results[i], errs[i], results[0])
		}
	}
}

// TestEnsureWaits: who waits leaves with its context; who works and is cancelled leaves nothing, and the next one works.
func TestEnsureWaits(t *testing.T) {
	m := newManager(t, aptCacheScript, "echo dlstatus:1:1.0:Retrieving; sleep 60")
	working, stop := context.WithCancel(t.Context())
	begun, done := make(chan struct{}), make(chan error)
	go func() {
		_, err := m.Ensure(working, DefaultName, func(p banger.Progress) {
			if p.Bytes == 10 {
				close(begun)
			}
		})
		done <- err
	}()
	<-begun
	waiting, leave := context.WithCancel(t.Context())
	leave()
	if _, err := m.Ensure(waiting, DefaultName, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting Ensure = %v, want cancelled", err)
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("working Ensure = %v, want cancelled", err)
	}
	wantNothing(t, m)
}

func TestCleanUp(t *testing.T) {
	m := withPackage(t, packageFiles(t))
	staging := m.Dir.KernelStaging(DefaultName)
	left := filepath.Join(staging.Path, "unpacked", "modules")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Ensure(t.Context(), DefaultName, nil); err != nil { // over what is left
		t.Fatal(err)
	}
	temporary := filepath.Join(m.Dir.Kernel(DefaultName).Path, ".initrd-123")
	if err := errors.Join(os.MkdirAll(left, 0o700), os.WriteFile(temporary, nil, 0o600), m.CleanUp()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{staging.Path, temporary} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there: %v", path, err)
		}
	}
	if _, err := m.Get(DefaultName); err != nil {
		t.Error(err)
	}
}

func TestGetDamaged(t *testing.T) {
	m := withPackage(t, packageFiles(t))
	if _, err := m.Ensure(t.Context(), DefaultName, nil); err != nil {
		t.Fatal(err)
	}
	dir := m.Dir.Kernel(DefaultName)
	good, err := os.ReadFile(dir.Manifest())
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) func() error {
		return func() error {
			return os.WriteFile(dir.Manifest(), bytes.Replace(good, []byte(old), []byte(new), 1), 0o600)
		}
	}
	for _, tc := range []struct {
		what   string
		damage func() error
		want   error
	}{
		{"manifest of another format", replace(`"format": 1`, `"format": 2`), banger.ErrUnsupported},
		{"manifest of another kernel", replace(`"name": "debian`, `"name": "fedora`), banger.ErrCorrupt},
		{"manifest cut", func() error { return os.WriteFile(dir.Manifest(), good[:40], 0o600) }, banger.ErrCorrupt},
		{"no manifest", func() error { return os.Remove(dir.Manifest()) }, banger.ErrCorrupt},
		{"vmlinux cut", func() error {
			return errors.Join(os.WriteFile(dir.Manifest(), good, 0o600), os.Chmod(dir.Vmlinux(), 0o600), os.Truncate(dir.Vmlinux(), 10))
		}, banger.ErrCorrupt},
		{"no vmlinux", func() error { return os.Remove(dir.Vmlinux()) }, banger.ErrCorrupt},
	} {
		if err := tc.damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Ensure(t.Context(), DefaultName, nil); !errors.Is(err, tc.want) || !strings.Contains(banger.HintOf(err), dir.Path) {
			t.Errorf("%s: Ensure = %v (hint %q), want %v and the directory", tc.what, err, banger.HintOf(err), tc.want)
		}
		if list, err := m.List(); err != nil || len(list) > 0 {
			t.Errorf("%s: List = %v, %v, want none", tc.what, list, err)
		}
	}
}

func TestInitrd(t *testing.T) {
	m := withPackage(t, packageFiles(t))
	now := time.Now()
	m.Now = func() time.Time { return now }
	kernel, err := m.Ensure(t.Context(), DefaultName, nil)
	if err != nil {
		t.Fatal(err)
	}
	guest := filepath.Join(t.TempDir(), "banger-guest")
	make := func(content string) string {
		t.Helper()
		if err := os.WriteFile(guest, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		path, err := m.Initrd(t.Context(), kernel, guest)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := make("guest one")
	archive, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"guest one", "virtio.ko\nvirtio_blk.ko\nvirtio_console.ko\noverlay.ko\n", "modules/virtio_console.ko\x00", "TRAILER!!!"} {
		if !bytes.Contains(archive, []byte(want)) {
			t.Errorf("the initrd has no %q", want)
		}
	}
	if again := make("guest one"); again != first {
		t.Errorf("Initrd = %s, want %s again", again, first)
	}
	if other := make("guest two, longer"); other == first {
		t.Error("another guest program has the same initrd")
	}
	for i := range 4 { // the first is used once more, then it is neither among the last three nor young
		now = now.Add(time.Hour)
		make("guest " + strings.Repeat("x", i))
	}
	if _, err := os.Stat(first); err != nil {
		t.Errorf("a young initrd is gone: %v", err)
	}
	now = now.Add(initrdKeptAge)
	last := make("guest last")
	paths, err := filepath.Glob(m.Dir.Kernel(DefaultName).Initrd("*"))
	if err != nil || len(paths) != 1+initrdKeptCount || !slices.Contains(paths, last) || slices.Contains(paths, first) {
		t.Errorf("initrds: %q, %v, want %d with the last and without the first", paths, err, 1+initrdKeptCount)
	}
	if _, err := m.Initrd(t.Context(), kernel, guest+"x"); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Initrd of a missing guest program = %v, want unavailable", err)
	}
	if _, err := m.Initrd(t.Context(), banger.Kernel{Name: "none"}, guest); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("Initrd of a missing kernel = %v, want not found", err)
	}
}
