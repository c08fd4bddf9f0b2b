package proc

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// programs is what a shell and its tools need.
var programs = []string{"/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache"}

// world is a home with a secret and a directory of a VM, both of the ordinary user.
type world struct {
	shim, secret, vm string
	cred             *syscall.Credential
}

func newWorld(t *testing.T) world {
	t.Helper()
	if LandlockABI() == 0 {
		t.Skipf("needs Landlock in the kernel")
	}
	cred := ordinary(t)
	dir, err := os.MkdirTemp("/tmp", "bp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := world{shim: filepath.Join(dir, "shim"), secret: filepath.Join(dir, "home/.ssh/id"), vm: filepath.Join(dir, "vm"), cred: cred}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []error{
		os.Chmod(dir, 0o755), os.MkdirAll(filepath.Dir(w.secret), 0o700), os.Mkdir(w.vm, 0o700),
		os.WriteFile(w.shim, self, 0o755), os.WriteFile(w.secret, []byte("secret"), 0o600),
		os.WriteFile(filepath.Join(w.vm, "disk"), []byte("data"), 0o600), os.WriteFile(filepath.Join(w.vm, "other"), nil, 0o600),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	if cred != nil {
		err = filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error { return os.Chown(path, int(cred.Uid), int(cred.Gid)) })
		if err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w world) run(c Confinement, argv ...string) (string, error) {
	path, args := ConfinedCommand(w.shim, c, argv...)
	return w.output(exec.Command(path, args...))
}

func (w world) output(cmd *exec.Cmd) (string, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: w.cred}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestConfinedProcessCannotReadSSHKeys(t *testing.T) {
	w := newWorld(t)
	if out, err := w.output(exec.Command("cat", w.secret)); err != nil || out != "secret" {
		t.Fatalf("outside of the domain: cat = %q, %v, want the secret", out, err)
	}
	c := Confinement{Exec: programs, ReadWrite: []string{filepath.Join(w.vm, "disk")}}
	if out, err := w.run(c, "cat", w.secret); err == nil || !strings.Contains(out, "Permission denied") {
		t.Errorf("in the domain: cat %s = %q, %v, want EACCES", w.secret, out, err)
	}
	if out, err := w.run(c, "cat", filepath.Join(w.vm, "disk")); err != nil || out != "data" {
		t.Errorf("in the domain: cat of a granted file = %q, %v", out, err)
	}
}

func TestConfinementBounds(t *testing.T) {
	w := newWorld(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	disk, other := filepath.Join(w.vm, "disk"), filepath.Join(w.vm, "other")
	c := Confinement{Exec: programs, ReadOnly: []string{other, "/proc", "/nowhere"}, ReadWrite: []string{disk, "/dev/null"}}
	tests := []struct {
		name, script string
		allowed      bool
		abi          int
	}{
		{"write a granted file", "echo >> " + disk, true, 1},
		{"write a read-only file", "echo >> " + other, false, 1},
		{"run a read-only file", "exec " + other, false, 1},
		{"truncate a read-only file", "truncate -s 0 " + other, false, 3},
		{"create beside it", "echo > " + filepath.Join(w.vm, "new"), false, 1},
		{"list the directory", "ls " + w.vm, false, 1},
		{"remove a granted file", "rm -f " + disk, false, 1},
		{"connect TCP", "bash -c ': < /dev/tcp/127.0.0.1/" + port + "'", false, 4},
		{"signal the parent", "kill -0 $PPID", false, 6},
		{"no_new_privs", "grep -q 'NoNewPrivs:.*1' /proc/self/status", true, 1},
		{"no core", "test $(ulimit -c) = 0 && test $(ulimit -H -c) = 0", true, 1},
		{"umask", "test $(umask) = 0077", true, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if LandlockABI() < test.abi {
				t.Skipf("needs Landlock ABI %d", test.abi)
			}
			out, err := w.run(c, "sh", "-c", test.script)
			if (err == nil) != test.allowed {
				t.Errorf("%s: %v, %q, want allowed = %v", test.script, err, out, test.allowed)
			}
		})
	}
	open := c
	open.Network, open.Signals = true, true
	if out, err := w.run(open, "sh", "-c", "bash -c ': < /dev/tcp/127.0.0.1/"+port+"' && kill -0 $PPID"); w.cred == nil && err != nil {
		t.Errorf("with Network and Signals: %q, %v", out, err)
	}
	if out, err := w.run(open, "bash", "-c", ": < /dev/tcp/127.0.0.1/"+port); err != nil {
		t.Errorf("with Network: %q, %v", out, err)
	}
}

func TestConfinedCommandKeepsOnlyItsFiles(t *testing.T) {
	w := newWorld(t)
	kept, err := os.Open("/etc/hostname")
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	dropped, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer dropped.Close()
	path, args := ConfinedCommand(w.shim, Confinement{Exec: programs, ReadOnly: []string{"/proc"}, KeepFiles: 1},
		"sh", "-c", "readlink /proc/$$/fd/[3-9]")
	cmd := exec.Command(path, args...)
	cmd.ExtraFiles = []*os.File{kept, dropped}
	if out, err := w.output(cmd); out != "/etc/hostname\n" {
		t.Errorf("descriptors = %q, %v, want only /etc/hostname", out, err)
	}
}

func TestShimFailures(t *testing.T) {
	w := newWorld(t)
	for name, test := range map[string]struct {
		args   []string
		status int
		text   string
	}{
		"no program":       {[]string{confineVerb, "{}", "no-such-program"}, exitNotStarted, "not installed"},
		"may not run it":   {[]string{confineVerb, "{}", "/bin/sh"}, exitNotStarted, "permission denied"},
		"bad confinement":  {[]string{confineVerb, "{", "/bin/sh"}, exitNotConfined, "read confinement"},
		"control in words": {[]string{confineVerb, `{"exec":["\u0000"]}`, "/bin/sh"}, exitNotConfined, "confine"},
	} {
		cmd := exec.Command(w.shim, test.args...)
		out, _ := w.output(cmd)
		if cmd.ProcessState.ExitCode() != test.status || !strings.Contains(out, test.text) {
			t.Errorf("%s: status %d, %q, want %d and %q", name, cmd.ProcessState.ExitCode(), out, test.status, test.text)
		}
	}
}

// ConfineSelf must hold on every thread, not only on the one that called it: a helper process proves it.
func TestConfineSelf(t *testing.T) {
	w := newWorld(t)
	cmd := exec.Command(w.shim, "-test.run=^TestConfineSelfHelper$", "-test.v")
	cmd.Env = append(os.Environ(), "CONFINE_SELF="+w.secret)
	out, err := w.output(cmd)
	if err != nil || !strings.Contains(out, "all threads confined") {
		t.Errorf("helper: %v\n%s", err, out)
	}
}

func TestConfineSelfHelper(t *testing.T) {
	secret := os.Getenv("CONFINE_SELF")
	if secret == "" {
		t.Skipf("needs TestConfineSelf to start it")
	}
	if _, err := os.ReadFile(secret); err != nil {
		t.Fatal(err)
	}
	if err := ConfineSelf(Confinement{ReadOnly: []string{"/proc"}}.Merge(Confinement{Exec: programs})); err != nil {
		t.Fatal(err)
	}
	results := make(chan error)
	const threads = 20
	for range threads {
		go func() { // no read may park in the poller: each goroutine blocks a thread of its own
			_, err := os.ReadFile(secret)
			results <- err
		}()
	}
	for range threads {
		if err := <-results; !os.IsPermission(err) {
			t.Errorf("read %s = %v, want EACCES", secret, err)
		}
	}
	tasks, _ := filepath.Glob("/proc/self/task/*/status")
	for _, task := range tasks {
		if status, err := os.ReadFile(task); err == nil && !bytes.Contains(status, []byte("NoNewPrivs:\t1")) {
			t.Errorf("%s lacks no_new_privs", task)
		}
	}
	fmt.Println("all threads confined")
}
