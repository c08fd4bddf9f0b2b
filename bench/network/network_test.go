// Package network measures what a guest's network and the channel into it carry, each beside what else there is: QEMU's own user-mode
// network and gvisor-tap-vsock as further cards of the same guest, the host's own sockets, a channel on which nothing but bytes travel,
// and a plain ssh stream.
//
// BANGER_BENCH_RUNS is how often each way runs (5), BANGER_BENCH_MIB how much a copy moves (128). What is compared takes turns in one run.
package network

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"banger/internal/testenv"
)

const roleEnv = "BANGER_BENCH_ROLE"

func TestMain(m *testing.M) {
	testenv.MaybeInternetMain()
	if role := os.Getenv(roleEnv); role != "" {
		if err := play(role); err != nil {
			fmt.Fprintln(os.Stderr, role+":", err)
			os.Exit(1)
		}
		return
	}
	testenv.Main(m)
}

func runs() int { return testenv.Number("BANGER_BENCH_RUNS", 5) }

// results are figures by what was measured and by which way.
type results map[string]map[string][]float64

func (r results) add(what, way string, value float64) {
	if r[what] == nil {
		r[what] = map[string][]float64{}
	}
	r[what][way] = append(r[what][way], value)
	fmt.Fprintf(os.Stderr, "%s, %s: %.1f\n", what, way, value) // a run takes minutes
}

func (r results) median(what, way string) float64 {
	list := slices.Clone(r[what][way])
	slices.Sort(list)
	return list[len(list)/2]
}

func (r results) report(b *testing.B, what string, ways ...string) {
	for _, way := range ways {
		list := r[what][way]
		b.Logf("%-34s %-22s median %9.1f, from %.1f to %.1f, %d runs", what, way, r.median(what, way), slices.Min(list), slices.Max(list), len(list))
	}
}

// metric reports a ratio.
func (r results) metric(b *testing.B, name, what, way, whatElse, other string) {
	b.ReportMetric(r.median(what, way)/r.median(whatElse, other), name)
}

// inside builds the program that measures in a guest.
func inside(b *testing.B, w *testenv.World) string {
	root, err := testenv.ModuleRoot()
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(w.User.Dir(b), "inside")
	if err := testenv.Build(root, path, "./bench/network/inside", ""); err != nil {
		b.Fatal(err)
	}
	return path
}

// tapVsock builds the other stack. It is a module of its own: its gvisor is another one than ours.
func tapVsock(b *testing.B) string {
	path := filepath.Join(b.TempDir(), "gvisor-tap-vsock")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Dir, cmd.Env = "testdata/gvisor-tap-vsock", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build gvisor-tap-vsock: %v\n%s", err, out)
	}
	return path
}
