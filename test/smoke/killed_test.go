package smoke

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/hostcheck"
	"banger/internal/testenv"
)

// killing are the calls of the kernel before which the daemon is killed: all by which it changes something.
const killing = "fsync,fdatasync,pwrite64,ftruncate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,connect,sendto"

// The daemon is killed before each change that it makes for a request. The next one has every VM whole or not at all, and nothing else.
func TestDaemonKilledAtEachStep(t *testing.T) {
	t.Parallel()
	strace := testenv.RequireTool(t, "strace")
	w := testenv.NewWorld(t)
	stride := 3
	if testenv.Tier() != "test" {
		stride = 1
	}
	for _, op := range []struct {
		what   string
		before [][]string
		args   []string
	}{
		{"create", nil, []string{"vm", "create", "--name", "x", "--disk-size", "64M"}},
		{"set", [][]string{{"vm", "create", "--name", "x", "--disk-size", "64M"}}, []string{"vm", "set", "--disk-size", "128M", "--label", "a=b", "x"}},
		{"rename", [][]string{{"vm", "create", "--name", "x", "--disk-size", "64M"}}, []string{"vm", "rename", "x", "y"}},
		{"delete", [][]string{{"vm", "create", "--name", "x", "--disk-size", "64M"}}, []string{"vm", "delete", "--force", "x"}},
	} {
		t.Run(op.what, func(t *testing.T) {
			kills := 0
			for n, missed := 1, 0; missed < 3; n += stride { // the calls of each thread are counted alone: a later one may come still
				for _, args := range op.before {
					w.Must(args...)
				}
				if missed++; killAt(t, w, strace, n, op.args...) {
					kills, missed = kills+1, 0
				}
				if wantOrder(t, w, fmt.Sprintf("%s, killed at call %d", op.what, n)); t.Failed() {
					return
				}
			}
			if t.Logf("killed at %d calls", kills); kills == 0 {
				t.Error("the daemon was never killed")
			}
		})
	}
}

// killAt runs a command whose daemon is killed before the n-th of the calls in one of its threads. It tells whether that came.
func killAt(t *testing.T, w *testenv.World, strace string, n int, args ...string) bool {
	t.Helper()
	w.Must("vm", "list") // starts the daemon
	pid := w.DaemonPID()
	tracer := exec.Command(strace, "-f", "-p", fmt.Sprint(pid), "-o", "/dev/null", "-e", "trace="+killing, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", killing, n))
	told, err := tracer.StderrPipe()
	if err == nil {
		err = tracer.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer tracer.Wait()
	if line, err := bufio.NewReader(told).ReadString('\n'); err != nil || !strings.Contains(line, "attached") {
		tracer.Process.Kill()
		testenv.Skip(t, "strace of another process: "+line)
	}
	w.Run(args...)
	if w.Processes()[pid] == "" {
		return true
	}
	tracer.Process.Signal(syscall.SIGINT) // it lets go of the daemon
	return false
}

// wantOrder wants that records, directories and processes agree, all VMs stopped, and deletes them.
func wantOrder(t *testing.T, w *testenv.World, what string) {
	t.Helper()
	rows := listVMs(w)
	for _, vm := range rows {
		if vm.State != banger.StateStopped {
			t.Errorf("%s: %s is %s: %s", what, vm.Spec.Name, vm.State, vm.Last)
		}
		if vm.Spec.Name != "x" && vm.Spec.Name != "y" {
			t.Errorf("%s: there is a VM %s", what, vm.Spec.Name)
		}
	}
	if dirs := vmDirs(t, w); len(dirs) != len(rows) {
		t.Errorf("%s: %d records, directories %v", what, len(rows), dirs)
	}
	for _, place := range []string{"/vms/*/.*", "/images/.*", "/kernels/.*"} {
		if left, _ := filepath.Glob(w.State + place); len(left) > 0 {
			t.Errorf("%s: left %v", what, left)
		}
	}
	var report hostcheck.Report
	r := w.Run("doctor", "--json")
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
		t.Fatalf("doctor: %v\n%s", err, r.Stderr)
	}
	for _, c := range report {
		if c.Status == hostcheck.Fail || c.Name == "leftovers" && c.Status != hostcheck.Pass {
			t.Errorf("%s: doctor: %+v", what, c)
		}
	}
	for _, vm := range rows {
		w.Must("vm", "delete", "--force", vm.ID)
	}
	if dirs := vmDirs(t, w); len(dirs) > 0 {
		t.Errorf("%s: after the deletion there are %v", what, dirs)
	}
}

// The daemon is killed at random instants of a start, a stop and a deletion: the next one brings each to its end.
func TestDaemonKilledDuringChanges(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "create", "--name", "x")
	for i, args := range [][]string{{"vm", "start", "x"}, {"vm", "stop", "x"}, {"vm", "restart", "x"}, {"vm", "kill", "x"}, {"vm", "start", "x"}, {"vm", "delete", "--force", "x"}} {
		pid := w.DaemonPID()
		client, _ := startRun(t, w, args...)
		time.Sleep(time.Duration(40*(i+1)) * time.Millisecond)
		syscall.Kill(pid, syscall.SIGKILL)
		client.Wait()
		var rows []vmRow
		testenv.WaitFor(t, 4*time.Minute, strings.Join(args, " ")+" to come to an end", func() bool {
			rows = listVMs(w)
			return len(rows) == 0 || rows[0].State == banger.StateRunning || rows[0].State == banger.StateStopped
		})
		if len(rows) == 0 && args[1] != "delete" {
			t.Fatalf("%v: the VM is gone", args)
		}
		t.Logf("%v: %+v", args, rows)
		if len(rows) > 0 && rows[0].State == banger.StateRunning {
			w.Must("vm", "exec", "x", "--", "true")
		}
	}
	if len(listVMs(w)) > 0 {
		w.Must("vm", "delete", "--force", "x")
	}
	wantNothingLeft(t, w)
}
