package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"banger"
	"banger/api"
	"banger/internal/ext4/read"
	"banger/internal/testenv"
	"banger/internal/tree"
)

// linesOf describes the tree of an ext4 image.
func linesOf(t *testing.T, path string) []string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := read.Open(file, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return testenv.TreeLines(t, fsys.Source("."), false)
}

// One of everything that file systems know, made by mke2fs, is the same after import, export and import, and to GNU tar and the kernel.
func TestExportedTree(t *testing.T) {
	dir := t.TempDir()
	testenv.SampleTree(t, dir)
	file := testenv.Mke2fs(t, 64<<20, "-t", "ext4", "-d", dir)
	m := plainManager(t)
	imported, err := m.Import(t.Context(), api.ImportRequest{Name: "one", Path: file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	base := m.Dir.Image(imported.Key).Rootfs()
	testenv.CheckExt4(t, base)
	want := linesOf(t, file)
	testenv.SameLines(t, linesOf(t, base), want)

	registered := mustRegister(t, m, api.RegisterRequest{Name: "two", Rootfs: file})
	for _, ref := range []string{"one", registered.Key[:12]} {
		var out bytes.Buffer
		if err := m.Export(t.Context(), ref, &out); err != nil {
			t.Fatal(err)
		}
		again, err := m.Import(t.Context(), api.ImportRequest{Name: "three", Path: save(t, out.Bytes())}, nil)
		if err != nil {
			t.Fatal(err)
		}
		testenv.SameLines(t, linesOf(t, m.Dir.Image(again.Key).Rootfs()), want)
		if os.Getuid() == 0 { // who may make devices
			unpacked := t.TempDir()
			cmd := exec.Command(testenv.RequireTool(t, "tar"), "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", "-", "-C", unpacked)
			cmd.Stdin = &out
			if text, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("tar: %v %s", err, text)
			}
			testenv.SameLines(t, testenv.TreeLines(t, tree.FromDir(unpacked), false), want)
		}
	}
	if os.Getuid() == 0 {
		mounted, unmount := testenv.Mount(t, base, "ro")
		defer unmount()
		testenv.SameLines(t, testenv.TreeLines(t, withoutLostFound(tree.FromDir(mounted)), false), want)
	}
}

func withoutLostFound(src tree.Source) tree.Source {
	return tree.Filter(src, func(e *tree.Entry) bool { return e.Path != "lost+found" })
}

func TestExportFails(t *testing.T) {
	m, file := plainManager(t), hostRootfs(t)
	mustRegister(t, m, api.RegisterRequest{Name: "mine", Rootfs: file})
	if err := m.Export(t.Context(), "nosuch", io.Discard); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("Export of nothing: %v", err)
	}
	full := errors.New("no space left")
	if err := m.Export(t.Context(), "mine", writerFunc(func([]byte) (int, error) { return 0, full })); !errors.Is(err, full) {
		t.Errorf("Export to a full disk: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := m.Export(ctx, "mine", writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil }))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Export cancelled: %v", err)
	}
	once := false
	err = m.Export(t.Context(), "mine", writerFunc(func(p []byte) (int, error) {
		if !once {
			once = true
			testenv.Run(t, "touch", file)
		}
		return len(p), nil
	}))
	if !errors.Is(err, banger.ErrConflict) || !strings.Contains(err.Error(), "changed while") {
		t.Errorf("Export of a file that changes: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestImportRootfs(t *testing.T) {
	m := plainManager(t)
	for what, args := range map[string][]string{"ext2": {"-t", "ext2"}, "ext3": {"-t", "ext3"}, "small blocks": {"-b", "1024"}, "inline-data": {"-O", "inline_data"},
		"large blocks": {"-b", "65536"}, "casefold": {"-O", "casefold"}, "ea-inode": {"-O", "ea_inode"}, "no checksums": {"-O", "^metadata_csum,^64bit"}} {
		file := hostRootfs(t, args...)
		image, err := m.Import(t.Context(), api.ImportRequest{Name: strings.ReplaceAll(what, " ", "-"), Path: file, Rootfs: true}, nil)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		list := strings.Join(paths(t, m.Dir.Image(image.Key).Rootfs()), "\n")
		if image.Source != "ext4 image "+file || image.Registered != nil || !strings.Contains(list, "etc/os-release") || !strings.Contains(list, "root/bin/x") {
			t.Errorf("%s: %+v with\n%s", what, image, list)
		}
		testenv.CheckExt4(t, m.Dir.Image(image.Key).Rootfs())
	}
	file := hostRootfs(t)
	seed := save(t, pack(t, "zstd", tarOf(t, text("own", "1"))))
	plain, err := m.Import(t.Context(), api.ImportRequest{Name: "mine", Path: file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, save(t, tarOf(t, rootEntries()...)), layoutOf(t, imageOf(t, "amd64", tarOf(t, rootEntries()...)))} {
		image, err := m.Import(t.Context(), api.ImportRequest{Name: "mine", Path: path, WorkSeed: seed}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := seedPaths(t, m.Dir.Image(image.Key).Seed()); len(got) != 1 || got[0] != "own=1" || image.Key == plain.Key {
			t.Errorf("import of %s with a seed: %q, key %s", path, got, image.Key)
		}
	}
}

func TestImportRootfsRefuses(t *testing.T) {
	m := plainManager(t)
	good := hostRootfs(t)
	hostile := hostRootfs(t)
	testenv.Run(t, "debugfs", "-w", "-R", "sif /root/.profile block[0] 4000000000", hostile)
	for _, tc := range []struct {
		what, path string
		rootfs     bool
		kind       error
		says, hint string
	}{
		{"needs recovery", dirty(t, hostRootfs(t)), false, banger.ErrConflict, "needs recovery", "e2fsck -f "},
		{"bigalloc", hostRootfs(t, "-O", "bigalloc"), false, banger.ErrUnsupported, "bigalloc", ""},
		{"a tar for --rootfs", save(t, tarOf(t, text("x", "y"))), true, banger.ErrUnsupported, "tar", ""},
		{"qcow2", save(t, append([]byte("QFI\xfb"), make([]byte, 70_000)...)), false, banger.ErrInvalid, "qcow2", "qemu-img convert"},
		{"text", save(t, []byte(strings.Repeat("words ", 1000))), false, banger.ErrInvalid, "no tar", "an image is"},
		{"nothing for --rootfs", good + ".no", true, banger.ErrNotFound, "no such file", ""},
		{"wild block", hostile, false, banger.ErrCorrupt, "", ""},
	} {
		_, err := m.Import(t.Context(), api.ImportRequest{Name: "mine", Path: tc.path, Rootfs: tc.rootfs}, nil)
		if !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says) || !strings.Contains(banger.HintOf(err), tc.hint) {
			t.Errorf("%s: Import = %v (%s, hint %q), want %v, %q, %q", tc.what, err, banger.KindName(err), banger.HintOf(err), tc.kind, tc.says, tc.hint)
		}
	}
	if left := names(t, m.Dir.Images()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
