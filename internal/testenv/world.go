package testenv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// World is one installation of banger for one test: programs, an ordinary user, a state directory.
type World struct {
	t     testing.TB
	User  User
	Bin   string // directory of the programs
	State string
	Env   []string // appended to the user's environment

	config string // path of the configuration file
}

// Result is what a command did.
type Result struct {
	Stdout, Stderr string
	Status         int
	Elapsed        time.Duration
}

// NewWorld makes a world whose image and kernel are already there (hard links to one copy made per test process). When
// the test ends its VMs are deleted, its daemon ends, and every process left is reported.
func NewWorld(t testing.TB) *World {
	t.Helper()
	w := NewBareWorld(t)
	golden, err := goldenState(w)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"images", "kernels", "accel.json"} {
		cmd := exec.Command("cp", "-al", filepath.Join(golden, part), w.State+"/")
		w.User.As(cmd)
		if out, err := cmd.CombinedOutput(); err != nil && part != "accel.json" {
			t.Fatalf("copy %s: %v: %s", part, err, out)
		}
	}
	return w
}

// NewBareWorld makes a world with an empty state directory.
func NewBareWorld(t testing.TB) *World {
	t.Helper()
	RequireTool(t, "qemu-system-x86_64")
	u := OrdinaryUser(t)
	w := &World{t: t, User: u, Bin: Binaries(t), State: u.Dir(t), config: filepath.Join(u.Dir(t), "config.toml")}
	// The image that is made in seconds. Tests of the default one name that.
	if err := os.WriteFile(w.config, []byte("[images]\ndefault = \"debian-bookworm-slim\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

// CopyBin gives the world programs of its own, so that a test may replace one.
func (w *World) CopyBin() {
	w.t.Helper()
	dir := w.User.Dir(w.t)
	for _, name := range Programs {
		data, err := os.ReadFile(filepath.Join(w.Bin, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o755)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	w.Bin = dir
	w.t.Cleanup(w.close) // before the programs go
}

// Command prepares banger with args as the world's user. Extra environment comes last and wins.
func (w *World) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(w.Bin, "banger"), args...)
	cmd.Env = append(w.userEnv(), w.Env...)
	cmd.Dir = w.State
	w.User.As(cmd)
	return cmd
}

func (w *World) userEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "HOME", "USER", "LOGNAME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "BANGER_STATE_DIR", "BANGER_CONFIG", "TMPDIR":
		default:
			env = append(env, kv)
		}
	}
	return append(env, "HOME="+w.User.Home, "USER="+w.User.Name, "LOGNAME="+w.User.Name, "BANGER_STATE_DIR="+w.State, "BANGER_CONFIG="+w.config,
		"PATH="+w.Bin+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

// Run runs banger to its end with empty standard input.
func (w *World) Run(args ...string) Result {
	w.t.Helper()
	return w.RunInput("", args...)
}

// RunInput runs banger to its end with input on standard input.
func (w *World) RunInput(input string, args ...string) Result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := w.Command(ctx, args...)
	cmd.Stdin = strings.NewReader(input)
	return Capture(w.t, cmd)
}

// Capture runs cmd and collects what it printed. A command that could not be started or was killed fails the test.
func Capture(t testing.TB, cmd *exec.Cmd) Result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	start := time.Now()
	err := cmd.Run()
	r := Result{Stdout: out.String(), Stderr: errs.String(), Elapsed: time.Since(start)}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.Status = exit.ExitCode()
	case err != nil:
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, r.Stderr)
	}
	return r
}

// Must runs banger and fails the test unless it exits with 0. It gives standard output.
func (w *World) Must(args ...string) string {
	w.t.Helper()
	r := w.Run(args...)
	if r.Status != 0 {
		w.t.Fatalf("banger %s: exit status %d\n%s%s", strings.Join(args, " "), r.Status, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// JSON runs banger with --json appended before any "--" and decodes standard output into v.
func (w *World) JSON(v any, args ...string) {
	w.t.Helper()
	out := w.Must(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		w.t.Fatalf("banger %s: %v in %q", strings.Join(args, " "), err, out)
	}
}

// Processes are the world's processes: those whose command line or environment names its state directory.
func (w *World) Processes() map[int]string {
	found := map[int]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		cmdline, _ := os.ReadFile(dir + "/cmdline")
		environ, _ := os.ReadFile(dir + "/environ")
		if !bytes.Contains(cmdline, []byte(w.State)) && !bytes.Contains(environ, []byte("BANGER_STATE_DIR="+w.State+"\x00")) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(dir), "%d", &pid); err == nil && len(cmdline) > 0 {
			found[pid] = strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return found
}

// DaemonPID is the process id of the world's daemon.
func (w *World) DaemonPID() int {
	w.t.Helper()
	var status struct {
		PID int `json:"pid"`
	}
	w.JSON(&status, "daemon", "status")
	if status.PID == 0 {
		w.t.Fatal("daemon status gives no pid")
	}
	return status.PID
}

func (w *World) close() {
	if w.t.Failed() {
		w.dumpLogs() // before what they are about is deleted
	}
	if len(w.Processes()) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, _ := w.Command(ctx, "vm", "list", "--quiet").Output()
	if refs := strings.Fields(string(out)); len(refs) > 0 {
		w.Command(ctx, append([]string{"vm", "delete", "--force"}, refs...)...).Run()
	}
	w.Command(ctx, "daemon", "stop", "--force").Run()
	WaitFor(w.t, time.Minute, "the world's processes to end", func() bool { return len(w.Processes()) == 0 })
	for pid, cmdline := range w.Processes() {
		w.t.Errorf("left running: %d %s", pid, cmdline)
		if p, err := os.FindProcess(pid); err == nil {
			p.Kill()
		}
	}
}

func (w *World) dumpLogs() {
	logs, _ := filepath.Glob(w.State + "/vms/*/machine.log")
	for _, path := range append(logs, filepath.Join(w.State, "bangerd.log")) {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		w.t.Logf("%s:\n%s", path, data[max(0, len(data)-8000):])
	}
}

// WaitFor waits for a condition that has no event to wait on, such as a process's end. Past limit the test fails.
func WaitFor(t testing.TB, limit time.Duration, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("waited %s in vain for %s", limit, what)
			return
		}
	}
}

var golden struct {
	sync.Once
	dir string
	err error
}

// goldenState is a state directory with the test image and the kernel, made once per test process by a real first run.
func goldenState(w *World) (string, error) {
	golden.Do(func() {
		golden.dir, golden.err = os.MkdirTemp("/var/tmp", "bg")
		if golden.err == nil {
			golden.err = errors.Join(os.Chmod(golden.dir, 0o700), os.Chown(golden.dir, int(w.User.UID), int(w.User.GID)))
		}
		if golden.err != nil {
			return
		}
		first := *w
		first.State = golden.dir
		ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
		defer cancel()
		out, err := first.Command(ctx, "vm", "run", "--rm", "--", "true").CombinedOutput()
		if err != nil {
			golden.err = fmt.Errorf("first run: %w\n%s", err, out)
		}
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute) // also when the time for the run is over
		defer cancel()
		first.Command(ending, "daemon", "stop", "--force").Run()
	})
	return golden.dir, golden.err
}

// LogHost logs what a benchmark's figures depend on: how the world's guests are run, and what else the computer does.
func (w *World) LogHost() {
	w.t.Helper()
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		w.t.Fatal(err)
	}
	var kvm struct {
		Works bool `json:"works"`
	}
	probe, err := os.ReadFile(filepath.Join(w.State, "accel.json"))
	if err == nil {
		err = json.Unmarshal(probe, &kvm)
	} else if errors.Is(err, os.ErrNotExist) { // the device can't be opened: there was nothing to probe
		err = nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Logf("load before: %s", bytes.TrimSpace(load))
	w.t.Logf("accelerator: %s", map[bool]string{true: "KVM", false: "guests under emulation"}[kvm.Works])
}

// Main runs the tests of a package that makes worlds, as the last thing that its TestMain does.
func Main(m *testing.M) {
	status := m.Run()
	if err := removeGolden(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// removeGolden removes what NewWorld made once per test process.
func removeGolden() error {
	if golden.dir == "" {
		return nil
	}
	return os.RemoveAll(golden.dir)
}
