package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"banger"
	"banger/internal/proc"
	"banger/internal/testenv"
	"banger/internal/vmm"
)

var update = flag.Bool("update", false, "write the golden files")

// Environment of this binary when it plays another role.
const (
	envGuest      = "QEMU_TEST_GUEST"      // tests: path of the built test guest
	envSupervisor = "QEMU_TEST_SUPERVISOR" // a supervisor that is to die: the spec as JSON
)

// stateDir is where the kernel is made, beside the guest's program.
const stateDir = "state"

// TestMain makes the tests run as the ordinary user when root runs them: the guest's program is built first, then a copy
// of this binary goes on as that user.
func TestMain(m *testing.M) {
	proc.MaybeConfineMain()
	if name, ok := strings.CutPrefix(filepath.Base(os.Args[0]), fakePrefix); ok {
		playFake(name)
	}
	if spec := os.Getenv(envSupervisor); spec != "" {
		supervise(spec)
	}
	flag.Parse()
	fuzzing := flag.Lookup("test.fuzz").Value.String() != ""
	if os.Getenv(envGuest) != "" || fuzzing || *update {
		os.Exit(m.Run())
	}
	status, err := runAsOrdinaryUser()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func runAsOrdinaryUser() (status int, err error) {
	dir, err := os.MkdirTemp("/var/tmp", "bq")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	self, guest := filepath.Join(dir, "qemu.test"), filepath.Join(dir, "guest")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", guest, "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build the test guest: %w\n%s", err, out)
	}
	state := filepath.Join(dir, stateDir)
	if err := errors.Join(os.Chmod(dir, 0o755), copyFile(self, "/proc/self/exe"), os.Mkdir(state, 0o700)); err != nil {
		return 0, err
	}
	var args []string
	for _, arg := range os.Args[1:] {
		if !strings.HasPrefix(arg, "-test.testlogfile") { // of root; it only serves go's cache of results
			args = append(args, arg)
		}
	}
	cmd := exec.Command(self, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), envGuest+"="+guest)
	if os.Getuid() == 0 {
		u, err := user.Lookup("banger-test")
		if err != nil {
			return 0, fmt.Errorf("QEMU runs as an ordinary user in tests: %w", err)
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2, os.Chown(state, uid, gid)); err != nil {
			return 0, err
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		cmd.Env = append(cmd.Env, "HOME="+u.HomeDir, "USER="+u.Username)
	}
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		return 0, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// artifacts are a kernel and an initrd with the test guest.
type artifacts struct{ kernel, initrd string }

func realArtifacts(t *testing.T) artifacts {
	t.Helper()
	testenv.RequireTool(t, Program)
	testenv.RequireTool(t, "apt-get")
	a, err := makeArtifacts()
	if errors.Is(err, banger.ErrUnavailable) {
		t.Log(err)
		testenv.Skip(t, "a package mirror")
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var measureTSC = sync.OnceValue(vmm.TSCKHz)

// realSpec is a machine with the test guest.
func realSpec(t *testing.T) vmm.Spec {
	t.Helper()
	a := realArtifacts(t)
	dir := testenv.OrdinaryUser(t).Dir(t)
	spec := vmm.Spec{ID: "0123456789ab", Dir: dir, Program: Program, Accel: vmm.TCG, TSCKHz: measureTSC(), VCPU: 1, MemoryMiB: 128,
		Kernel: a.kernel, Initrd: a.initrd}
	for serial, readOnly := range map[string]bool{"base": true, "disk,0": false} {
		path := filepath.Join(dir, serial+".ext4")
		if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		spec.Drives = append(spec.Drives, vmm.Drive{Serial: serial, Path: path, ReadOnly: readOnly})
	}
	return spec
}

func newDriver(t *testing.T) *Driver {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return New(Config{Shim: self})
}

// supervise confines itself, starts a machine, tells its handle and waits to be killed.
func supervise(encoded string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var spec vmm.Spec
	if err := json.Unmarshal([]byte(encoded), &spec); err != nil {
		fail(err)
	}
	self, err := os.Executable()
	if err != nil {
		fail(err)
	}
	d := New(Config{Shim: self})
	own := proc.Confinement{ReadOnly: []string{"/proc", "/usr"}, ReadWrite: []string{spec.Dir, os.DevNull}}
	if err := proc.ConfineSelf(d.Confinement(spec).Merge(own)); err != nil {
		fail(err)
	}
	var handle proc.Handle
	m, err := d.Start(context.Background(), spec, func(h proc.Handle) error { handle = h; return nil })
	if err != nil {
		fail(err)
	}
	go io.Copy(io.Discard, m.Console())
	if err := json.NewEncoder(os.Stdout).Encode(handle); err != nil {
		fail(err)
	}
	m.Wait()
	os.Exit(0)
}

// orphan starts a machine by a supervisor and kills that.
func orphan(t *testing.T, _ vmm.Driver, spec vmm.Spec) proc.Handle {
	t.Helper()
	encoded, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envSupervisor+"="+string(encoded))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var handle proc.Handle
	err = json.NewDecoder(out).Decode(&handle)
	cmd.Process.Kill()
	cmd.Wait()
	if err != nil {
		t.Fatalf("supervisor: %v", err)
	}
	return handle
}
