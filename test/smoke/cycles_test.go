package smoke

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"banger/internal/testenv"
)

// size is how much of something runs in a tier.
func size(smoke, soak int) int {
	if testenv.Tier() == "soak" {
		return soak
	}
	return smoke
}

// Many VMs at once: all get ready, the daemon and some machines are killed, no guest notices more than a broken stream, all go.
func TestManyAtOnce(t *testing.T) { // alone: a dozen guests at once
	testenv.RequireTier(t, "smoke", "soak")
	w := testenv.NewWorld(t)
	w.Env = append(w.Env, "BANGER_BOOT_DEADLINE=15m") // emulated, all on few processors
	count := size(12, 30)
	var group sync.WaitGroup
	name := func(i int) string { return fmt.Sprintf("crowd-%d", i) }
	boots := make([]string, count)
	for i := range count {
		group.Go(func() {
			r := w.Run("vm", "run", "--overcommit", "--memory", "256", "--name", name(i), "--", "cat", "/proc/sys/kernel/random/boot_id")
			if boots[i] = r.Stdout; r.Status != 0 {
				t.Errorf("%s: status %d\n%s", name(i), r.Status, r.Stderr)
			}
		})
	}
	group.Wait()
	if t.Failed() {
		return
	}
	syscall.Kill(w.DaemonPID(), syscall.SIGKILL)
	for _, i := range rand.Perm(count)[:count/3] {
		syscall.Kill(showVM(w, name(i)).PIDs["banger-machine"], syscall.SIGKILL)
	}
	for i := range count {
		var r testenv.Result
		testenv.WaitFor(t, 5*time.Minute, name(i)+" to answer", func() bool {
			r = w.Run("vm", "exec", name(i), "--", "cat", "/proc/sys/kernel/random/boot_id")
			return r.Status == 0
		})
		if r.Stdout != boots[i] {
			t.Errorf("%s: boot %q, was %q", name(i), r.Stdout, boots[i])
		}
	}
	names := []string{"vm", "delete", "--force"}
	for i := range count {
		names = append(names, name(i))
	}
	w.Must(names...)
	wantNothingLeft(t, w)
}

// VMs come, run and go, and the daemon, a machine or a VMM is killed at any instant of it: each time nothing is left.
func TestCycles(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	w := testenv.NewWorld(t)
	seed := rand.Uint64()
	if text := os.Getenv("BANGER_CYCLES_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	dice := rand.New(rand.NewPCG(seed, 0))
	t.Logf("BANGER_CYCLES_SEED=%d", seed)
	w.Must("vm", "list")
	before := filesIn(t, w)
	killed := map[string]int{}
	for range size(40, 300) {
		client, out := startRun(t, w, "vm", "run", "--rm", "--name", "cycle", "--", "sh", "-c", "echo up; sleep 0.2")
		time.Sleep(time.Duration(dice.IntN(4000)) * time.Millisecond)
		victim := []string{"nobody", "bangerd", "banger-machine", "qemu-system"}[dice.IntN(4)]
		for pid, cmdline := range w.Processes() {
			if program, _, _ := strings.Cut(cmdline, " "); strings.Contains(filepath.Base(program), victim) {
				syscall.Kill(pid, syscall.SIGKILL)
				killed[victim]++
			}
		}
		io.Copy(io.Discard, out)
		client.Wait()
		for _, vm := range listVMs(w) { // what did not boot is kept for a look
			w.Run("vm", "delete", "--force", vm.ID)
		}
		if wantNothingLeft(t, w); t.Failed() {
			return
		}
	}
	if after := filesIn(t, w); after != before {
		t.Errorf("files before: %d, after: %d", before, after)
	}
	t.Logf("killed %v", killed)
}

// filesIn counts what is in the state directory, without logs and what databases and kernels keep beside.
func filesIn(t *testing.T, w *testenv.World) (n int) {
	t.Helper()
	err := filepath.WalkDir(w.State, func(path string, _ os.DirEntry, err error) error {
		if name := filepath.Base(path); err == nil && !strings.HasPrefix(name, "state.db-") && !strings.HasPrefix(name, "initrd-") && !strings.HasSuffix(name, ".log") {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A daemon that lives through many VMs does not grow: memory, descriptors, goroutines and files are what they were.
func TestNothingGrows(t *testing.T) { // alone: the daemon has to be at rest when it is measured
	testenv.RequireTier(t, "smoke", "soak")
	w := testenv.NewWorld(t)
	cycle := func() { w.Must("vm", "run", "--rm", "--", "true"); wantNothingLeft(t, w) }
	for range 3 {
		cycle()
	}
	pid := w.DaemonPID()
	before := measure(t, w, pid)
	for range size(10, 100) {
		cycle()
	}
	after := measure(t, w, pid)
	t.Logf("before %+v, after %+v", before, after)
	if after.descriptors > before.descriptors || after.goroutines > before.goroutines || after.files > before.files || after.memoryKiB > before.memoryKiB+4096 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

type use struct{ memoryKiB, descriptors, goroutines, files int }

// measure waits until the daemon is at rest.
func measure(t *testing.T, w *testenv.World, pid int) (u use) {
	t.Helper()
	time.Sleep(5 * time.Second) // memory has gone back, connections that idle are closed
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	var status struct {
		PID        int `json:"pid"`
		Goroutines int `json:"goroutines"`
	}
	if w.JSON(&status, "daemon", "status"); status.PID != pid || status.Goroutines == 0 {
		t.Fatalf("the daemon says %+v, want process %d", status, pid)
	}
	kib, err := strconv.Atoi(strings.Fields(procStatus(t, pid)["RssAnon"])[0])
	if err != nil {
		t.Fatal(err)
	}
	return use{kib, len(fds), status.Goroutines, filesIn(t, w)}
}
