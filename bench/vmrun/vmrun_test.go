// Package vmrun measures what banger promises about its own cost: the time around a guest's boot, of a command in a running
// guest, and the memory and the wake-ups of its processes. What is compared takes turns in one run.
//
// BANGER_BENCH_RUNS is how often each way runs (9).
package vmrun

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger/bench/bare"
	"banger/internal/testenv"
)

func TestMain(m *testing.M) { bare.Main(m) }

func runs() int { return testenv.Number("BANGER_BENCH_RUNS", 9) }

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

func report(b *testing.B, what string, list []time.Duration) time.Duration {
	m := median(list)
	b.Logf("%-44s median %8.1f ms, from %.1f to %.1f, %d runs", what, ms(m), ms(list[0]), ms(list[len(list)-1]), len(list))
	return m
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// BenchmarkRun compares `banger vm run --rm -- true` with QEMU alone, and sums up what the host does for a new VM.
func BenchmarkRun(b *testing.B) {
	w := testenv.NewWorld(b)
	w.LogHost()
	alone := bare.NewMachines(b, w)
	var whole, floors, host []time.Duration
	for range runs() {
		begun := time.Now()
		r := w.Run("--json", "vm", "run", "--rm", "--timings", "--", "true")
		whole = append(whole, time.Since(begun))
		if r.Status != 0 {
			b.Fatalf("status %d: %s", r.Status, r.Stderr)
		}
		host = append(host, hostSide(b, r.Stderr))
		took, err := alone.Run()
		if err != nil {
			b.Fatal(err)
		}
		floors = append(floors, took)
	}
	run, floor := report(b, "vm run --rm -- true", whole), report(b, "QEMU alone until the agent answers", floors)
	own := report(b, "host side of create and start", host)
	b.ReportMetric(float64(run)/float64(floor), "run/bare")
	b.ReportMetric(ms(own), "host-ms")
}

// hostSide sums up the host's steps of --timings, without those in which the guest boots.
func hostSide(b *testing.B, stderr string) (sum time.Duration) {
	var all struct {
		Timings []struct {
			Side    string        `json:"side"`
			Step    string        `json:"step"`
			Elapsed time.Duration `json:"elapsed_ns"`
		} `json:"timings"`
	}
	for line := range strings.Lines(stderr) {
		if strings.HasPrefix(line, `{"timings"`) {
			if err := json.Unmarshal([]byte(line), &all); err != nil {
				b.Fatal(err)
			}
		}
	}
	if len(all.Timings) == 0 {
		b.Fatalf("no timings in %q", stderr)
	}
	var boot, guest time.Duration
	for _, t := range all.Timings {
		switch {
		case t.Side != "host":
		case t.Step == "boot":
			boot = t.Elapsed
		case t.Step == "guest says hello" || t.Step == "identify":
			guest += t.Elapsed
		case t.Step == "disk" || t.Step == "image" || t.Step == "kernel":
			sum += t.Elapsed
		}
	}
	return sum + boot - guest
}

// BenchmarkExec compares `banger vm exec -- true` with the guest's own fork and exec, each several times in a row: after a
// second of something else either one takes half as long again, as its code has left the caches.
func BenchmarkExec(b *testing.B) {
	w := testenv.NewWorld(b)
	w.LogHost()
	w.Must("vm", "run", "--name", "box", "--", "true")
	var host, guest []time.Duration
	const inRow = 10
	for range runs() {
		for range inRow {
			begun := time.Now()
			w.Must("vm", "exec", "box", "--", "/bin/true")
			host = append(host, time.Since(begun))
		}
		out := w.Must("vm", "exec", "box", "--", "bash", "-c",
			fmt.Sprintf(`for i in {1..%d}; do a=$EPOCHREALTIME; /bin/true; b=$EPOCHREALTIME; echo $(( ${b/./} - ${a/./} )); done`, inRow))
		for _, text := range strings.Fields(out) {
			us, err := strconv.Atoi(text)
			if err != nil {
				b.Fatal(err)
			}
			guest = append(guest, time.Duration(us)*time.Microsecond)
		}
	}
	all, own := report(b, "vm exec -- true", host), report(b, "fork and exec in the guest", guest)
	b.ReportMetric(ms(all-own), "over-guest-ms")
}

// BenchmarkIdle measures memory and wake-ups of the processes of one idle VM, and the sizes of what a guest boots from.
func BenchmarkIdle(b *testing.B) {
	w := testenv.NewWorld(b)
	w.LogHost()
	w.Must("vm", "run", "--name", "idle", "--", "true")
	var vm struct {
		PIDs map[string]int `json:"pids"`
	}
	w.JSON(&vm, "vm", "show", "idle")
	pids := map[string]int{"bangerd": w.DaemonPID(), "banger-machine": vm.PIDs["banger-machine"]}
	const watch = 30 * time.Second
	time.Sleep(10 * time.Second) // what follows a start is over
	before := map[string]int{}
	for name, pid := range pids {
		before[name] = testenv.Switches(b, pid)
	}
	time.Sleep(watch)
	for name, pid := range pids {
		wakes := float64(testenv.Switches(b, pid)-before[name]) / watch.Seconds()
		mb := float64(testenv.StatusField(b, fmt.Sprintf("/proc/%d/status", pid), "RssAnon")) / 1024
		b.Logf("%-16s private memory %5.1f MB, %4.2f wake-ups a second", name, mb, wakes)
		b.ReportMetric(mb, name+"-MB")
		b.ReportMetric(wakes, name+"-wakes/s")
	}
	initrds, err := filepath.Glob(filepath.Join(w.State, "kernels", "*", "initrd-*"))
	if err != nil || len(initrds) == 0 {
		b.Fatalf("no initrd: %v", err)
	}
	for name, path := range map[string]string{"guest": filepath.Join(w.Bin, "banger-guest"), "initrd": initrds[0]} {
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size())/1e6, name+"-MB")
	}
}

// BenchmarkLoaded boots VMs one after the other beside two busy loops: all must get ready.
func BenchmarkLoaded(b *testing.B) {
	w := testenv.NewWorld(b)
	w.LogHost()
	ctx, cancel := context.WithCancel(b.Context())
	for range 2 {
		busy := exec.CommandContext(ctx, "sh", "-c", "while :; do :; done")
		if err := busy.Start(); err != nil {
			b.Fatal(err)
		}
		defer busy.Wait()
	}
	defer cancel()
	const boots = 40
	ready := 0
	var took []time.Duration
	for range boots {
		begun := time.Now()
		if r := w.Run("vm", "run", "--rm", "--", "true"); r.Status == 0 {
			ready++
			took = append(took, time.Since(begun))
		} else {
			b.Errorf("status %d: %s", r.Status, r.Stderr)
		}
	}
	report(b, "vm run --rm -- true beside two busy loops", took)
	b.ReportMetric(float64(ready), fmt.Sprintf("ready-of-%d", boots))
}
