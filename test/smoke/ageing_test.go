package smoke

import (
	"encoding/json"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/api"
	"banger/internal/testenv"
)

// A guest that works is told from one that does not, and what each uses from what it may.
func TestStats(t *testing.T) { // alone: it compares shares of the processors
	w := testenv.NewWorld(t)
	w.Must("vm", "run", "--name", "idle", "--memory", "512M", "--", "true")
	w.Must("vm", "run", "--name", "busy", "--", "true")
	w.Must("vm", "create", "--name", "off")
	_, out := startRun(t, w, "vm", "exec", "busy", "--", "sh", "-c", "echo up; while :; do :; done")
	waitLine(t, out, "up")
	var stats api.Stats
	if err := json.Unmarshal([]byte(w.Must("vm", "stats", "--json", "--interval", "5s")), &stats); err != nil {
		t.Fatal(err)
	}
	if len(stats.VMs) != 2 || stats.VMs[0].Name != "idle" || stats.VMs[1].Name != "busy" {
		t.Fatalf("stats %+v", stats)
	}
	idle, busy := stats.VMs[0], stats.VMs[1]
	t.Logf("idle guest: %.1f%% of a processor, %s of %d MiB, supervisor %s; busy guest: %.1f%%", *idle.CPUPercent,
		banger.FormatSize(idle.VMM.ResidentBytes), idle.MemoryMiB, banger.FormatSize(idle.Machine.ResidentBytes), *busy.CPUPercent)
	if *idle.Streams != 0 || *busy.Streams != 1 {
		t.Errorf("streams: idle %d, busy %d", *idle.Streams, *busy.Streams)
	}
	if *busy.CPUPercent < 10*max(*idle.CPUPercent, 1) {
		t.Errorf("the guest that works uses %.1f%%, the idle one %.1f%%", *busy.CPUPercent, *idle.CPUPercent)
	}
	for _, vm := range stats.VMs {
		if vm.VMM.ResidentBytes < 32<<20 || vm.Machine.ResidentBytes < 1<<20 || vm.Uptime <= 0 || vm.DiskBytes != 8<<30 || vm.DiskAllocatedBytes < 1<<16 ||
			vm.DiskAllocatedBytes > 1<<30 {
			t.Errorf("%+v", vm)
		}
	}
}

// Who follows the console sees the guest's reboot and the boot after it, and what comes after the death of the supervisor.
func TestFollowLogs(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "run", "--name", "box", "--", "true")
	client, out := startRun(t, w, "vm", "logs", "--follow", "box")
	all := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(out)
		all <- string(text)
	}()
	mark := func(text string) { w.Must("vm", "exec", "box", "--", "sh", "-c", "echo "+text+" >/dev/console") }
	mark("before-the-reboot")
	boots := showVM(w, "box").Boots
	w.Run("vm", "exec", "box", "--", "sh", "-c", "echo b >/proc/sysrq-trigger; sleep 60")
	testenv.WaitFor(t, time.Minute, "the guest after its reboot", func() bool { row := showVM(w, "box"); return row.Boots > boots && row.State == banger.StateRunning })
	mark("after-the-reboot")
	if err := syscall.Kill(showVM(w, "box").PIDs["banger-machine"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testenv.WaitFor(t, time.Minute, "another supervisor", func() bool { return w.Run("vm", "exec", "box", "--", "true").Status == 0 })
	mark("after-the-death")
	w.Must("vm", "stop", "box")
	text := <-all
	client.Wait()
	stderr := client.Stderr.(interface{ String() string }).String()
	if got := client.ProcessState.ExitCode(); got != 0 || !strings.Contains(stderr, "box: stopped (") {
		t.Errorf("vm logs --follow: exit status %d, %q", got, stderr)
	}
	if whole := w.Must("vm", "logs", "box"); text != whole {
		t.Errorf("followed %d bytes, the console has %d", len(text), len(whole))
	}
	for _, mark := range []string{"before-the-reboot", "after-the-reboot", "after-the-death"} {
		if strings.Count(text, mark) != 1 {
			t.Errorf("%q is not there once:\n%s", mark, text)
		}
	}
	if last := w.Must("vm", "logs", "--lines", "3", "box"); strings.Count(last, "\n") != 3 || !strings.HasSuffix(text, last) {
		t.Errorf("the last 3 lines: %q", last)
	}
}

// A VM with a time to live goes when that is over, whether it runs or not, and whatever becomes of the daemon meanwhile.
func TestTimeToLive(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak") // it waits for minutes
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "run", "--name", "runs", "--ttl", "40s", "--", "true")
	w.Must("vm", "create", "--name", "off", "--ttl", "20s")
	if row := showVM(w, "runs"); row.ExpiresAt.IsZero() || time.Until(row.ExpiresAt) > 40*time.Second {
		t.Errorf("expires at %s", row.ExpiresAt)
	}
	syscall.Kill(w.DaemonPID(), syscall.SIGKILL)
	if out := w.Must("vm", "wait", "--for", "deleted", "off", "runs"); out != "off: deleted\nruns: deleted\n" {
		t.Errorf("wait says %q", out)
	}
	wantNothingLeft(t, w)
}

// A VM that nobody uses is stopped, with its disk kept; one with a shell open is not.
func TestStopIdle(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak") // it waits for minutes
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "run", "--name", "lazy", "--stop-idle", "1m", "--", "sh", "-c", "echo kept >/root/file; sync")
	w.Must("vm", "run", "--name", "used", "--stop-idle", "1m", "--", "true")
	_, out := startRun(t, w, "vm", "exec", "used", "--", "sh", "-c", "echo up; sleep 1000")
	waitLine(t, out, "up")
	if out := w.Must("vm", "wait", "lazy"); out != "lazy: stopped (power-off: nobody used it for 1m)\n" {
		t.Errorf("wait says %q", out)
	}
	if row := showVM(w, "used"); row.State != banger.StateRunning {
		t.Errorf("the one that is used: %+v", row)
	}
	w.Must("vm", "start", "lazy")
	if out := w.Must("vm", "exec", "lazy", "--", "cat", "/root/file"); out != "kept\n" {
		t.Errorf("the disk holds %q", out)
	}
}
