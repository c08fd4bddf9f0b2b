package image

import (
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
	"banger/internal/testenv"
)

const (
	listed   = 500
	listRuns = 9
)

// BenchmarkList measures the command `banger image list` with 500 published images and a daemon that runs.
func BenchmarkList(b *testing.B) {
	w := testenv.NewBareWorld(b)
	publish(b, w, listed)
	if n := len(strings.Fields(w.Must("image", "list", "--quiet"))); n != listed {
		b.Fatalf("image list shows %d images", n)
	}
	var list, none []time.Duration
	for range listRuns {
		list = append(list, timed(b, w, "image", "list"))
		none = append(none, timed(b, w, "kernel", "list"))
	}
	slices.Sort(list)
	slices.Sort(none)
	b.Logf("image list: median %s, from %s to %s; kernel list, of none: median %s", list[len(list)/2], list[0], list[len(list)-1], none[len(none)/2])
	b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, "list-ms")
}

func timed(b *testing.B, w *testenv.World, args ...string) time.Duration {
	b.Helper()
	r := w.Run(args...)
	if r.Status != 0 {
		b.Fatalf("banger %s: status %d: %s", strings.Join(args, " "), r.Status, r.Stderr)
	}
	return r.Elapsed
}

// publish makes images as pulls leave them.
func publish(b *testing.B, w *testenv.World, count int) {
	b.Helper()
	dir := statedir.Dir{Root: w.State}
	for i := range count {
		image := banger.Image{Name: fmt.Sprintf("app-%d", i%100), Key: fmt.Sprintf("%064x", i), Boot: banger.BootAgent, SizeBytes: 300 << 20,
			Source: fmt.Sprintf("registry.example/team/app:%d", i), CreatedAt: time.Unix(int64(i), 0),
			Config: &banger.ImageConfig{WorkingDir: "/work", User: "1000:1000", Entrypoint: []string{"/entry"}, Cmd: []string{"serve"}, ExposedPorts: []string{"80/tcp"}}}
		for n := range 20 {
			image.Config.Env = append(image.Config.Env, fmt.Sprintf("NAME_%d=%s", n, strings.Repeat("value", 10)))
		}
		text, err := json.Marshal(image)
		if err != nil {
			b.Fatal(err)
		}
		home := dir.Image(image.Key)
		if err := errors.Join(os.MkdirAll(home.Path, 0o700), os.WriteFile(home.Manifest(), text, 0o600), os.WriteFile(home.Rootfs(), nil, 0o444),
			os.WriteFile(home.Seed(), nil, 0o600), os.Truncate(home.Rootfs(), image.SizeBytes)); err != nil {
			b.Fatal(err)
		}
	}
	if os.Getuid() == 0 {
		owner := fmt.Sprintf("%d:%d", w.User.UID, w.User.GID)
		if out, err := exec.Command("chown", "-R", owner, filepath.Join(w.State, "images")).CombinedOutput(); err != nil {
			b.Fatalf("chown: %v: %s", err, out)
		}
	}
}
