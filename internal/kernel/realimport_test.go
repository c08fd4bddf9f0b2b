package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/internal/testenv"
)

// realPackage gives the path of Debian's package of realKernel.
func realPackage(t *testing.T, kernel banger.Kernel) string {
	t.Helper()
	_, content := testenv.AptDownload(t, kernel.Source)
	path := filepath.Join(t.TempDir(), "kernel.deb")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRealImport imports Debian's package as it is, and unpacked with its modules packed one by one: the kernel is the same.
func TestRealImport(t *testing.T) {
	_, kernel := realKernel(t)
	deb := realPackage(t, kernel)
	m := emptyManager(t)
	imported, err := m.Import(t.Context(), "package", banger.KernelSource{Packages: []string{deb}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := kernel
	want.Name, want.CreatedAt = imported.Name, imported.CreatedAt
	if diff := cmp.Diff(want, imported); diff != "" {
		t.Errorf("imported from its package (-want +got):\n%s", diff)
	}
	for name, state := range map[string]banger.FeatureState{"virtio-mmio": banger.FeatureModule, "overlay": banger.FeatureModule, "ext4": banger.FeatureBuiltIn,
		"initrd": banger.FeatureBuiltIn, "acpi": banger.FeatureBuiltIn, "serial-console": banger.FeatureBuiltIn, "fuse": banger.FeatureModule} {
		if got := states(kernel)[name]; got != state {
			t.Errorf("%s is %s, want %s", name, got, state)
		}
	}

	dir := t.TempDir()
	if out, err := exec.Command(testenv.RequireTool(t, "dpkg-deb"), "-x", deb, dir).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	packModules(t, dir)
	unpacked, err := m.Import(t.Context(), "directory", banger.KernelSource{Dir: dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want = unpacked // but for the times in modules.ext4
	want.VmlinuxSHA, want.VmlinuxBytes, want.ModuleCount, want.Features = kernel.VmlinuxSHA, kernel.VmlinuxBytes, kernel.ModuleCount, kernel.Features
	if diff := cmp.Diff(want, unpacked); diff != "" {
		t.Errorf("imported from a directory (-want +got):\n%s", diff)
	}
	checkIndexes(t, m, unpacked)
}

// packModules packs the modules of a tree, each by the next one of the programs that distributions take.
func packModules(t *testing.T, dir string) {
	t.Helper()
	tools := [][]string{nil, {"gzip", "-1", "-n"}, {"xz", "-0", "--check=crc32"}, {"zstd", "-q", "--rm", "-1"}}
	lists := make([][]string, len(tools))
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".ko" {
			lists[n%len(tools)] = append(lists[n%len(tools)], path)
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, tool := range tools {
		if tool == nil {
			continue
		}
		args := append(slices.Clone(tool[1:]), lists[i]...)
		if out, err := exec.Command(testenv.RequireTool(t, tool[0]), args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", tool[0], err, out)
		}
	}
	if n < 100 {
		t.Errorf("only %d modules in %s", n, dir)
	}
}

// checkIndexes compares the indexes in a kernel's modules.ext4 with depmod's of the same modules.
func checkIndexes(t *testing.T, m *Manager, kernel banger.Kernel) {
	t.Helper()
	base := t.TempDir()
	modules := filepath.Join(base, "lib/modules", kernel.Version)
	if err := os.MkdirAll(modules, 0o755); err != nil {
		t.Fatal(err)
	}
	tool := testenv.RequireTool(t, "debugfs")
	if out, err := exec.Command(tool, "-R", "rdump / "+modules, m.Dir.Kernel(kernel.Name).Modules()).CombinedOutput(); err != nil {
		t.Fatalf("debugfs: %v\n%s", err, out)
	}
	given := []string{modulesOrder, modulesBuiltin, builtinModinfo}
	files := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(modules), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Dir(name) != "." || slices.Contains(given, name) {
			return err
		}
		path := filepath.Join(modules, name)
		if files[name], err = os.ReadFile(path); err != nil {
			return err
		}
		return os.Remove(path)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 9 {
		t.Errorf("modules.ext4 has %d indexes, want 9 or more", len(files))
	}
	compareDepmod(t, base, kernel.Version, files)
}

// TestRealKernelWithoutParts takes from Debian's kernel what guests need, one by one: the import says so.
func TestRealKernelWithoutParts(t *testing.T) {
	_, kernel := realKernel(t)
	dir := t.TempDir()
	if out, err := exec.Command(testenv.RequireTool(t, "dpkg-deb"), "-x", realPackage(t, kernel), dir).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	m := emptyManager(t)
	modules := filepath.Join(dir, "lib/modules", kernel.Version, "kernel")
	for _, tc := range []struct{ file, text string }{
		{"fs/overlayfs/overlay.ko", "no overlay"},
		{"drivers/block/virtio_blk.ko", "no virtio-blk"},
		{"drivers/virtio/virtio_ring.ko", "no virtio_ring, which virtio"},
	} {
		path := filepath.Join(modules, tc.file)
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		_, err := m.Import(t.Context(), "less", banger.KernelSource{Dir: dir}, nil)
		if !errors.Is(err, banger.ErrUnsupported) || !strings.Contains(fmt.Sprint(err), tc.text) {
			t.Errorf("without %s: %v, want %q", tc.file, err, tc.text)
		}
		wantNothing(t, m)
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
	}
}
