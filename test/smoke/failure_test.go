package smoke

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/testenv"
)

func TestBadInput(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "create", "--name", "taken")
	for _, tc := range []struct {
		what   string
		args   []string
		status int
		stderr []string
	}{
		{"unknown image", []string{"vm", "run", "--image", "debian-bookwrm-slim", "--", "true"}, 125, []string{"debian-bookwrm-slim", "debian-bookworm-slim"}},
		{"bad name", []string{"vm", "create", "--name", "No_Good"}, 2, []string{"No_Good", "a-z"}},
		{"name taken", []string{"vm", "create", "--name", "taken"}, 4, []string{"taken"}},
		{"no vcpu", []string{"vm", "create", "--vcpu", "0"}, 2, []string{"vcpu"}},
		{"little memory", []string{"vm", "create", "--memory", "10"}, 2, []string{"memory"}},
		{"small disk", []string{"vm", "create", "--disk-size", "1K"}, 2, []string{"disk"}},
		{"bad disk size", []string{"vm", "create", "--disk-size", "8X"}, 2, []string{"8X"}},
		{"unknown vm", []string{"vm", "start", "nosuch"}, 3, []string{"nosuch"}},
		{"near name", []string{"vm", "start", "takn"}, 3, []string{"taken"}},
		{"unknown flag", []string{"vm", "create", "--nam", "x"}, 2, []string{"--nam"}},
		{"unknown command", []string{"vm", "crate"}, 2, []string{"create"}},
		{"bad env", []string{"vm", "create", "--env", "A-B=1"}, 2, []string{"A-B"}},
		{"missing env file", []string{"vm", "create", "--env-file", "/no/such/file"}, 2, []string{"/no/such/file"}},
	} {
		r := w.Run(tc.args...)
		if r.Status != tc.status {
			t.Errorf("%s: status %d, want %d\n%s", tc.what, r.Status, tc.status, r.Stderr)
		}
		for _, text := range tc.stderr {
			if !strings.Contains(r.Stderr, text) {
				t.Errorf("%s: stderr has no %q:\n%s", tc.what, text, r.Stderr)
			}
		}
	}
	rows := listVMs(w)
	if len(rows) != 1 || rows[0].Spec.Name != "taken" {
		t.Errorf("bad input left %v", rows)
	}
	if dirs := vmDirs(t, w); len(dirs) != 1 {
		t.Errorf("bad input left directories %v", dirs)
	}
}

func vmDirs(t *testing.T, w *testenv.World) []string {
	t.Helper()
	dirs, err := filepath.Glob(w.State + "/vms/*")
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// wantNothingLeft waits until no VM, no VM directory and no machine or VMM process is left.
func wantNothingLeft(t *testing.T, w *testenv.World) {
	t.Helper()
	testenv.WaitFor(t, time.Minute, "everything of the VM to go", func() bool {
		if len(listVMs(w)) > 0 { // which starts a daemon that goes on with the work of one that was killed
			return false
		}
		for _, cmdline := range w.Processes() {
			if strings.Contains(cmdline, "banger-machine") || strings.Contains(cmdline, "qemu-system") {
				return false
			}
		}
		return len(vmDirs(t, w)) == 0
	})
}

// Whatever ends the client of a --rm run, the VM goes: SIGKILL, a restart of the daemon in between, the daemon down.
func TestLease(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		what   string
		before func(w *testenv.World)
	}{
		{"client killed", func(*testenv.World) {}},
		{"daemon restarted before", func(w *testenv.World) { w.Must("daemon", "stop"); w.Must("vm", "list") }},
		{"daemon killed before", func(w *testenv.World) {
			pid := w.DaemonPID()
			syscall.Kill(pid, syscall.SIGKILL)
			testenv.WaitFor(t, time.Minute, "the daemon to die", func() bool { return w.Processes()[pid] == "" })
		}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			t.Parallel()
			w := testenv.NewWorld(t)
			client, out := startRun(t, w, "vm", "run", "--rm", "--", "sh", "-c", "echo up; sleep 1000")
			waitLine(t, out, "up")
			tc.before(w)
			client.Process.Kill()
			client.Wait()
			wantNothingLeft(t, w)
		})
	}
}

// startRun starts banger in the background; the test's end kills it.
func startRun(t *testing.T, w *testenv.World, args ...string) (*exec.Cmd, io.Reader) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	cmd := w.Command(ctx, args...)
	cmd.Stderr = new(bytes.Buffer)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// The daemon may die and come back in the middle of a command: the stream does not notice.
func TestDaemonDiesDuringACommand(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "run", "--name", "stream", "--", "true")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := w.Command(ctx, "vm", "exec", "stream", "--", "sh", "-c", "echo up; read line; echo got $line; exit 5")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitLine(t, stdout, "up")
	if err := syscall.Kill(w.DaemonPID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.Must("vm", "list")
	io.WriteString(in, "word\n")
	waitLine(t, stdout, "got word")
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 5 {
		t.Errorf("exit status %d, want 5", got)
	}
}

// A daemon killed while it creates leaves nothing that the next one does not clear.
func TestDaemonKilledDuringCreate(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	for _, delay := range []time.Duration{5, 20, 60, 150, 400, 1000} {
		w.Must("vm", "list")
		pid := w.DaemonPID()
		client, out := startRun(t, w, "vm", "run", "--rm", "--", "true")
		time.Sleep(delay * time.Millisecond)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, out)
		client.Wait()
		wantNothingLeft(t, w)
	}
}

func TestVMMKilledDuringExec(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "run", "--name", "victim", "--", "true")
	cmd, out := startRun(t, w, "vm", "exec", "victim", "--", "sh", "-c", "echo up; sleep 1000")
	waitLine(t, out, "up")
	if err := syscall.Kill(showVM(w, "victim").PIDs["vmm"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, out)
	cmd.Wait()
	stderr := cmd.Stderr.(*bytes.Buffer).String()
	if got := cmd.ProcessState.ExitCode(); got != 125 || !strings.Contains(stderr, "victim") {
		t.Errorf("exit status %d, want 125; stderr %q", got, stderr)
	}
	testenv.WaitFor(t, time.Minute, "state error", func() bool { return showVM(w, "victim").State == banger.StateError })
	if row := showVM(w, "victim"); row.Exit == nil || row.Exit.Cause != banger.ExitCrash {
		t.Errorf("exit = %+v, want vmm-crash", row.Exit)
	}
	w.Must("vm", "start", "victim")
	w.Must("vm", "exec", "victim", "--", "true")
}

// A supervisor that dies leaves the guest running; another takes over.
func TestSupervisorKilled(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "run", "--name", "orphan", "--", "true")
	bootID := w.Must("vm", "exec", "orphan", "--", "cat", "/proc/sys/kernel/random/boot_id")
	if err := syscall.Kill(showVM(w, "orphan").PIDs["banger-machine"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var r testenv.Result
	testenv.WaitFor(t, time.Minute, "the new supervisor", func() bool {
		r = w.Run("vm", "exec", "orphan", "--", "cat", "/proc/sys/kernel/random/boot_id")
		return r.Status == 0
	})
	if r.Stdout != bootID {
		t.Errorf("boot id was %s, is %s: the guest was restarted", bootID, r.Stdout)
	}
	w.Must("vm", "stop", "orphan")
	if row := showVM(w, "orphan"); row.Exit == nil || row.Exit.Cause != banger.ExitPowerOff {
		t.Errorf("exit = %+v, want power-off", row.Exit)
	}
}

// A guest that never gets ready ends at the deadline, after one retry, and is kept as error with its console.
func TestGuestNeverReady(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.CopyBin()
	mute := filepath.Join(t.TempDir(), "mute")
	source := filepath.Join(mute, "main.go")
	if err := os.MkdirAll(mute, 0o755); err != nil {
		t.Fatal(err)
	}
	program := "package main\nimport (\n\"os\"\n\"time\"\n)\nfunc main() { os.Stdout.WriteString(\"mute guest is up\\n\"); time.Sleep(time.Hour) }\n"
	if err := os.WriteFile(source, []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	guest := filepath.Join(w.Bin, "banger-guest")
	if err := os.Remove(guest); err != nil {
		t.Fatal(err)
	}
	if err := testenv.Build(mute, guest, source, ""); err != nil {
		t.Fatal(err)
	}
	w.Env = append(w.Env, "BANGER_BOOT_DEADLINE=6s")
	r := w.Run("vm", "run", "--rm", "--name", "mute", "--", "true")
	wantStatus(t, r, 125, "mute", "ready")
	row := showVM(w, "mute")
	if row.State != banger.StateError || row.Exit == nil || row.Exit.Cause != banger.ExitNoBoot {
		t.Errorf("state %s, exit %+v, want error by no-boot, kept for a look", row.State, row.Exit)
	}
	w.Must("vm", "delete", "--force", "mute")
	wantNothingLeft(t, w)
}

func TestNoQEMU(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	bin := w.User.Dir(t)
	for _, tool := range []string{"sh", "apt-get", "mmdebstrap"} {
		if path, err := exec.LookPath(tool); err == nil {
			if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.Env = append(w.Env, "PATH="+bin)
	r := w.Run("vm", "run", "--rm", "--", "true")
	wantStatus(t, r, 125, "qemu-system-x86_64", "apt")
	wantNothingLeft(t, w)
}

func TestNoPackageMirror(t *testing.T) {
	t.Parallel()
	w := testenv.NewBareWorld(t)
	w.Env = append(w.Env, "BANGER_MIRROR=http://127.0.0.1:9/debian")
	r := w.Run("vm", "run", "--rm", "--", "true")
	wantStatus(t, r, 125, "mirror")
	wantNothingLeft(t, w)
	if left, _ := filepath.Glob(w.State + "/images/*"); len(left) != 0 {
		t.Errorf("left in images: %v", left)
	}
}

// Space runs out while the image and while the disk is made.
func TestNoSpace(t *testing.T) { // alone: name spaces that others make would have its mounts, too
	if os.Getuid() != 0 {
		testenv.Skip(t, "root to mount a small file system")
	}
	for _, tc := range []struct{ what, size string }{
		{"image", "60m"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			w := testenv.NewBareWorld(t)
			mountTmpfs(t, w, tc.size)
			r := w.Run("vm", "run", "--rm", "--", "true")
			wantStatus(t, r, 125, "space")
			wantNothingLeft(t, w)
			for _, part := range []string{"images", "kernels"} {
				if left, _ := filepath.Glob(w.State + "/" + part + "/.*staging*"); len(left) != 0 {
					t.Errorf("left in %s: %v", part, left)
				}
			}
		})
	}
	t.Run("disk", func(t *testing.T) {
		w := testenv.NewWorld(t)
		full := testenv.NewBareWorld(t)
		mountTmpfs(t, full, "900m")
		cmd := exec.Command("sh", "-c", "cp -a "+w.State+"/images "+w.State+"/kernels "+full.State+"/ && fallocate -l $(($(stat -f -c '%a*%S' "+full.State+") - 65536)) "+full.State+"/filler")
		w.User.As(cmd)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("fill: %v: %s", err, out)
		}
		wantStatus(t, full.Run("vm", "create", "--name", "nospace"), 5, "space")
		if err := os.Remove(full.State + "/filler"); err != nil {
			t.Fatal(err)
		}
		wantNothingLeft(t, full)
	})
}

func mountTmpfs(t *testing.T, w *testenv.World, size string) {
	t.Helper()
	opts := "mode=0700,size=" + size
	if err := syscall.Mount("tmpfs", w.State, "tmpfs", 0, opts); err != nil {
		testenv.Skip(t, "a mount of tmpfs: "+err.Error())
	}
	t.Cleanup(func() {
		w.Run("daemon", "stop")
		testenv.WaitFor(t, time.Minute, "the file system to be free", func() bool { return syscall.Unmount(w.State, 0) == nil })
	})
	if err := os.Chown(w.State, int(w.User.UID), int(w.User.GID)); err != nil {
		t.Fatal(err)
	}
}

func TestStateDirectoryNotOurs(t *testing.T) {
	t.Parallel()
	w := testenv.NewBareWorld(t)
	if err := os.Chmod(w.State, 0o755); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, w.Run("vm", "list"), 6, w.State, "BANGER_STATE_DIR")
	if os.Getuid() != 0 {
		return
	}
	if err := os.Chown(w.State, 0, 0); err != nil {
		t.Fatal(err)
	}
	if r := w.Run("vm", "list"); r.Status == 0 || !strings.Contains(r.Stderr, w.State) {
		t.Errorf("another user's directory: status %d, stderr %s", r.Status, r.Stderr)
	}
	if err := os.Chown(w.State, int(w.User.UID), int(w.User.GID)); err != nil {
		t.Fatal(err)
	}
}

func TestDaemonRefusesRoot(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		testenv.Skip(t, "root")
	}
	w := testenv.NewBareWorld(t)
	cmd := exec.Command(filepath.Join(w.Bin, "banger"), "vm", "list")
	cmd.Env = append(os.Environ(), "BANGER_STATE_DIR="+t.TempDir()+"/s")
	r := testenv.Capture(t, cmd)
	if r.Status == 0 || !strings.Contains(r.Stderr, "root") {
		t.Errorf("as root: status %d, stderr %s", r.Status, r.Stderr)
	}
}
