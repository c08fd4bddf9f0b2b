package kernel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/statedir"
	"banger/internal/testenv"
)

func TestMain(m *testing.M) {
	if os.Getenv(cutEvent) != "" {
		if err := importAndDie(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	status := m.Run()
	if realRoot != "" {
		if err := os.RemoveAll(realRoot); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}

// realRoot is the state directory of realKernel.
var realRoot string

// fetchReal gets the real kernel by the real apt, once in a run of the tests.
var fetchReal = sync.OnceValues(func() (*Manager, error) {
	root, err := os.MkdirTemp("", "banger-kernel")
	if err != nil {
		return nil, err
	}
	realRoot = root
	m := New(Config{Dir: statedir.Dir{Root: root}})
	if err := m.Dir.Ensure(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	_, err = m.Ensure(ctx, DefaultName, nil)
	return m, err
})

// realKernel gives Debian's kernel, or skips where apt or its mirror are missing.
func realKernel(t *testing.T) (*Manager, banger.Kernel) {
	t.Helper()
	testenv.RequireTool(t, "apt-get")
	if err := exec.Command(testenv.RequireTool(t, "apt-cache"), "show", metaPackage).Run(); err != nil {
		testenv.Skip(t, "apt's package lists")
	}
	m, err := fetchReal()
	if errors.Is(err, banger.ErrUnavailable) {
		t.Log(err)
		testenv.Skip(t, "a package mirror")
	}
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := m.Get(DefaultName)
	if err != nil {
		t.Fatal(err)
	}
	return m, kernel
}

func TestRealKernel(t *testing.T) {
	m, kernel := realKernel(t)
	if !strings.Contains(kernel.Version, "cloud-amd64") || !strings.HasPrefix(kernel.Source, "linux-image-"+kernel.Version+" ") {
		t.Errorf("kernel %+v", kernel)
	}
	dir := m.Dir.Kernel(DefaultName)
	testenv.CheckExt4(t, dir.Modules())
	var total int64
	entries, err := os.ReadDir(dir.BootModules())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	const guestBudget, initrdBudget = 8 << 20, 12 << 20
	if total > initrdBudget-guestBudget {
		t.Errorf("the boot modules have %s, want at most %s", banger.FormatSize(total), banger.FormatSize(initrdBudget-guestBudget))
	}
	t.Logf("%s: vmlinux and modules %s, %d boot modules %s", kernel.Version, banger.FormatSize(kernel.SizeBytes), len(entries), banger.FormatSize(total))
}

// TestRealArchive gets the package that apt downloaded from a signed archive on loopback, without apt: the same kernel comes of it.
func TestRealArchive(t *testing.T) {
	_, kernel := realKernel(t)
	archive := testenv.NewMirror(t)
	control, deb := testenv.AptDownload(t, kernel.Source)
	archive.Add("bookworm", control, deb)
	name, version, _ := strings.Cut(kernel.Source, " ")
	archive.Add("bookworm", fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nDepends: %s (= %s)\n", metaPackage, version, name, version), []byte("meta"))
	archive.Publish(t, testenv.Release{Suite: "oldstable", Codename: "bookworm"})
	m := withArchive(t, archive)
	archive.SetFault(func(w http.ResponseWriter, r *http.Request, _ string, next http.HandlerFunc) {
		next(testenv.CutAfter(w, 5<<20), r)
	})
	got, err := m.Ensure(t.Context(), DefaultName, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.CreatedAt = kernel.CreatedAt; !reflect.DeepEqual(got, kernel) {
		t.Errorf("Ensure = %+v, want as by apt %+v", got, kernel)
	}
	if served, size := archive.Served.Load(), int64(len(deb)); served > size+size/10 {
		t.Errorf("%d bytes were served for a package of %d", served, size)
	}
}

// TestRealSignatures serves what Debian has signed, as apt has it, and trusts the keys that banger ships.
func TestRealSignatures(t *testing.T) {
	_, kernel := realKernel(t)
	control, deb := testenv.AptDownload(t, kernel.Source)
	archive := testenv.NewMirror(t)
	m := newManager(t, "", "")
	m.Mirror, m.Keyring = archive.URL, ""
	var newest time.Time
	m.Now = func() time.Time { return newest.Add(time.Hour) } // old lists are good enough here
	for suite, base := range map[string]string{"bookworm": "", "bookworm-security": "/debian-security/"} {
		release, made := aptList(t, suite+"_InRelease")
		packages, _ := aptList(t, suite+"_main_binary-amd64_Packages")
		archive.Put(base+"dists/"+suite+"/InRelease", release)
		archive.Put(base+"dists/"+suite+"/main/binary-amd64/Packages", packages)
		if made.After(newest) {
			newest = made
		}
		sum := sha256.Sum256(deb)
		if at := bytes.Index(packages, []byte(hex.EncodeToString(sum[:]))); at >= 0 {
			file := packages[bytes.LastIndex(packages[:at], []byte("\nFilename: ")):]
			file, _, _ = bytes.Cut(bytes.TrimPrefix(file, []byte("\nFilename: ")), []byte("\n"))
			archive.Put(base+string(file), deb)
		}
	}
	got, err := m.Ensure(t.Context(), DefaultName, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, control)
	}
	if got.CreatedAt = kernel.CreatedAt; !reflect.DeepEqual(got, kernel) {
		t.Errorf("Ensure = %+v, want as by apt %+v", got, kernel)
	}
}

// aptList gives a list that apt has fetched, and when its archive made it.
func aptList(t *testing.T, name string) (content []byte, made time.Time) {
	t.Helper()
	paths, err := filepath.Glob("/var/lib/apt/lists/*debian*_dists_" + name + "*")
	if err != nil || len(paths) != 1 {
		testenv.Skip(t, "apt's lists of Debian bookworm")
	}
	info, err := os.Stat(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	if content, err = exec.Command("/usr/lib/apt/apt-helper", "cat-file", paths[0]).Output(); err != nil {
		t.Fatalf("apt-helper: %v", err)
	}
	return content, info.ModTime()
}

// TestRealIndexes compares the indexes in modules.ext4 with depmod's of the same modules.
func TestRealIndexes(t *testing.T) {
	m, kernel := realKernel(t)
	checkIndexes(t, m, kernel)
}

// TestRealBoot boots the kernel with an initrd of its own: the boot modules load, the modules' drive mounts, and a module on it
// loads with all that it needs.
func TestRealBoot(t *testing.T) {
	qemu := testenv.RequireTool(t, "qemu-system-x86_64")
	user := testenv.OrdinaryUser(t)
	m, kernel := realKernel(t)
	work := user.Dir(t)
	guest := filepath.Join(work, "init")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", guest, "./testdata/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the guest's init: %v\n%s", err, out)
	}
	initrd, err := m.Initrd(t.Context(), kernel, guest)
	if err != nil {
		t.Fatal(err)
	}
	dir := m.Dir.Kernel(DefaultName)
	for name, path := range map[string]string{"vmlinux": dir.Vmlinux(), "modules": dir.Modules(), "initrd": initrd} {
		if err := os.Link(path, filepath.Join(work, name)); err != nil { // the user can't enter root's directory
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu, "-M", "microvm,acpi=on", "-accel", "tcg", "-cpu", "max", "-m", "256", "-nodefaults", "-no-user-config",
		"-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", "vmlinux", "-initrd", "initrd",
		"-append", "console=ttyS0 quiet panic=-1 tsc=reliable tsc_early_khz="+strconv.Itoa(clockKHz(t)),
		"-drive", "id=m,file=modules,format=raw,if=none,readonly=on", "-device", "virtio-blk-device,drive=m,serial=modules")
	cmd.Dir = work
	user.As(cmd)
	out, err := cmd.CombinedOutput()
	boot := fmt.Sprintf("TEST boot modules loaded: %d", bootModules(t, dir))
	for _, want := range []string{boot, "TEST loaded nf_conntrack_ftp after "} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("the guest (%v) does not say %q:\n%s", err, want, out)
		}
	}
}

func bootModules(t *testing.T, dir statedir.KernelDir) int {
	t.Helper()
	entries, err := os.ReadDir(dir.BootModules())
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// clockKHz is the frequency of the time stamp counter, which the emulator hands to the guest. A guess is good enough: without any the
// guest's kernel may hang.
func clockKHz(t *testing.T) int {
	t.Helper()
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`cpu MHz\s*: ([0-9.]+)`).FindSubmatch(info)
	if found == nil {
		testenv.Skip(t, "cpu MHz in /proc/cpuinfo")
	}
	mhz, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(mhz * 1000)
}
