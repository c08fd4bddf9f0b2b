package smoke

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/machine"
	"banger/internal/proc"
	"banger/internal/statedir"
	"banger/internal/testenv"
)

// repair lets the file system's own tool bring a disk in order as it does without asking, which is the journal's recovery and nothing
// else that it would warn of, and then wants nothing left to say.
func repair(t *testing.T, disk string) {
	t.Helper()
	tool := testenv.RequireTool(t, "e2fsck")
	out, err := exec.Command(tool, "-fp", disk).CombinedOutput()
	if code, ok := err.(*exec.ExitError); err != nil && (!ok || code.ExitCode() != 1) {
		t.Errorf("e2fsck -fp: %v\n%s", err, out)
	}
	if out, err := exec.Command(tool, "-fn", disk).CombinedOutput(); err != nil {
		t.Errorf("e2fsck -fn after the recovery: %v\n%s", err, out)
	}
}

// readDisk gives a file of a disk that nobody uses.
func readDisk(t *testing.T, disk, path string) string {
	t.Helper()
	out, err := exec.Command(testenv.RequireTool(t, "debugfs"), "-R", "cat "+path, disk).Output()
	if err != nil {
		t.Errorf("read %s of %s: %v", path, disk, err)
	}
	return string(out)
}

// What a guest has synced and told is on the disk at every instant, whether the power fails then or the VM is stopped.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "run", "--name", "writer", "--", "true")
	home := statedir.VMDir{Path: showVM(w, "writer").Dir}
	script := `i=0; while :; do i=$((i+1)); echo record $i >> /root/log; sync /root/log; mkdir /root/d$i; echo $i > /root/d$i/f; sync /root/d$i/f /root/d$i /root; rm -rf /root/d$((i-3)); echo $i; done`
	cmd, out := startRun(t, w, "vm", "exec", "writer", "--", "sh", "-c", script)
	var told atomic.Int64
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if n, err := strconv.Atoi(lines.Text()); err == nil {
				told.Store(int64(n))
			}
		}
	}()
	vmm := showVM(w, "writer").PIDs["vmm"]
	for cut := range 8 {
		before := told.Load()
		testenv.WaitFor(t, time.Minute, "the guest to write", func() bool { return told.Load() > before+2 })
		time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond) // an instant that nobody chose
		disk := filepath.Join(t.TempDir(), fmt.Sprint("cut", cut))
		synced := int(told.Load())
		freeze(t, vmm)
		copied, err := exec.Command("cp", "--sparse=always", home.Disk(), disk).CombinedOutput()
		syscall.Kill(vmm, syscall.SIGCONT)
		if err != nil {
			t.Fatalf("copy the disk: %v: %s", err, copied)
		}
		repair(t, disk)
		lines := strings.Split(readDisk(t, disk, "/data/root/log"), "\n")
		for i := 1; i <= synced; i++ {
			if len(lines) < i || lines[i-1] != fmt.Sprint("record ", i) {
				t.Fatalf("cut %d: record %d of %d that were synced is not there: %q", cut, i, synced, lines[max(0, len(lines)-4):])
			}
		}
		if got := readDisk(t, disk, fmt.Sprintf("/data/root/d%d/f", synced)); got != fmt.Sprintf("%d\n", synced) && len(lines) < synced+4 {
			t.Errorf("cut %d: the new directory %d holds %q", cut, synced, got)
		}
		t.Logf("cut %d: %d records synced, %d there", cut, synced, len(lines)-1)
		if err := os.Remove(disk); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	w.Must("vm", "exec", "writer", "--", "sh", "-c", "echo at last > /root/last; echo system > /etc/last")
	w.Must("vm", "stop", "writer")
	if got := readDisk(t, home.Disk(), "/data/root/last") + readDisk(t, home.Disk(), "/overlay/upper/etc/last"); got != "at last\nsystem\n" {
		t.Errorf("after a stop right behind a write the disk holds %q", got)
	}
	if out, err := exec.Command(testenv.RequireTool(t, "e2fsck"), "-fn", home.Disk()).CombinedOutput(); err != nil {
		t.Errorf("after a stop: e2fsck -fn: %v\n%s", err, out)
	}
}

// freeze stops a process and returns when all of its threads stand still.
func freeze(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	testenv.WaitFor(t, time.Minute, "the VMM to stand still", func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, thread := range threads {
			text, err := os.ReadFile(thread)
			if fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])); err == nil && fields[0] != "T" {
				return false
			}
		}
		return len(threads) > 0
	})
}

// Another version of the daemon takes over while a command runs, and the machine that the old one started serves on.
func TestUpgradeDuringACommand(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak") // it builds the programs twice
	t.Parallel()
	w := testenv.NewWorld(t)
	w.CopyBin()
	w.Must("vm", "run", "--name", "stream", "--", "true")
	machinePID := showVM(w, "stream").PIDs["banger-machine"]
	cmd := w.Command(t.Context(), "vm", "exec", "stream", "--", "sh", "-c", "echo up; while read line; do echo got $line; done; exit 5")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil || cmd.Start() != nil {
		t.Fatal(err1, err2)
	}
	waitLine(t, out, "up")
	root, err := testenv.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"next", "after"} {
		for _, name := range []string{"bangerd", "banger-machine"} {
			path := filepath.Join(w.Bin, name)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := testenv.Build(root, path, "./cmd/"+name, version); err != nil {
				t.Fatal(err)
			}
		}
		if version == "next" {
			w.Must("daemon", "stop")
		} else if err := syscall.Kill(w.DaemonPID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		var status struct {
			Version string `json:"version"`
			Running int    `json:"running"`
		}
		w.Must("vm", "list")
		if w.JSON(&status, "daemon", "status"); status.Version != version || status.Running != 1 {
			t.Errorf("the daemon says %+v, want version %s and one VM that runs", status, version)
		}
		if pid := showVM(w, "stream").PIDs["banger-machine"]; pid != machinePID {
			t.Errorf("the machine was %d, is %d", machinePID, pid)
		}
		io.WriteString(in, version+"\n")
		waitLine(t, out, "got "+version)
	}
	in.Close()
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 5 {
		t.Errorf("exit status %d, want 5", got)
	}
	// The machine dies: one of the new version takes its VMM over.
	if err := syscall.Kill(machinePID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testenv.WaitFor(t, time.Minute, "the new machine", func() bool {
		pid := showVM(w, "stream").PIDs["banger-machine"]
		return pid != 0 && pid != machinePID && w.Run("vm", "exec", "stream", "--", "true").Status == 0
	})
}

// Whatever is asked of a VM right after its supervisor's death waits for the one that takes over.
func TestCommandsRightAfterTheSupervisorsDeath(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "run", "--name", "x", "--", "true")
	boot := w.Must("vm", "exec", "x", "--", "cat", "/proc/sys/kernel/random/boot_id")
	for round := range soaking(3, 30) {
		for _, tc := range []struct {
			args []string
			want string
		}{
			{[]string{"vm", "exec", "x", "--", "cat", "/proc/sys/kernel/random/boot_id"}, boot},
			{[]string{"vm", "cp", "x:/etc/debian_version", "-"}, "debian_version"},
			{[]string{"vm", "ports", "x"}, ""},
			{[]string{"vm", "ssh", "x", "--", "cat", "/proc/sys/kernel/random/boot_id"}, boot},
		} {
			if pid := showVM(w, "x").PIDs["banger-machine"]; pid != 0 {
				syscall.Kill(pid, syscall.SIGKILL)
			}
			if r := w.Run(tc.args...); r.Status != 0 || !strings.Contains(r.Stdout, tc.want) {
				t.Errorf("round %d, %q: status %d, %q, want %q\n%s", round, tc.args, r.Status, r.Stdout, tc.want, r.Stderr)
			}
		}
		testenv.WaitFor(t, time.Minute, "the new machine", func() bool { return showVM(w, "x").PIDs["banger-machine"] != 0 })
	}
}

// The host goes down with everything on it and comes up again: all VMs are stopped, none is stale, and their disks recover.
func TestHostReboot(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "run", "--name", "a", "--", "sh", "-c", "echo kept > /root/kept; sync /root/kept /root")
	w.Must("vm", "create", "--name", "b")
	home := statedir.VMDir{Path: showVM(w, "a").Dir}
	for pid := range w.Processes() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	testenv.WaitFor(t, time.Minute, "all processes to be gone", func() bool { return len(w.Processes()) == 0 })
	reboot(t, home)
	for _, vm := range listVMs(w) {
		if vm.State != banger.StateStopped {
			t.Errorf("after the reboot %s is %s", vm.Spec.Name, vm.State)
		}
	}
	if row := showVM(w, "a"); row.Exit == nil || len(row.PIDs) != 0 {
		t.Errorf("after the reboot: exit %+v, processes %v", row.Exit, row.PIDs)
	}
	repair(t, home.Disk())
	w.Must("vm", "start", "a")
	if got := w.Must("vm", "exec", "a", "--", "cat", "/root/kept"); got != "kept\n" {
		t.Errorf("after the reboot the guest has %q", got)
	}
	w.Must("vm", "delete", "--force", "a", "b")
	wantNothingLeft(t, w)
}

// reboot makes the recorded processes those of another boot. That of this test takes the place of both: alive, but not theirs.
func reboot(t *testing.T, home statedir.VMDir) {
	t.Helper()
	text, err := os.ReadFile(home.Handles())
	var handles machine.Handles
	if err == nil {
		err = json.Unmarshal(text, &handles)
	}
	self, selfErr := proc.Self()
	if err != nil || selfErr != nil {
		t.Fatal(err, selfErr)
	}
	self.BootID = "11111111-2222-3333-4444-555555555555"
	handles.Supervisor, handles.VMM = self, self
	if text, err = json.Marshal(handles); err == nil {
		err = os.WriteFile(home.Handles(), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A VMM that is killed while nobody looks is told of, and its disk is in order at the next start.
func TestVMMKilledWithoutSupervisor(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "run", "--name", "victim", "--", "sh", "-c", "echo kept > /root/kept; sync /root/kept /root")
	pids, daemon := showVM(w, "victim").PIDs, w.DaemonPID()
	for _, pid := range []int{daemon, pids["banger-machine"], pids["vmm"]} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	testenv.WaitFor(t, time.Minute, "all processes to be gone", func() bool { return len(w.Processes()) == 0 })
	testenv.WaitFor(t, time.Minute, "state stopped", func() bool { return showVM(w, "victim").State == banger.StateStopped })
	if row := showVM(w, "victim"); row.Exit == nil || row.Exit.Detail == "" {
		t.Errorf("exit = %+v, want one that says what is known", row.Exit)
	}
	repair(t, filepath.Join(showVM(w, "victim").Dir, "disk.ext4"))
	w.Must("vm", "start", "victim")
	if got := w.Must("vm", "exec", "victim", "--", "cat", "/root/kept"); got != "kept\n" {
		t.Errorf("the guest has %q", got)
	}
}

// A damaged record of a VM's processes costs nothing: a running VM is taken over still, and one that is stopped says so and starts.
func TestDamagedHandles(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "run", "--name", "x", "--", "sh", "-c", "echo kept > /run/kept")
	before := showVM(w, "x")
	handles := statedir.VMDir{Path: before.Dir}.Handles()
	damage := func() {
		if err := os.WriteFile(handles, []byte(`{"supervisor":`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damage()
	for _, pid := range []int{w.DaemonPID(), before.PIDs["banger-machine"]} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	var got testenv.Result
	testenv.WaitFor(t, 5*time.Minute, "the guest to be taken over", func() bool {
		got = w.Run("vm", "exec", "x", "--", "cat", "/run/kept")
		return got.Status == 0
	})
	if got.Stdout != "kept\n" {
		t.Errorf("the guest that was taken over has %q", got.Stdout)
	}
	if after := showVM(w, "x"); after.PIDs["vmm"] != before.PIDs["vmm"] {
		t.Errorf("the VMM was %d, is %d", before.PIDs["vmm"], after.PIDs["vmm"])
	}
	w.Must("vm", "stop", "x")
	w.Must("daemon", "stop")
	damage()
	if vm := showVM(w, "x"); vm.State != banger.StateError || !strings.Contains(vm.Last, "handles.json") {
		t.Errorf("with a damaged record it is %s: %s", vm.State, vm.Last)
	}
	w.Must("vm", "start", "x")
	damage()
	w.Must("vm", "delete", "--force", "x")
	wantNothingLeft(t, w)
}
