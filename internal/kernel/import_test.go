package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/statedir"
	"banger/internal/tree"
)

// allBuiltIn is the configuration of a kernel that needs no module.
const allBuiltIn = "CONFIG_VIRTIO_MMIO=y\nCONFIG_VIRTIO_BLK=y\nCONFIG_VIRTIO_CONSOLE=y\nCONFIG_OVERLAY_FS=y\nCONFIG_EXT4_FS=y\n" +
	"CONFIG_BLK_DEV_INITRD=y\nCONFIG_DEVTMPFS=y\nCONFIG_ACPI=y\nCONFIG_FUSE_FS=m\n"

// vmlinuxOf is a kernel that says which version it is; embedded is a configuration to carry, if any.
func vmlinuxOf(t testing.TB, version, embedded string) []byte {
	t.Helper()
	b := append(elfKernel(t, pvhNotes(t), 1<<12), "\x00Linux version %s\x00Linux version "+version+" (me@here) #1\n\x00"...)
	if embedded != "" {
		b = append(append(append(b, embeddedConfigStart...), gzipped(t, []byte(embedded))...), "IKCFG_ED"...)
	}
	return b
}

// imageOf is the bzImage of vmlinuxOf.
func imageOf(t testing.TB, version, embedded string) []byte {
	t.Helper()
	const at = 0x400
	vmlinux := vmlinuxOf(t, version, embedded)
	b := bzImage(gzipped(t, vmlinux), len(vmlinux))
	le.PutUint16(b[kernelVersionAt:], at-sectorSize)
	copy(b[at:], version+" (me@here) #1 SMP\x00")
	return b
}

// modulesOf is what lies in a modules directory, each module packed by pack, whose files end in extension.
func modulesOf(t testing.TB, version, dir, extension string, pack func([]byte) []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	const prefix = "lib/modules/6.1.0-test/"
	for name, content := range packageFiles(t) {
		inside, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		if strings.HasSuffix(name, ".ko") {
			content, inside = pack(content), inside+extension
		}
		files[dir+"/"+version+"/"+inside] = content
	}
	return files
}

func plainModules(b []byte) []byte { return b }

func merged(parts ...map[string][]byte) map[string][]byte {
	all := map[string][]byte{}
	for _, p := range parts {
		maps.Copy(all, p)
	}
	return all
}

// writeTree makes a directory. A content that begins with "-> " is a symbolic link.
func writeTree(t testing.TB, dir string, files map[string][]byte) string {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if link, ok := bytes.CutPrefix(files[name], []byte("-> ")); ok {
			err = errors.Join(err, os.Symlink(string(link), path))
		} else {
			err = errors.Join(err, os.WriteFile(path, files[name], 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// emptyManager makes a manager without kernels.
func emptyManager(t testing.TB) *Manager {
	t.Helper()
	m := New(Config{Dir: statedir.Dir{Root: t.TempDir()}})
	if err := os.MkdirAll(m.Dir.Kernels(), 0o700); err != nil {
		t.Fatal(err)
	}
	return m
}

func states(k banger.Kernel) map[string]banger.FeatureState {
	found := map[string]banger.FeatureState{}
	for _, f := range k.Features {
		found[f.Name] = f.State
	}
	return found
}

// layouts are the trees of distributions and of the kernel's build.
func layouts(t testing.TB) map[string]map[string][]byte {
	const debian, ubuntu, fedora, arch = "6.1.0-42-cloud-amd64", "6.8.0-40-generic", "6.9.4-200.fc40.x86_64", "6.9.3-arch1-1"
	config := packageFiles(t)["boot/config-6.1.0-test"]
	zstd := func(b []byte) []byte { return byTool("zstd", "-q")(t.(*testing.T), b) }
	xz := func(b []byte) []byte { return byTool("xz", "--check=crc32")(t.(*testing.T), b) }
	return map[string]map[string][]byte{
		"debian": merged(modulesOf(t, debian, "usr/lib/modules", "", plainModules), map[string][]byte{"lib": []byte("-> usr/lib"),
			"boot/vmlinuz-" + debian: imageOf(t, debian, ""), "boot/config-" + debian: config,
			"vmlinuz": []byte("-> boot/vmlinuz-" + debian), "vmlinuz.old": []byte("-> boot/vmlinuz-6.1.0-41-cloud-amd64"),
			"usr/lib/modules/" + debian + "/build": []byte("-> /usr/src/linux-headers-" + debian)}),
		"ubuntu": merged(modulesOf(t, ubuntu, "lib/modules", ".zst", zstd), map[string][]byte{
			"boot/vmlinuz-" + ubuntu: imageOf(t, ubuntu, ""), "boot/vmlinuz": []byte("-> vmlinuz-" + ubuntu), "boot/config-" + ubuntu: config}),
		"fedora": merged(modulesOf(t, fedora, "usr/lib/modules", ".xz", xz), map[string][]byte{"lib": []byte("-> usr/lib"),
			"boot/vmlinuz-" + fedora: imageOf(t, fedora, ""), "boot/.vmlinuz-" + fedora + ".hmac": []byte("x"), "boot/vmlinuz-0-rescue-0123456789abcdef": imageOf(t, "6.8.1", ""),
			"usr/lib/modules/" + fedora + "/vmlinuz": imageOf(t, fedora, ""), "usr/lib/modules/" + fedora + "/config": config}),
		"fedora's modules": merged(modulesOf(t, fedora, "usr/lib/modules", ".xz", xz), map[string][]byte{
			"usr/lib/modules/" + fedora + "/vmlinuz": imageOf(t, fedora, ""), "usr/lib/modules/" + fedora + "/config": config}),
		"arch": merged(modulesOf(t, arch, "usr/lib/modules", ".zst", zstd), map[string][]byte{"lib": []byte("-> usr/lib"),
			"usr/lib/modules/" + arch + "/vmlinuz": imageOf(t, arch, string(config)), "boot/vmlinuz-linux": imageOf(t, arch, string(config)),
			"boot/initramfs-linux.img": []byte("x"), "usr/lib/modules/extramodules-6.9-arch/version": []byte(arch)}),
		"alpine": merged(modulesOf(t, "6.6.31-0-virt", "lib/modules", ".gz", func(b []byte) []byte { return gzipped(t, b) }),
			map[string][]byte{"boot/vmlinuz-virt": imageOf(t, "6.6.31-0-virt", ""), "boot/config-6.6.31-0-virt": config}),
		"only boot and modules": merged(modulesOf(t, debian, "modules", "", plainModules), map[string][]byte{"vmlinuz-" + debian: imageOf(t, debian, ""), "config-" + debian: config}),
		"flat modules":          merged(modulesOf(t, "", "modules", "", plainModules), map[string][]byte{"bzImage": imageOf(t, "6.10.0-mine", ""), "config": config}),
		"build": {"vmlinux": vmlinuxOf(t, "6.10.0-mine", allBuiltIn), "vmlinux.o": []byte("x"), "vmlinux-gdb.py": []byte("-> /usr/src/gdb.py"), "arch/x86/boot/bzImage": imageOf(t, "6.10.0-mine", ""),
			".config": []byte(allBuiltIn), "modules.builtin": []byte("kernel/fs/ext4/ext4.ko\n"), "kernel/fork.c": []byte("x"), "modules.order": []byte("x.o\n")},
		"build with modules":                     merged(modulesOf(t, "6.10.0-mine", "lib/modules", "", plainModules), map[string][]byte{"arch/x86/boot/bzImage": imageOf(t, "6.10.0-mine", ""), ".config": config}),
		"vmlinux that carries its configuration": {"vmlinux": vmlinuxOf(t, "6.10.0-mine", allBuiltIn)},
		"bzImage that carries its configuration": {"bzImage": imageOf(t, "6.10.0-mine", allBuiltIn)},
		"vmlinux alone":                          {"vmlinux": vmlinuxOf(t, "6.10.0-mine", "")},
	}
}

func TestImportDirectory(t *testing.T) {
	trees := layouts(t)
	for _, tc := range []struct {
		tree, version string
		modules       int
		states        map[string]banger.FeatureState
	}{
		{"debian", "6.1.0-42-cloud-amd64", 4, map[string]banger.FeatureState{"overlay": banger.FeatureModule, "ext4": banger.FeatureBuiltIn, "initrd": banger.FeatureBuiltIn, "fuse": banger.FeatureMissing, "pvh-entry": banger.FeatureBuiltIn}},
		{"ubuntu", "6.8.0-40-generic", 4, map[string]banger.FeatureState{"overlay": banger.FeatureModule, "initrd": banger.FeatureBuiltIn}},
		{"fedora", "6.9.4-200.fc40.x86_64", 4, map[string]banger.FeatureState{"overlay": banger.FeatureModule, "initrd": banger.FeatureBuiltIn}},
		{"fedora's modules", "6.9.4-200.fc40.x86_64", 4, map[string]banger.FeatureState{"initrd": banger.FeatureBuiltIn}},
		{"arch", "6.9.3-arch1-1", 4, map[string]banger.FeatureState{"virtio-blk": banger.FeatureModule, "initrd": banger.FeatureBuiltIn}},
		{"alpine", "6.6.31-0-virt", 4, map[string]banger.FeatureState{"initrd": banger.FeatureBuiltIn}},
		{"only boot and modules", "6.1.0-42-cloud-amd64", 4, map[string]banger.FeatureState{"initrd": banger.FeatureBuiltIn}},
		{"flat modules", "6.10.0-mine", 4, map[string]banger.FeatureState{"initrd": banger.FeatureBuiltIn}},
		{"build", "6.10.0-mine", 0, map[string]banger.FeatureState{"overlay": banger.FeatureBuiltIn, "ext4": banger.FeatureBuiltIn, "fuse": banger.FeatureMissing}},
		{"build with modules", "6.10.0-mine", 4, map[string]banger.FeatureState{"overlay": banger.FeatureModule}},
		{"vmlinux that carries its configuration", "6.10.0-mine", 0, map[string]banger.FeatureState{"overlay": banger.FeatureBuiltIn, "tun": banger.FeatureMissing}},
		{"bzImage that carries its configuration", "6.10.0-mine", 0, map[string]banger.FeatureState{"overlay": banger.FeatureBuiltIn, "tun": banger.FeatureMissing}},
		{"vmlinux alone", "6.10.0-mine", 0, map[string]banger.FeatureState{"overlay": banger.FeatureUnknown, "initrd": banger.FeatureUnknown, "pvh-entry": banger.FeatureBuiltIn}},
	} {
		t.Run(tc.tree, func(t *testing.T) {
			m := emptyManager(t)
			dir := writeTree(t, t.TempDir(), trees[tc.tree])
			var stages []banger.Progress
			kernel, err := m.Import(t.Context(), "mine", banger.KernelSource{Dir: dir}, func(p banger.Progress) { stages = append(stages, p) })
			if err != nil {
				t.Fatalf("%v (hint %q)", err, banger.HintOf(err))
			}
			if kernel.Name != "mine" || kernel.Version != tc.version || kernel.ModuleCount != tc.modules || kernel.Source != "directory "+dir {
				t.Errorf("Import = %+v", kernel)
			}
			got := states(kernel)
			for name, want := range tc.states {
				if got[name] != want {
					t.Errorf("%s is %s, want %s", name, got[name], want)
				}
			}
			if len(stages) < 3 || stages[0].Text != "importing kernel mine" || !stages[len(stages)-1].Done {
				t.Errorf("progress: %+v", stages)
			}
			wantComplete(t, m, kernel)
		})
	}
}

// wantComplete checks that a kernel is there, whole, and can be booted for all that is known.
func wantComplete(t *testing.T, m *Manager, kernel banger.Kernel) {
	t.Helper()
	found, err := m.read(kernel.Name)
	if err != nil || !cmp.Equal(found.Kernel, kernel) {
		t.Fatalf("Get = %+v, %v, want %+v", found, err, kernel)
	}
	dir := m.Dir.Kernel(kernel.Name)
	want := []string{"boot-modules", "kernel.json", "modules.ext4", "vmlinux"}
	var names []string
	entries, err := os.ReadDir(dir.Path)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("the kernel's directory has %q, %v, want %q", names, err, want)
	}
	if n := bootModules(t, dir); n != kernel.ModuleCount { // virtio, virtio_blk, virtio_console, overlay
		t.Errorf("%d boot modules, want %d", n, kernel.ModuleCount)
	}
	guest := filepath.Join(t.TempDir(), "guest")
	if err := os.WriteFile(guest, []byte("guest"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Initrd(t.Context(), kernel, guest); err != nil {
		t.Error(err)
	}
}

func TestImportDirectoryErrors(t *testing.T) {
	const v, other = "6.1.0-42-cloud-amd64", "6.1.0-43-cloud-amd64"
	modules := modulesOf(t, v, "lib/modules", "", plainModules)
	config := packageFiles(t)["boot/config-6.1.0-test"]
	outside := writeTree(t, t.TempDir(), map[string][]byte{"vmlinuz": imageOf(t, v, ""), "overlay.ko": elfModule(t, []string{"license=GPL"})})
	with := func(name string, content []byte) map[string][]byte {
		return merged(modules, map[string][]byte{"boot/vmlinuz-" + v: imageOf(t, v, ""), "boot/config-" + v: config, name: content})
	}
	without := func(name string) map[string][]byte {
		files := with("x", nil)
		delete(files, name)
		return files
	}
	overlay := "lib/modules/" + v + "/kernel/fs/overlay.ko"
	whole := imageOf(t, v, "")
	for _, tc := range []struct {
		what  string
		files map[string][]byte
		want  error
		text  []string
	}{
		{"empty", map[string][]byte{"x": nil}, banger.ErrInvalid, []string{"no kernel", "bzImage"}},
		{"two kernels", with("boot/vmlinuz-"+other, imageOf(t, other, "")), banger.ErrInvalid, []string{v + ", " + other}},
		{"two kernels without a version", map[string][]byte{"vmlinux": vmlinuxOf(t, v, ""), "bzImage": whole}, banger.ErrInvalid, []string{"bzImage, vmlinux"}},
		{"kernel that is a directory", map[string][]byte{"vmlinux/x": nil}, banger.ErrInvalid, []string{"no kernel"}},
		{"kernel that leads out", map[string][]byte{"vmlinuz": []byte("-> " + outside + "/vmlinuz")}, banger.ErrInvalid, []string{"vmlinuz", "lead out"}},
		{"kernel that leads up and out", map[string][]byte{"boot/vmlinuz": []byte("-> ../../../../../../../../" + outside + "/vmlinuz")}, banger.ErrInvalid, []string{"lead out"}},
		{"modules that lead out", map[string][]byte{"vmlinuz": whole, "lib": []byte("-> /usr/lib")}, banger.ErrInvalid, []string{"lead out"}},
		{"module that leads out", with(overlay, []byte("-> "+outside+"/overlay.ko")), banger.ErrUnsupported, []string{"no overlay"}},
		{"link without a target", map[string][]byte{"vmlinuz": []byte("-> nowhere")}, banger.ErrInvalid, []string{"no kernel"}},
		{"text", map[string][]byte{"vmlinuz-" + v: []byte("text")}, banger.ErrUnsupported, []string{"bzImage"}},
		{"kernel that is cut", map[string][]byte{"vmlinuz-" + v: whole[:len(whole)/2]}, banger.ErrCorrupt, []string{"payload"}},
		{"kernel for another machine", map[string][]byte{"vmlinux-" + v: change(vmlinuxOf(t, v, ""), 18, 183, 0)}, banger.ErrUnsupported, []string{"EM_AARCH64"}},
		{"no version anywhere", map[string][]byte{"vmlinux": elfKernel(t, pvhNotes(t), 100)}, banger.ErrUnsupported, []string{"which version"}},
		{"modules of another kernel", merged(modulesOf(t, other, "lib/modules", "", plainModules), map[string][]byte{"vmlinuz-" + v: whole}), banger.ErrInvalid, []string{v, other}},
		{"a module of another build", with(overlay, elfModule(t, []string{"vermagic=" + other + " SMP mod_unload", "depends="})), banger.ErrUnsupported, []string{"overlay", other}},
		{"no overlay", without(overlay), banger.ErrUnsupported, []string{"no overlay"}},
		{"nothing but what says so", map[string][]byte{"vmlinuz-" + v: whole, "config-" + v: []byte("CONFIG_VIRTIO_BLK=m\nCONFIG_ACPI=y\n")}, banger.ErrUnsupported,
			[]string{"no virtio-mmio, no virtio-blk, no virtio-console, no overlay, no ext4, no initrd, no devtmpfs", "without modules"}},
		{"a damaged module", with(overlay, []byte("\x7fELFx")), banger.ErrCorrupt, []string{"overlay.ko"}},
		{"a module that is too large", with(strings.Replace(overlay, "overlay", "bomb", 1)+".gz", gzipped(t, make([]byte, maxModule+1))), banger.ErrUnsupported, []string{"bomb.ko.gz", "256 MiB"}},
		{"a module twice", with(overlay+".gz", gzipped(t, elfModule(t, nil))), banger.ErrCorrupt, []string{"twice"}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			m := emptyManager(t)
			dir := writeTree(t, t.TempDir(), tc.files)
			kernel, err := m.Import(t.Context(), "mine", banger.KernelSource{Dir: dir}, nil)
			if !errors.Is(err, tc.want) {
				t.Errorf("Import = %+v, %v (hint %q), want %v", kernel, err, banger.HintOf(err), tc.want)
			}
			for _, text := range tc.text {
				if err != nil && !strings.Contains(err.Error()+banger.HintOf(err), text) {
					t.Errorf("Import = %v (hint %q), want it to say %q", err, banger.HintOf(err), text)
				}
			}
			wantNothing(t, m)
		})
	}
}

func change(b []byte, at int, with ...byte) []byte {
	return append(append(slices.Clone(b[:at]), with...), b[at+len(with):]...)
}

func TestImportRefuses(t *testing.T) {
	m := emptyManager(t)
	dir := writeTree(t, t.TempDir(), layouts(t)["vmlinux alone"])
	fifo := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(fifo, "vmlinuz"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what, name string
		src        banger.KernelSource
		want       error
	}{
		{"bad name", "../x", banger.KernelSource{Dir: dir}, banger.ErrInvalid},
		{"no name", "", banger.KernelSource{Dir: dir}, banger.ErrInvalid},
		{"banger's own name", DefaultName, banger.KernelSource{Dir: dir}, banger.ErrConflict},
		{"no source", "mine", banger.KernelSource{}, banger.ErrInvalid},
		{"two sources", "mine", banger.KernelSource{Dir: dir, Host: true}, banger.ErrInvalid},
		{"no such directory", "mine", banger.KernelSource{Dir: dir + "/none"}, banger.ErrNotFound},
		{"a directory that is a file", "mine", banger.KernelSource{Dir: dir + "/vmlinux"}, banger.ErrInvalid},
		{"no such package", "mine", banger.KernelSource{Packages: []string{dir + "/none.deb"}}, banger.ErrNotFound},
		{"a package that is a directory", "mine", banger.KernelSource{Packages: []string{dir}}, banger.ErrInvalid},
		{"a package that is none", "mine", banger.KernelSource{Packages: []string{filepath.Join(dir, "vmlinux")}}, banger.ErrCorrupt},
		{"a package that never comes", "mine", banger.KernelSource{Packages: []string{filepath.Join(fifo, "vmlinuz")}}, banger.ErrInvalid},
		{"a kernel that never comes", "mine", banger.KernelSource{Dir: fifo}, banger.ErrInvalid},
	} {
		if kernel, err := m.Import(t.Context(), tc.name, tc.src, nil); !errors.Is(err, tc.want) {
			t.Errorf("%s: Import = %+v, %v, want %v", tc.what, kernel, err, tc.want)
		}
		wantNothing(t, m)
	}
}

// TestImportTaken: the same content is no conflict, wherever it comes from and whenever it was written; another one is.
func TestImportTaken(t *testing.T) {
	m := emptyManager(t)
	tree := layouts(t)["debian"]
	first, err := m.Import(t.Context(), "mine", banger.KernelSource{Dir: writeTree(t, t.TempDir(), tree)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := m.Import(t.Context(), "mine", banger.KernelSource{Dir: writeTree(t, t.TempDir(), tree)}, nil)
	if err != nil || !cmp.Equal(again, first) {
		t.Errorf("the same again: %+v, %v, want %+v", again, err, first)
	}
	other := writeTree(t, t.TempDir(), layouts(t)["ubuntu"])
	conflict := func() {
		t.Helper()
		_, err := m.Import(t.Context(), "mine", banger.KernelSource{Dir: other}, nil)
		if !errors.Is(err, banger.ErrConflict) || !strings.Contains(banger.HintOf(err), "kernel delete mine") {
			t.Errorf("another one: %v (hint %q), want a conflict", err, banger.HintOf(err))
		}
	}
	conflict()
	if kernel, err := m.Get("mine"); err != nil || !cmp.Equal(kernel, first) {
		t.Errorf("it is now %+v, %v", kernel, err)
	}
	if err := os.Remove(m.Dir.Kernel("mine").Manifest()); err != nil {
		t.Fatal(err)
	}
	conflict()
	if kernel, err := m.Delete(t.Context(), "mine"); err != nil || kernel.Name != "mine" {
		t.Errorf("Delete of a damaged one = %+v, %v", kernel, err)
	}
	wantNothing(t, m)
	if _, err := m.Delete(t.Context(), "mine"); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("Delete of none = %v", err)
	}
	if kernel, err := m.Import(t.Context(), "mine", banger.KernelSource{Dir: other}, nil); err != nil || kernel.Version != "6.8.0-40-generic" {
		t.Errorf("after the deletion: %+v, %v", kernel, err)
	}
}

func TestImportPackages(t *testing.T) {
	const v = "6.8.0-40-generic"
	zstd := func(b []byte) []byte { return byTool("zstd", "-q")(t, b) }
	dir := t.TempDir()
	deb := func(name string, files map[string][]byte) string {
		return debPackage(t, filepath.Join(dir, name), files)
	}
	depends := func(name, on string, files map[string][]byte) string {
		return namedPackage(t, filepath.Join(dir, name), "Package: linux-image-6.1.0-test\nVersion: 6.1-1\nArchitecture: amd64\nDepends: kmod, "+on+"\n", files)
	}
	all := modulesOf(t, v, "lib/modules", ".zst", zstd)
	modules, extra := map[string][]byte{"boot/config-" + v: packageFiles(t)["boot/config-6.1.0-test"]}, map[string][]byte{}
	for name, content := range all {
		if strings.Contains(name, "overlay") {
			extra[name] = content
		} else {
			modules[name] = content
		}
	}
	needy := depends("needy.deb", "linux-modules-"+v+" (= 6.8)", map[string][]byte{"boot/vmlinuz-" + v: imageOf(t, v, "")})
	foreign := namedPackage(t, filepath.Join(dir, "foreign.deb"), "Package: linux-image\nVersion: 1\nArchitecture: arm64\n", nil)
	image := deb("image.deb", map[string][]byte{"boot/vmlinuz-" + v: imageOf(t, v, "")})
	parts := deb("modules.deb", modules)
	rest := deb("extra.deb", extra)
	older := deb("older.deb", modulesOf(t, "6.8.0-39-generic", "lib/modules", ".zst", zstd))
	lying := deb("lying.deb", map[string][]byte{"boot/vmlinuz-6.8.0-41-generic": imageOf(t, v, "")})
	for _, tc := range []struct {
		what     string
		packages []string
		want     error
		text     string
	}{
		{"all", []string{image, parts, rest}, nil, ""},
		{"in any order", []string{rest, image, parts}, nil, ""},
		{"no image", []string{parts, rest}, banger.ErrUnsupported, "no kernel"},
		{"image alone", []string{image}, nil, ""}, // nothing tells what it has built in
		{"image alone that has its modules elsewhere", []string{needy, rest}, banger.ErrInvalid, "needs linux-modules-" + v},
		{"package for another machine", []string{foreign}, banger.ErrUnsupported, "foreign.deb: unsupported: it is for arm64"},
		{"no extra modules", []string{image, parts}, banger.ErrUnsupported, "no overlay"},
		{"one twice", []string{image, parts, rest, parts}, banger.ErrCorrupt, "twice"},
		{"modules of another version", []string{image, older}, banger.ErrUnsupported, "6.8.0-39-generic"},
		{"modules of two versions", []string{image, parts, rest, older}, banger.ErrUnsupported, "6.8.0-39-generic"},
		{"image that is another one", []string{lying, parts}, banger.ErrUnsupported, v},
	} {
		t.Run(tc.what, func(t *testing.T) {
			m := emptyManager(t)
			kernel, err := m.Import(t.Context(), "ubuntu", banger.KernelSource{Packages: tc.packages}, nil)
			if !errors.Is(err, tc.want) || tc.want != nil && !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("Import = %+v, %v, want %v with %q", kernel, err, tc.want, tc.text)
			}
			if err != nil {
				wantNothing(t, m)
				return
			}
			if kernel.Version != v || !strings.HasPrefix(kernel.Source, "linux-image-6.1.0-test 6.1-1") {
				t.Errorf("Import = %+v", kernel)
			}
			wantComplete(t, m, kernel)
		})
	}
}

func TestImportHost(t *testing.T) {
	trees := layouts(t)
	for _, tc := range []struct{ tree, release string }{
		{"debian", "6.1.0-42-cloud-amd64"}, {"ubuntu", "6.8.0-40-generic"}, {"fedora", "6.9.4-200.fc40.x86_64"}, {"arch", "6.9.3-arch1-1"}, {"alpine", "6.6.31-0-virt"},
	} {
		m := emptyManager(t)
		files := merged(trees[tc.tree], map[string][]byte{"boot/vmlinuz-5.0.0-old": imageOf(t, "5.0.0-old", "")}) // as hosts do
		m.hostRoot, m.hostRelease = writeTree(t, t.TempDir(), files), func() (string, error) { return tc.release, nil }
		kernel, err := m.Import(t.Context(), "host", banger.KernelSource{Host: true}, nil)
		if err != nil || kernel.Version != tc.release || kernel.Source != "kernel of this computer" {
			t.Errorf("%s: Import = %+v, %v", tc.tree, kernel, err)
			continue
		}
		wantComplete(t, m, kernel)
		m.hostRelease = func() (string, error) { return "6.99.0", nil }
		if _, err := m.Import(t.Context(), "other", banger.KernelSource{Host: true}, nil); !errors.Is(err, banger.ErrNotFound) || !strings.Contains(banger.HintOf(err), "/boot/vmlinuz-6.99.0") {
			t.Errorf("%s: a kernel that is not there: %v (hint %q)", tc.tree, err, banger.HintOf(err))
		}
	}
}

// TestImportUnreadable is Ubuntu's way: /boot/vmlinuz-… is root's alone.
func TestImportUnreadable(t *testing.T) {
	m := emptyManager(t)
	if os.Getuid() == 0 { // this thread reads as somebody else; it ends with the test
		for _, dir := range []string{filepath.Dir(m.Dir.Root), m.Dir.Root, m.Dir.Kernels()} {
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		runtime.LockOSThread()
		defer func() { _ = unix.Setfsuid(0) }()
	}
	m.hostRoot, m.hostRelease = writeTree(t, t.TempDir(), layouts(t)["ubuntu"]), func() (string, error) { return "6.8.0-40-generic", nil }
	image := filepath.Join(m.hostRoot, "boot/vmlinuz-6.8.0-40-generic")
	if err := os.Chmod(image, 0); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		const nobody = 65534
		if err := unix.Setfsuid(nobody); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Import(t.Context(), "host", banger.KernelSource{Host: true}, nil); !errors.Is(err, banger.ErrRefused) || banger.HintOf(err) != "to let everyone read it: sudo chmod a+r "+image {
		t.Errorf("Import = %v (hint %q)", err, banger.HintOf(err))
	}
	wantNothing(t, m)
}

// TestImportLimits bounds what a source unpacks to as a whole, and how many files a directory has.
func TestImportLimits(t *testing.T) {
	defer func(before tree.Limits) { limits = before }(limits)
	dir := writeTree(t, t.TempDir(), layouts(t)["alpine"])
	bombs := map[string][]byte{}
	for i := range 5 {
		bombs[fmt.Sprintf("lib/modules/6.6.31-0-virt/kernel/bomb%d.ko.gz", i)] = gzipped(t, make([]byte, 1<<20))
	}
	writeTree(t, dir, bombs)
	for _, tc := range []struct {
		limits tree.Limits
		want   error
		text   string
	}{
		{tree.Limits{Entries: 10_000, Bytes: 4 << 20}, banger.ErrUnsupported, "bomb"},
		{tree.Limits{Entries: 5, Bytes: 1 << 30}, banger.ErrInvalid, "more than 5 files"},
	} {
		m := emptyManager(t)
		limits = tc.limits
		if _, err := m.Import(t.Context(), "mine", banger.KernelSource{Dir: dir}, nil); !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("limits %+v: Import = %v, want %v with %q", tc.limits, err, tc.want, tc.text)
		}
		wantNothing(t, m)
	}
}

// TestImportTraversal gives packages names that would lead out of where they are unpacked.
func TestImportTraversal(t *testing.T) {
	const v = "6.1.0-test"
	files := packageFiles(t)
	module := elfModule(t, []string{"license=GPL"})
	for _, name := range []string{"lib/modules/" + v + "/../../../../../../../../tmp/banger-evil.ko", "../lib/modules/" + v + "/kernel/up.ko", "/lib/modules/" + v + "/kernel/absolute.ko",
		"lib/modules/" + v + "/kernel/../../../../../banger-evil.ko"} {
		files[name] = module
	}
	m := emptyManager(t)
	deb := debPackage(t, filepath.Join(t.TempDir(), "evil.deb"), files)
	kernel, err := m.Import(t.Context(), "mine", banger.KernelSource{Packages: []string{deb}}, nil)
	if err != nil || kernel.ModuleCount != 6 { // the four of the package, and the two that end up among them
		t.Errorf("Import = %+v, %v", kernel, err)
	}
	for _, path := range []string{"/tmp/banger-evil.ko", filepath.Join(m.Dir.Root, "banger-evil.ko"), filepath.Join(m.Dir.Kernels(), "banger-evil.ko")} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
