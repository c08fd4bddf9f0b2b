package smoke

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/testenv"
)

// kernelPackage gives the path of a Debian package, "name" or "name version", that the world's user can read, and of the
// directory that it unpacks to.
func kernelPackage(t *testing.T, w *testenv.World, pkg string) (deb, tree string) {
	t.Helper()
	_, content := testenv.AptDownload(t, pkg)
	dir := w.User.Dir(t)
	deb, tree = filepath.Join(dir, "kernel.deb"), filepath.Join(dir, "tree")
	if err := errors.Join(os.WriteFile(deb, content, 0o644), os.Chmod(deb, 0o644)); err != nil {
		t.Fatal(err)
	}
	unpack := exec.Command(testenv.RequireTool(t, "dpkg-deb"), "-x", deb, tree)
	w.User.As(unpack)
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	return deb, tree
}

// The package of the default kernel boots under another name, and so does the tree that it unpacks to, with packed modules.
func TestImportedKernelBoots(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	var own []banger.Kernel
	w.JSON(&own, "kernel", "list")
	if len(own) != 1 {
		t.Fatalf("kernels: %+v", own)
	}
	version := own[0].Version
	deb, tree := kernelPackage(t, w, own[0].Source)

	if out := w.Must("kernel", "import", "mine", "--deb", deb); out != "mine\n" {
		t.Errorf("kernel import printed %q", out)
	}
	if out := w.Must("vm", "run", "--name", "box", "--kernel", "mine", "--", "uname", "-r"); out != version+"\n" {
		t.Errorf("the guest runs %q, want %s", out, version)
	}
	if out := w.Must("vm", "show", "box"); !strings.Contains(out, "mine") {
		t.Errorf("vm show:\n%s", out)
	}
	if r := w.Run("kernel", "delete", "mine"); r.Status != 4 || !strings.Contains(r.Stderr, "box") {
		t.Errorf("delete a kernel in use: status %d, %s", r.Status, r.Stderr)
	}
	w.Must("vm", "stop", "box")
	w.Must("vm", "start", "box")
	w.Must("vm", "delete", "--force", "box")
	w.Must("kernel", "delete", "mine")

	modules, err := filepath.Glob(filepath.Join(tree, "lib/modules", version, "kernel/fs/overlayfs/*.ko"))
	if err != nil || len(modules) != 1 {
		t.Fatalf("%q, %v", modules, err)
	}
	pack := exec.Command(testenv.RequireTool(t, "xz"), "--check=crc32", modules[0])
	w.User.As(pack)
	if out, err := pack.CombinedOutput(); err != nil {
		t.Fatalf("xz: %v\n%s", err, out)
	}
	w.Must("kernel", "import", "tree", "--from", tree)
	const script = "uname -r; grep -c ^overlay /proc/modules; test -s /lib/modules/$(uname -r)/modules.dep.bin && echo indexed"
	if out := w.Must("vm", "run", "--rm", "--kernel", "tree", "--", "sh", "-c", script); out != version+"\n1\nindexed\n" {
		t.Errorf("the guest printed %q", out)
	}
	if err := os.Remove(modules[0] + ".xz"); err != nil {
		t.Fatal(err)
	}
	if r := w.Run("kernel", "import", "less", "--from", tree); r.Status != 1 || !strings.Contains(r.Stderr, "no overlay") {
		t.Errorf("a kernel without overlay: status %d, %s", r.Status, r.Stderr)
	}
	if out := w.Must("kernel", "list", "--quiet"); out != own[0].Name+"\ntree\n" {
		t.Errorf("kernels: %q", out)
	}
}

// Debian's kernel for any computer boots too: other things are modules in it.
func TestGenericKernelBoots(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	w := testenv.NewWorld(t)
	meta, _ := testenv.AptDownload(t, "linux-image-amd64")
	_, rest, _ := strings.Cut(meta, "\nDepends: ")
	name, _, _ := strings.Cut(rest, " ")
	deb, _ := kernelPackage(t, w, name)
	w.Must("kernel", "import", "generic", "--deb", deb)
	out := w.Must("vm", "run", "--rm", "--kernel", "generic", "--", "sh", "-c", "uname -r; grep -c ^ext4 /proc/modules")
	if !strings.HasSuffix(out, "-amd64\n1\n") || strings.Contains(out, "cloud") {
		t.Errorf("the guest printed %q", out)
	}
}
