package smoke

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/testenv"
)

// A guest under emulation has a KVM that runs stock kernels (QEMU emulates AMD's SVM). So banger runs banger: the programs
// of this world, its image and its kernel go into a VM, and make a VM with KVM there.
func TestRunsWithKVM(t *testing.T) { // alone: what is emulated twice has deadlines
	testenv.RequireTier(t, "smoke", "soak")
	if release, err := os.ReadFile("/etc/debian_version"); err != nil || !strings.HasPrefix(string(release), "12.") {
		testenv.Skip(t, "Debian 12, whose QEMU runs in the guest")
	}
	w := testenv.NewWorld(t)
	w.Must("vm", "create", "--name", "outer", "--memory", "4G", "--vcpu", "2", "--env", "LC_ALL=C.UTF-8")
	w.Must("vm", "start", "outer")

	unpack(t, w, "/opt/banger", "tar", "-C", w.Bin, "-c", "banger", "bangerd", "banger-machine", "banger-guest")
	unpack(t, w, "/home/dev/state", "tar", "-C", w.State, "-cS", "images", "kernels")
	unpack(t, w, "/", "tar", append([]string{"-C", "/", "-ch"}, qemuFiles(t)...)...)
	inOuter(t, w, "prepare the host", `
		"$(cat /proc/sys/kernel/modprobe)" -q -- kvm_amd; test -c /dev/kvm
		chmod 666 /dev/kvm
		useradd --home-dir /home/dev dev
		chown -R dev:dev /home/dev && chmod 700 /home/dev/state`)

	banger := func(args string) string {
		return inOuter(t, w, args, `cd / && HOME=/home/dev BANGER_STATE_DIR=/home/dev/state BANGER_BOOT_DEADLINE=5m PATH=/opt/banger:/usr/bin:/bin `+
			`setpriv --reuid dev --regid dev --clear-groups banger `+args)
	}
	if out := banger("vm run --rm --image debian-bookworm-slim -- uname -s"); out != "Linux\n" {
		t.Errorf("vm run printed %q", out)
	}
	banger("vm create --name inner --image debian-bookworm-slim")
	banger("vm start inner")
	for _, id := range []string{"first", "second"} {
		banger("vm exec inner -- sh -c 'echo " + id + " >> /root/kept'")
		if id == "first" {
			banger("vm stop inner")
			banger("vm start inner")
		}
	}
	if out := banger("vm exec inner -- cat /root/kept"); out != "first\nsecond\n" {
		t.Errorf("after stop and start: %q", out)
	}
	if out := banger("vm show inner --json"); !strings.Contains(out, `"accel": "kvm"`) {
		t.Errorf("vm show inner: no KVM: %s", out)
	}
	if out := banger("vm exec inner -- sh -c 'exit 7' || test $? = 7 && echo kept"); out != "kept\n" {
		t.Errorf("exit status in the inner VM: %q", out)
	}
	banger("vm delete --force inner")
}

// unpack fills a directory of the VM outer from a tar on the host. What is there already stays.
func unpack(t *testing.T, w *testenv.World, dir, name string, args ...string) {
	t.Helper()
	pack := exec.Command(name, args...)
	w.User.As(pack)
	pack.Stderr = os.Stderr
	stream, err := pack.StdoutPipe()
	if err == nil {
		err = pack.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := w.Command(t.Context(), "vm", "exec", "outer", "--", "sh", "-c", "mkdir -p "+dir+" && exec tar -x --skip-old-files -C "+dir)
	cmd.Stdin = io.Reader(stream)
	r := testenv.Capture(t, cmd)
	if err := pack.Wait(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	wantStatus(t, r, 0)
}

// inOuter runs a script in the VM outer and gives its output.
func inOuter(t *testing.T, w *testenv.World, what, script string) string {
	t.Helper()
	r := w.Run("vm", "exec", "outer", "--", "sh", "-ec", script)
	if r.Status != 0 {
		t.Fatalf("%s: status %d\n%s\n%s", what, r.Status, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// qemuFiles is QEMU with its libraries and firmware, relative to the root.
func qemuFiles(t *testing.T) []string {
	t.Helper()
	program := testenv.RequireTool(t, "qemu-system-x86_64")
	files := []string{program, "/usr/bin/qemu-system-i386", "/usr/share/qemu", "/usr/share/seabios"}
	modules, err := filepath.Glob("/usr/lib/*/qemu/accel-*.so")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, modules...)
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if _, rest, ok := strings.Cut(line, "=> "); ok {
			path, _, _ := strings.Cut(rest, " (")
			files = append(files, strings.TrimSpace(path))
		}
	}
	var there []string
	for _, path := range files {
		if _, err := os.Stat(path); err == nil {
			there = append(there, strings.TrimPrefix(path, "/"))
		}
	}
	return there
}
