package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/ext4/write"
	"banger/internal/kernel"
	"banger/internal/lifecycle"
	"banger/internal/machine"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/testenv"
	"banger/internal/tree"
	"banger/internal/vmm"
	"banger/internal/vmm/qemu"
)

const (
	testVM   = banger.VMID("0123456789ab")
	patience = 4 * time.Minute
	// Promises for an idle supervisor.
	maxAnonymous  = 12 << 20
	maxWakeups    = 2 // a second
	idleWindow    = 2 * time.Second
	idleWindows   = 5 // the first ones may see the end of earlier work
	deathPatience = 10 * time.Second
)

// realVM is a VM with Debian's kernel and a root that holds one program.
type realVM struct {
	machines lifecycle.Supervisors
	cfg      machine.Config
	client   machine.Client
}

func newRealVM(t *testing.T) *realVM {
	t.Helper()
	qemuPath := testenv.RequireTool(t, qemu.Program)
	testenv.RequireTool(t, "apt-get")
	dir := statedir.Dir{Root: filepath.Join(os.Getenv(envPrograms), "state")}
	if err := dir.Ensure(); err != nil {
		t.Fatal(err)
	}
	kernels := kernel.New(kernel.Config{Dir: dir})
	linux, err := kernels.Ensure(t.Context(), kernel.DefaultName, nil)
	if errors.Is(err, banger.ErrUnavailable) {
		t.Log(err)
		testenv.Skip(t, "a package mirror")
	}
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := kernels.Initrd(t.Context(), linux, program("banger-guest"))
	if err != nil {
		t.Fatal(err)
	}
	makeImage(t, dir.Image("image"))
	homes := lifecycle.Directories{Dir: dir}
	if err := homes.Create(t.Context(), lifecycle.Home{ID: testVM, Name: "devbox", ImageKey: "image", DiskBytes: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	home, parts := dir.VM(testVM), dir.Kernel(linux.Name)
	v := &realVM{
		machines: lifecycle.Supervisors{Dir: dir, Program: program("banger-machine")},
		client:   machine.Client{Socket: home.MachineSocket()},
		cfg: machine.Config{ID: testVM, Name: "devbox", Dir: home.Path, Driver: "qemu", QEMU: qemuPath, Accel: "tcg", TSCKHz: vmm.TSCKHz(), VCPU: 1,
			MemoryMiB: 256, Vmlinux: parts.Vmlinux(), Initrd: initrd, Base: dir.Image("image").Rootfs(), Modules: parts.Modules(), Disk: home.Disk(),
			Boot: banger.BootAgent, BootDeadline: patience / 2},
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(home.MachineLog())
			var console bytes.Buffer
			_, _ = machine.Client{Socket: home.MachineSocket()}.Console(context.Background(), machine.ConsoleRequest{}, &console)
			t.Logf("log:\n%s\nconsole:\n%s", log, console.String())
		}
		if err := v.machines.Finish(context.Background(), testVM, 0); err != nil {
			t.Error(err)
		}
	})
	return v
}

// makeImage makes a root with one program.
func makeImage(t *testing.T, image statedir.ImageDir) {
	t.Helper()
	tool, err := os.ReadFile(program("tool"))
	if err != nil {
		t.Fatal(err)
	}
	var seed bytes.Buffer
	if err := errors.Join(os.Mkdir(image.Path, 0o700), tree.WriteTar(&seed, tree.Of()), os.WriteFile(image.Seed(), seed.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	root := []tree.Entry{tree.Directory("usr", 0o755), tree.Directory("usr/bin", 0o755), tree.Literal("usr/bin/tool", 0o755, tool)}
	for _, dir := range []string{"dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr/lib", "usr/lib/modules", "var", "var/lib", "var/tmp"} {
		root = append(root, tree.Directory(dir, 0o755))
	}
	if _, err := write.CreateFile(t.Context(), image.Rootfs(), write.Options{SizeBytes: 64 << 20}, tree.Of(root...)); err != nil {
		t.Fatal(err)
	}
}

func (v *realVM) launch(t *testing.T) machine.Status {
	t.Helper()
	if err := v.machines.Launch(t.Context(), v.cfg); err != nil {
		t.Fatal(err)
	}
	return v.ready(t)
}

func (v *realVM) ready(t *testing.T) machine.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	status, err := v.client.Ready(ctx)
	if err != nil || status.Phase != machine.PhaseReady {
		t.Fatalf("Ready = %+v, %v", status, err)
	}
	return status
}

func (v *realVM) exec(t *testing.T, stdin string, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out bytes.Buffer
	result, err := v.client.Exec(ctx, banger.ExecRequest{Argv: argv}, machine.Stdio{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &out})
	if err != nil || result != (banger.ExecResult{}) {
		t.Errorf("exec %q = %+v, %v, %q", argv, result, err, out.String())
	}
	return out.String()
}

func (v *realVM) handles(t *testing.T) machine.Handles {
	t.Helper()
	h, supervisor, vmmLives, err := v.machines.Handles(testVM)
	if err != nil || !supervisor || !vmmLives {
		t.Fatalf("handles %+v, %v, %v, %v, want both alive", h, supervisor, vmmLives, err)
	}
	return h
}

func TestRealMachine(t *testing.T) {
	v := newRealVM(t)
	begun := time.Now()
	status := v.launch(t)
	t.Logf("ready in %v: %+v", time.Since(begun), status.Timings)
	for range 2 {
		begun = time.Now()
		v.exec(t, "", "tool", "true")
		t.Logf("exec in %v", time.Since(begun))
	}
	large := strings.Repeat("0123456789abcdef", 1<<16)
	if out := v.exec(t, large, "tool", "cat"); out != large {
		t.Errorf("cat of %d bytes gives %d", len(large), len(out))
	}
	h := v.handles(t)
	for name, process := range map[string]proc.Handle{"banger-machine": h.Supervisor, "VMM": h.VMM} {
		creds, err := proc.Creds(process.PID)
		if err != nil || creds.UIDs[0] == 0 || creds.UIDs[1] == 0 || creds.Permitted|creds.Effective|creds.Inheritable|creds.Ambient != 0 || !creds.NoNewPrivs {
			t.Errorf("%s runs as %+v, %v, want no root, no capability and no_new_privs", name, creds, err)
		}
	}
	checkIdle(t, h.Supervisor.PID)
	v.checkTakeOver(t, status, h)

	exit, err := v.client.Shutdown(t.Context(), patience)
	if err != nil || exit.Cause != banger.ExitPowerOff {
		t.Errorf("Shutdown = %+v, %v, want power-off", exit, err)
	}
	v.finish(t)
	v.checkPanic(t)
	v.checkCrash(t)
}

// checkTakeOver kills the supervisor; the next one goes on with the same guest.
func (v *realVM) checkTakeOver(t *testing.T, before machine.Status, h machine.Handles) {
	t.Helper()
	if err := h.Supervisor.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.client.Status(t.Context()); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Status of a dead supervisor = %v, want ErrUnavailable", err)
	}
	begun := time.Now()
	if err := v.machines.Relaunch(t.Context(), testVM); err != nil {
		t.Fatal(err)
	}
	v.ready(t)
	v.exec(t, "", "tool", "print", "printed after the take-over")
	t.Logf("taken over and used in %v", time.Since(begun))
	now := v.handles(t)
	status, err := v.client.Status(t.Context())
	if err != nil || now.VMM != h.VMM || now.Supervisor == h.Supervisor || status.BootID != before.BootID || status.Attempts != 1 {
		t.Errorf("after the take-over: %+v, %+v, %v, before: %+v, boot %s", now, status, err, h, before.BootID)
	}
	var console bytes.Buffer
	if _, err := v.client.Console(t.Context(), machine.ConsoleRequest{}, &console); err != nil || !strings.Contains(console.String(), "printed after the take-over") || strings.Count(console.String(), " boot ") != 1 {
		t.Errorf("console after the take-over: %v\n%s", err, console.String())
	}
}

// finish waits for the end of the supervisor, and checks that nothing is left.
func (v *realVM) finish(t *testing.T) {
	t.Helper()
	h, _, vmmLives, err := v.machines.Handles(testVM)
	if err != nil || vmmLives {
		t.Errorf("VMM lives after the end: %v, %v", vmmLives, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), deathPatience)
	defer cancel()
	if err := h.Supervisor.Wait(ctx); err != nil {
		t.Errorf("the supervisor does not end: %v", err)
	}
	for _, pattern := range []string{"qemu-*.sock", "guest.sock"} {
		if left, err := filepath.Glob(filepath.Join(v.cfg.Dir, pattern)); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

func (v *realVM) checkPanic(t *testing.T) {
	t.Helper()
	v.launch(t)
	_, err := v.client.Exec(t.Context(), banger.ExecRequest{Argv: []string{"tool", "panic"}}, machine.Stdio{})
	if !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("the command that ends its kernel = %v, want ErrUnavailable", err)
	}
	exit, err := v.client.Wait(t.Context())
	if err != nil || exit.Cause != banger.ExitPanic || !strings.Contains(exit.Console, "Kernel panic") {
		t.Errorf("Wait = %+v, %v, want a panic with the console's words", exit, err)
	}
	v.finish(t)
}

func (v *realVM) checkCrash(t *testing.T) {
	t.Helper()
	v.launch(t)
	if err := v.handles(t).VMM.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	exit, err := v.client.Wait(t.Context())
	if err != nil || exit.Cause != banger.ExitCrash || !strings.Contains(exit.Detail, "signal 9") {
		t.Errorf("Wait = %+v, %v, want a crash by signal 9", exit, err)
	}
	v.finish(t)
}

// checkIdle measures what a supervisor costs that has nothing to do.
func checkIdle(t *testing.T, pid int) {
	t.Helper()
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Skipf("needs /proc/PID/smaps_rollup: %v", err)
	}
	anonymous := field(t, string(rollup), "Anonymous:") << 10
	woken := math.Inf(1)
	for range idleWindows {
		before := switches(t, pid)
		time.Sleep(idleWindow)
		if woken = float64(switches(t, pid)-before) / idleWindow.Seconds(); woken <= maxWakeups {
			break
		}
	}
	t.Logf("idle: %s anonymous, %.1f wake-ups a second", banger.FormatSize(anonymous), woken)
	if anonymous > maxAnonymous || woken > maxWakeups {
		t.Errorf("idle supervisor: want at most %s and %d", banger.FormatSize(maxAnonymous), maxWakeups)
	}
}

// switches counts how often the threads of a process went to sleep.
func switches(t *testing.T, pid int) (total int64) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("threads of %d: %v", pid, err)
	}
	for _, path := range tasks {
		if status, err := os.ReadFile(path); err == nil {
			total += field(t, string(status), "voluntary_ctxt_switches:")
		}
	}
	return total
}

func field(t *testing.T, text, name string) int64 {
	t.Helper()
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s", name)
	return 0
}
