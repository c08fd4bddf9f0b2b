package smoke

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/testenv"
)

// guestProgram is a static program of testdata.
func guestProgram(t *testing.T, name string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	build := exec.Command(testenv.RequireTool(t, "go"), "build", "-o", out, ".")
	build.Dir, build.Env = filepath.Join("testdata", name), append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	program, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(program)
}

// busyboxTar is a root file system of one static program.
func busyboxTar(t *testing.T) string {
	t.Helper()
	program, err := os.ReadFile(testenv.RequireTool(t, "busybox"))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range []struct {
		header  tar.Header
		content []byte
	}{{tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, nil}, {tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))}, program}} {
		err := w.WriteHeader(&e.header)
		if err == nil {
			_, err = w.Write(e.content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// wantServices uses what the kernel gives: modules by modprobe and on demand, FUSE.
func wantServices(t *testing.T, w *testenv.World, vm string) {
	t.Helper()
	if out := w.Must("vm", "exec", vm, "--", "sh", "-c", "modprobe veth && grep -c '^veth ' /proc/modules"); out != "1\n" {
		t.Errorf("modprobe veth: %q", out)
	}
	if r := w.Run("vm", "exec", vm, "--", "modprobe", "no-such-module"); r.Status == 0 || !strings.Contains(r.Stderr, "no-such-module") {
		t.Errorf("modprobe of nothing: status %d, %s", r.Status, r.Stderr)
	}
	if r := w.RunInput(guestProgram(t, "fuse"), "vm", "exec", vm, "--", "sh", "-c", "cat >/tmp/prog && chmod +x /tmp/prog && /tmp/prog"); r.Status != 0 || r.Stdout != "through FUSE\n" {
		t.Errorf("FUSE: status %d, %q, %s", r.Status, r.Stdout, r.Stderr)
	}
}

// The default image of an installed banger: systemd comes up whole, and Docker runs a container, without any network.
func TestDefaultImage(t *testing.T) { // alone: systemd has half a minute to come up
	testenv.RequireTier(t, "smoke", "soak")
	tarball := busyboxTar(t)
	w := testenv.NewWorld(t)
	var image banger.Image
	w.JSON(&image, "image", "build", "debian-bookworm")
	if image.Boot != banger.BootSystem || image.Name != "debian-bookworm" {
		t.Errorf("built %+v", image)
	}
	if r := w.Run("vm", "run", "--name", "sys", "--memory", "1500M", "--image", "debian-bookworm", "--", "systemctl", "is-system-running"); r.Status != 0 || r.Stdout != "running\n" {
		t.Errorf("systemd: status %d, %q, %s", r.Status, r.Stdout, r.Stderr)
	}
	if out := w.Must("vm", "exec", "sys", "--", "systemctl", "--failed", "--no-legend", "--plain"); out != "" {
		t.Errorf("failed units: %s", out)
	}
	if out := w.Must("vm", "exec", "sys", "--", "systemctl", "is-active", "multi-user.target"); out != "active\n" {
		t.Errorf("multi-user.target is %q", out)
	}
	if len(image.Missing) > 0 { // its registry did not answer, and that was told
		t.Logf("left out: %v", image.Missing)
	} else if out := w.Must("vm", "exec", "sys", "--", "mise", "--version"); !strings.Contains(out, "linux-x64") {
		t.Errorf("mise --version: %q", out)
	}
	wantServices(t, w, "sys")
	if out := w.Must("vm", "exec", "sys", "--", "iptables", "-L", "-n"); !strings.Contains(out, "Chain FORWARD") {
		t.Errorf("iptables: %s", out)
	}
	if r := w.RunInput(tarball, "vm", "exec", "sys", "--", "docker", "import", "-", "box:1"); r.Status != 0 {
		t.Fatalf("docker import: %s", r.Stderr)
	}
	if out := w.Must("vm", "exec", "sys", "--", "docker", "info", "--format", "{{.Driver}}"); out != "overlay2\n" {
		t.Errorf("docker's storage driver is %q", out)
	}
	if out := w.Must("vm", "exec", "sys", "--", "docker", "run", "--rm", "box:1", "/bin/busybox", "sh", "-c", "echo from a container; busybox ip addr show eth0 | busybox grep -c inet"); out != "from a container\n1\n" {
		t.Errorf("docker run: %q", out)
	}
	w.Must("vm", "stop", "sys")
	var vm banger.VM
	if w.JSON(&vm, "vm", "show", "sys"); vm.Exit == nil || vm.Exit.Cause != banger.ExitPowerOff {
		t.Errorf("it ended with %+v", vm.Exit)
	}
	w.Must("vm", "start", "sys")
	if out := w.Must("vm", "exec", "sys", "--", "docker", "run", "--rm", "--network", "none", "box:1", "/bin/busybox", "echo", "again"); out != "again\n" {
		t.Errorf("docker run after a stop: %q", out)
	}
}

// An image without kmod and without an init has the kernel's services too.
func TestServicesWithoutKmod(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("image", "build", "nokmod", "--from", "debian:bookworm", "--packages", "iptables,iproute2")
	w.Must("vm", "create", "--name", "box", "--image", "nokmod")
	w.Must("vm", "start", "box")
	if out := w.Must("vm", "exec", "box", "--", "sh", "-c", "ls /usr/bin/kmod /bin/kmod /run/systemd/system 2>/dev/null; true"); out != "" {
		t.Errorf("there is %s", out)
	}
	wantServices(t, w, "box")
	if out := w.Must("vm", "exec", "box", "--", "iptables", "-L", "-n"); !strings.Contains(out, "Chain FORWARD") {
		t.Errorf("iptables: %s", out)
	}
	if out := w.Must("vm", "exec", "box", "--", "sh", "-c", "ip link add one type veth peer name two && ip -br link show one"); !strings.HasPrefix(out, "one@two") {
		t.Errorf("veth: %q", out)
	}
}
