package smoke

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/testenv"
)

// vmRow is what these tests read of `vm list --json` and `vm show --json`.
type vmRow struct {
	ID    string         `json:"id"`
	State banger.VMState `json:"state"`
	Spec  banger.VMSpec  `json:"spec"`
	Exit  *banger.Exit   `json:"exit"`
	Last  string         `json:"last_error"`
	PIDs  map[string]int `json:"pids"`
	Accel string         `json:"accel"`
	Dir   string         `json:"dir"`
	Boots int            `json:"boots"`

	ExpiresAt time.Time `json:"expires_at"`
}

func listVMs(w *testenv.World) []vmRow {
	var rows []vmRow
	w.JSON(&rows, "vm", "list")
	return rows
}

func showVM(w *testenv.World, ref string) vmRow {
	var row vmRow
	w.JSON(&row, "vm", "show", ref)
	return row
}

func wantStatus(t *testing.T, r testenv.Result, want int, inStderr ...string) {
	t.Helper()
	if r.Status != want {
		t.Fatalf("exit status %d, want %d\nstdout: %s\nstderr: %s", r.Status, want, r.Stdout, r.Stderr)
	}
	for _, text := range inStderr {
		if !strings.Contains(r.Stderr, text) {
			t.Errorf("stderr has no %q:\n%s", text, r.Stderr)
		}
	}
}

func TestRunOneCommand(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	r := w.Run("vm", "run", "--rm", "--name", "devbox", "--", "sh", "-c", "hostname; uname -s; id -u; echo to stderr >&2; exit 42")
	wantStatus(t, r, 42, "to stderr", "ready in")
	if r.Stdout != "devbox\nLinux\n0\n" {
		t.Errorf("stdout = %q, want the command's output alone", r.Stdout)
	}
	if rows := listVMs(w); len(rows) != 0 {
		t.Errorf("--rm left %v", rows)
	}
}

// One VM serves all the cases: what a command gets and how it ends.
func TestExec(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "create", "--name", "devbox", "--env", "FROM_SPEC=spec", "--label", "team=blue")
	w.Must("vm", "start", "devbox")

	t.Run("status", func(t *testing.T) {
		for _, tc := range []struct {
			argv []string
			want int
		}{
			{[]string{"true"}, 0},
			{[]string{"sh", "-c", "exit 7"}, 7},
			{[]string{"sh", "-c", "kill -KILL $$"}, 137},
			{[]string{"sh", "-c", "kill -SEGV $$"}, 139},
			{[]string{"no-such-program"}, 127},
			{[]string{"/etc/passwd"}, 126},
		} {
			r := w.Run(append([]string{"vm", "exec", "devbox", "--"}, tc.argv...)...)
			if r.Status != tc.want {
				t.Errorf("exec %q: status %d, want %d (%s)", tc.argv, r.Status, tc.want, r.Stderr)
			}
		}
	})
	t.Run("argv", func(t *testing.T) {
		argv := []string{"printf", `%s|`, "a b", "", "'", `"`, "$HOME", "*", "new\nline", "-x", "ünï", `back\slash`, "--", "{}"}
		r := w.Run(append([]string{"vm", "exec", "devbox", "--"}, argv...)...)
		if want := strings.Join(argv[2:], "|") + "|"; r.Stdout != want {
			t.Errorf("stdout = %q, want %q", r.Stdout, want)
		}
	})
	t.Run("streams", func(t *testing.T) {
		input := make([]byte, 8<<20+13)
		rand.New(rand.NewSource(1)).Read(input)
		r := w.RunInput(string(input), "vm", "exec", "devbox", "--", "sh", "-c", "tee /dev/stderr")
		wantStatus(t, r, 0)
		want := sha256.Sum256(input)
		if sha256.Sum256([]byte(r.Stdout)) != want || sha256.Sum256([]byte(r.Stderr)) != want {
			t.Errorf("%d bytes in, %d bytes on stdout, %d on stderr: not the same", len(input), len(r.Stdout), len(r.Stderr))
		}
	})
	t.Run("environment", func(t *testing.T) {
		r := w.Run("vm", "exec", "--env", "A=b c", "--workdir", "/usr", "devbox", "--", "sh", "-c", `echo "$A,$FROM_SPEC,$HOME,$(pwd)"`)
		wantStatus(t, r, 0)
		if r.Stdout != "b c,spec,/root,/usr\n" {
			t.Errorf("stdout = %q", r.Stdout)
		}
		wantStatus(t, w.Run("vm", "exec", "--workdir", "/no/such", "devbox", "--", "true"), 126, "/no/such")
	})
	t.Run("user", func(t *testing.T) {
		r := w.Run("vm", "exec", "--user", "nobody", "devbox", "--", "id", "-un")
		wantStatus(t, r, 0)
		if r.Stdout != "nobody\n" {
			t.Errorf("id -un = %q, want nobody", r.Stdout)
		}
		if r := w.Run("vm", "exec", "--user", "nosuchuser", "devbox", "--", "true"); r.Status == 0 || !strings.Contains(r.Stderr, "nosuchuser") {
			t.Errorf("unknown user: status %d, stderr %q", r.Status, r.Stderr)
		}
	})
	t.Run("background child holds the pipe", func(t *testing.T) {
		r := w.Run("vm", "exec", "devbox", "--", "sh", "-c", "sleep 600 & echo started")
		wantStatus(t, r, 0)
		if r.Stdout != "started\n" {
			t.Errorf("stdout = %q", r.Stdout)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		var group sync.WaitGroup
		for i := range 12 {
			group.Go(func() {
				r := w.Run("vm", "exec", "devbox", "--", "sh", "-c", fmt.Sprintf("echo out%d; echo err%d >&2; exit %d", i, i, i))
				if r.Status != i || r.Stdout != fmt.Sprintf("out%d\n", i) || r.Stderr != fmt.Sprintf("err%d\n", i) {
					t.Errorf("exec %d: status %d, stdout %q, stderr %q", i, r.Status, r.Stdout, r.Stderr)
				}
			})
		}
		group.Wait()
	})
	t.Run("guest", func(t *testing.T) {
		// The root is an overlay, /root and /tmp are the disk's own ext4, and the kernel's modules can be loaded.
		script := `set -e
stat -f -c %T / /root /tmp /var/lib/docker
test "$(stat -c %a:%u:%g /root/.ssh/authorized_keys)" = 600:0:0
test "$(stat -c %a /tmp)" = 1777
ls /lib/modules/$(uname -r)/modules.dep >/dev/null
ip link 2>/dev/null || true
git --version >/dev/null
grep -q "^devbox$" /etc/hostname`
		r := w.Run("vm", "exec", "devbox", "--", "sh", "-c", script)
		wantStatus(t, r, 0)
		if want := "overlayfs\next2/ext3\next2/ext3\next2/ext3\n"; !strings.HasPrefix(r.Stdout, want) {
			t.Errorf("file systems = %q, want %q", r.Stdout, want)
		}
	})
	t.Run("no process of the VM has privilege", func(t *testing.T) {
		pids := showVM(w, "devbox").PIDs
		for _, name := range []string{"banger-machine", "vmm"} {
			if pids[name] == 0 {
				t.Fatalf("vm show gives no pid of %s: %v", name, pids)
			}
		}
		checkUnprivileged(t, w)
	})
	t.Run("console and logs", func(t *testing.T) {
		w.Must("vm", "exec", "devbox", "--", "sh", "-c", "echo hello from the guest > /dev/console")
		testenv.WaitFor(t, time.Minute, "the line on the console", func() bool {
			return strings.Contains(w.Must("vm", "logs", "devbox"), "hello from the guest")
		})
	})
	t.Run("survives a restart of the daemon", func(t *testing.T) {
		before := w.Must("vm", "exec", "devbox", "--", "cat", "/proc/sys/kernel/random/boot_id")
		w.Must("daemon", "stop")
		after := w.Must("vm", "exec", "devbox", "--", "cat", "/proc/sys/kernel/random/boot_id")
		if before != after {
			t.Errorf("boot id was %s, is %s", before, after)
		}
		if state := showVM(w, "devbox").State; state != banger.StateRunning {
			t.Errorf("state = %s, want running", state)
		}
	})
}

func TestStopAndStartKeepData(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "create", "--name", "keep")
	w.Must("vm", "start", "keep")
	w.Must("vm", "exec", "keep", "--", "sh", "-c", "echo home > /root/a; echo system > /etc/b; echo tmp > /var/tmp/c")
	first := w.Must("vm", "exec", "keep", "--", "cat", "/proc/sys/kernel/random/boot_id")
	w.Must("vm", "stop", "keep")
	row := showVM(w, "keep")
	if row.State != banger.StateStopped || row.Exit == nil || row.Exit.Cause != banger.ExitPowerOff {
		t.Fatalf("after stop: state %s, exit %+v, want stopped by power-off", row.State, row.Exit)
	}
	if !strings.Contains(w.Must("vm", "logs", "keep"), "\n") {
		t.Error("vm logs of a stopped VM is empty")
	}
	wantStatus(t, w.Run("vm", "exec", "keep", "--", "true"), 125, "keep", "vm start keep")
	testenv.CheckExt4(t, row.Dir+"/disk.ext4")

	w.Must("vm", "start", "keep")
	if got := w.Must("vm", "exec", "keep", "--", "cat", "/root/a", "/etc/b", "/var/tmp/c"); got != "home\nsystem\ntmp\n" {
		t.Errorf("files after the restart = %q", got)
	}
	if second := w.Must("vm", "exec", "keep", "--", "cat", "/proc/sys/kernel/random/boot_id"); second == first {
		t.Error("the boot id did not change")
	}
	wantStatus(t, w.Run("vm", "delete", "keep"), 4, "keep")
	w.Must("vm", "delete", "--force", "keep")
	if rows := listVMs(w); len(rows) != 0 {
		t.Errorf("delete left %v", rows)
	}
}

// A guest that powers itself off, reboots or panics is told apart.
func TestHowRunsEnd(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "run", "--name", "ends", "--", "true")
	bootID := func() string { return w.Must("vm", "exec", "ends", "--", "cat", "/proc/sys/kernel/random/boot_id") }

	first := bootID()
	w.Must("vm", "exec", "ends", "--", "sh", "-c", "echo kept > /root/kept; sync")
	w.Run("vm", "exec", "ends", "--", "sh", "-c", "echo b > /proc/sysrq-trigger; sleep 60")
	testenv.WaitFor(t, time.Minute, "the guest after its reboot", func() bool {
		r := w.Run("vm", "exec", "ends", "--", "cat", "/proc/sys/kernel/random/boot_id")
		return r.Status == 0 && r.Stdout != first
	})
	if got := w.Must("vm", "exec", "ends", "--", "cat", "/root/kept"); got != "kept\n" {
		t.Errorf("after a reboot: %q", got)
	}

	r := w.Run("vm", "exec", "ends", "--", "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 60")
	wantStatus(t, r, 125, "ends")
	testenv.WaitFor(t, time.Minute, "state error", func() bool { return showVM(w, "ends").State == banger.StateError })
	row := showVM(w, "ends")
	if row.Exit == nil || row.Exit.Cause != banger.ExitPanic || !strings.Contains(row.Exit.Console, "sysrq") {
		t.Errorf("after a panic: exit %+v, want a panic with the console's last lines", row.Exit)
	}

	w.Must("vm", "start", "ends")
	w.Run("vm", "exec", "ends", "--", "sh", "-c", "echo o > /proc/sysrq-trigger; sleep 60")
	testenv.WaitFor(t, time.Minute, "state stopped", func() bool { return showVM(w, "ends").State == banger.StateStopped })
	if row := showVM(w, "ends"); row.Exit == nil || row.Exit.Cause != banger.ExitPowerOff {
		t.Errorf("after the guest's own power-off: exit %+v", row.Exit)
	}
}

func TestTwoRunsAtOnce(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	var group sync.WaitGroup
	for i := range 2 {
		group.Go(func() {
			r := w.Run("vm", "run", "--rm", "--", "echo", fmt.Sprint(i))
			if r.Status != 0 || r.Stdout != fmt.Sprintf("%d\n", i) {
				t.Errorf("run %d: status %d, stdout %q, stderr %s", i, r.Status, r.Stdout, r.Stderr)
			}
		})
	}
	group.Wait()
}

func TestTimingsAndJSON(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	r := w.Run("vm", "run", "--rm", "--timings", "--", "true")
	wantStatus(t, r, 0, "host", "guest")

	var images, kernels []map[string]any
	w.JSON(&images, "image", "list")
	w.JSON(&kernels, "kernel", "list")
	if len(images) != 1 || images[0]["name"] != "debian-bookworm-slim" || len(kernels) != 1 {
		t.Errorf("images %v, kernels %v", images, kernels)
	}
	var version map[string]any
	w.JSON(&version, "version")
	r = w.Run("vm", "show", "nosuch", "--json")
	wantStatus(t, r, 3)
	var body banger.ErrorBody
	if err := json.Unmarshal([]byte(r.Stderr), &body); err != nil || body.Kind != "not_found" || !strings.Contains(body.Message, "nosuch") {
		t.Errorf("--json error = %q (%v)", r.Stderr, err)
	}
}

// A command in a run that the terminal's user interrupts gets the signal; the VM goes with --rm.
func TestInterruptEndsTheRun(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := w.Command(ctx, "vm", "run", "--rm", "--name", "bye", "--", "sh", "-c", "trap 'echo got it; exit 9' INT; echo up; while :; do sleep 0.1; done")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitLine(t, out, "up")
	signalTree(t, cmd.Process.Pid)
	waitLine(t, out, "got it")
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 9 {
		t.Errorf("exit status %d, want the command's 9\n%s", got, errs.String())
	}
	testenv.WaitFor(t, time.Minute, "the VM to go", func() bool { return len(listVMs(w)) == 0 })
}
