// Package lifecycle measures what banger promises about the time that changes of a VM take on the host, and about a daemon with many
// VMs.
//
// BANGER_BENCH_RUNS is how often each way runs (15).
package lifecycle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/statedir"
	"banger/internal/store"
	"banger/internal/testenv"
)

const roleEnv = "BANGER_BENCH_CLIENT"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) != "" {
		if err := playClient(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	testenv.Main(m)
}

func runs() int { return testenv.Number("BANGER_BENCH_RUNS", 15) }

// report logs what a list of times is like and gives the median.
func report(b *testing.B, what string, list []time.Duration) float64 {
	slices.Sort(list)
	median := list[len(list)/2]
	b.Logf("%-44s median %7.1f ms, from %.1f to %.1f, %d runs", what, ms(median), ms(list[0]), ms(list[len(list)-1]), len(list))
	return ms(median)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// play does steps as the world's user and gives the time of each. The first connects.
func play(b *testing.B, w *testenv.World, steps ...step) []time.Duration {
	b.Helper()
	path := filepath.Join(w.State, "client")
	if _, err := os.Stat(path); err != nil {
		testenv.CopySelf(b, path)
	}
	input, err := json.Marshal(plan{Root: w.State, Daemon: filepath.Join(w.Bin, "bangerd"), Steps: append([]step{{Verb: "connect"}}, steps...)})
	if err != nil {
		b.Fatal(err)
	}
	cmd := w.Command(b.Context())
	cmd.Path, cmd.Args = path, []string{path}
	cmd.Env = append(cmd.Env, roleEnv+"=1")
	cmd.Stdin = bytes.NewReader(input)
	r := testenv.Capture(b, cmd)
	var took []time.Duration
	if err := json.Unmarshal([]byte(r.Stdout), &took); err != nil || r.Status != 0 {
		b.Fatalf("status %d, %v\n%s", r.Status, err, r.Stderr)
	}
	return took
}

func names(prefix string, count int) (list []string) {
	for i := range count {
		list = append(list, fmt.Sprintf("%s-%d", prefix, i))
	}
	return list
}

// each is one step for every name.
func each(verb string, names []string) (steps []step) {
	for _, name := range names {
		steps = append(steps, step{verb, []string{name}})
	}
	return steps
}

// BenchmarkCreate measures creation and deletion of VMs that never ran, alone and many at once.
func BenchmarkCreate(b *testing.B) {
	w := testenv.NewWorld(b)
	w.LogHost()
	const crowd = 20
	var create, remove, twenty []time.Duration
	play(b, w, append(each("create", names("warm", 3)), each("delete", names("warm", 3))...)...)
	for range 3 {
		one, all := names("one", runs()), names("all", crowd)
		steps := append(each("create", one), each("delete", one)...)
		took := play(b, w, append(steps, step{"create", all}, step{"delete", all})...)[1:]
		create, remove = append(create, took[:len(one)]...), append(remove, took[len(one):2*len(one)]...)
		twenty = append(twenty, took[2*len(one)])
	}
	one, many := report(b, "create", create), report(b, fmt.Sprintf("%d creates at once", crowd), twenty)
	b.ReportMetric(one, "create-ms")
	b.ReportMetric(report(b, "delete of a stopped VM", remove), "delete-ms")
	b.ReportMetric(many/one, "twenty/one")
	b.ReportMetric(report(b, "fsync of a new file, and of its directory", syncs(b, w)), "fsync-ms")
}

// syncs measures what one durable file costs where the state directory is.
func syncs(b *testing.B, w *testenv.World) (list []time.Duration) {
	b.Helper()
	path := filepath.Join(w.State, "floor")
	for range 4 * runs() {
		begun := time.Now()
		file, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		_, err = file.WriteString("x")
		dir, openErr := os.Open(w.State)
		if err := errors.Join(err, openErr, file.Sync(), dir.Sync(), file.Close(), dir.Close()); err != nil {
			b.Fatal(err)
		}
		list = append(list, time.Since(begun))
		os.Remove(path)
	}
	return list
}

// BenchmarkEnd measures stop and deletion of VMs that run: guests without an init of their own.
func BenchmarkEnd(b *testing.B) {
	w := testenv.NewWorld(b)
	w.LogHost()
	var stop, kill []time.Duration
	vm := []string{"vm"}
	for range runs() {
		took := play(b, w, step{"create", vm}, step{"start", vm}, step{"stop", vm}, step{"start", vm}, step{"delete", vm})
		stop, kill = append(stop, took[3]), append(kill, took[5])
	}
	b.ReportMetric(report(b, "stop", stop), "stop-ms")
	b.ReportMetric(report(b, "delete of a running VM", kill), "delete-ms")
}

// BenchmarkThousand measures list, start and rest of a daemon with a thousand VMs.
func BenchmarkThousand(b *testing.B) {
	w := testenv.NewWorld(b)
	w.LogHost()
	fill(b, w, 1000)
	if n := len(strings.Fields(w.Must("vm", "list", "--quiet"))); n != 1000 {
		b.Fatalf("%d VMs, want 1000", n)
	}
	var list, request, empty, start []time.Duration
	for range runs() {
		r := w.Run("vm", "list")
		if r.Status != 0 {
			b.Fatal(r.Stderr)
		}
		list = append(list, r.Elapsed)
		request = append(request, play(b, w, step{Verb: "list"})[1])
		empty = append(empty, w.Run("version").Elapsed)
		w.Must("daemon", "stop")
		start = append(start, play(b, w)[0])
	}
	b.ReportMetric(report(b, "vm list, the whole command", list), "list-ms")
	report(b, "its request", request)
	report(b, "a command that asks nobody", empty)
	b.ReportMetric(report(b, "start of the daemon", start), "start-ms")
	const watch = 30 * time.Second
	pid := w.DaemonPID()
	time.Sleep(10 * time.Second) // what follows a start is over
	before := testenv.Switches(b, pid)
	time.Sleep(watch)
	b.ReportMetric(float64(testenv.Switches(b, pid)-before)/watch.Seconds(), "wakes/s")
}

// fill makes VMs as earlier runs leave them.
func fill(b *testing.B, w *testenv.World, count int) {
	b.Helper()
	dir := statedir.Dir{Root: w.State}
	w.Must("vm", "create", "--name", "template")
	var template struct {
		banger.VM
		Dir string `json:"dir"`
	}
	w.JSON(&template, "vm", "show", "template")
	w.Must("daemon", "stop")
	db, err := store.Open(b.Context(), dir.Database())
	if err != nil {
		b.Fatal(err)
	}
	for i := range count - 1 {
		vm := template.VM
		vm.ID, vm.Spec.Name, vm.CreatedAt = banger.VMID(fmt.Sprintf("%012x", i)), fmt.Sprintf("vm-%d", i), vm.CreatedAt.Add(time.Second)
		vm.Exit = &banger.Exit{Cause: banger.ExitPowerOff, Detail: "the guest powered off", Console: strings.Repeat("a line of the console\n", 40), At: vm.CreatedAt}
		home := dir.VM(vm.ID)
		gone := []byte(`{"supervisor":{"pid":1,"start_time":2,"boot_id":"another"},"vmm":{"pid":3,"start_time":4,"boot_id":"another"}}`)
		if out, err := exec.Command("cp", "-al", template.Dir, home.Path).CombinedOutput(); err != nil {
			b.Fatalf("cp: %v: %s", err, out)
		}
		if err := errors.Join(os.WriteFile(home.Handles(), gone, 0o600), db.Reserve(b.Context(), vm, nil)); err != nil {
			b.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	if os.Getuid() == 0 {
		if out, err := exec.Command("chown", "-R", fmt.Sprintf("%d:%d", w.User.UID, w.User.GID), w.State).CombinedOutput(); err != nil {
			b.Fatalf("chown: %v: %s", err, out)
		}
	}
}
