package smoke

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/testenv"
)

// TestCopySwapped copies out of a running guest and into it while a directory and a file there change places, all the time, with symbolic
// links to what is outside of the copy, in the guest and by the same name here: nothing outside is read or written on either side.
func TestCopySwapped(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "create", "--name", "devbox", "--vcpu", "2") // one swaps, the other copies
	w.Must("vm", "start", "devbox")
	outside := filepath.Join(w.User.Dir(t), "outside")
	userFile(t, w, filepath.Join(outside, "f"), "secret of the host\n")
	userFile(t, w, filepath.Join(outside, "only-here"), "secret of the host\n")
	here := copyLines(t, outside)
	describeGuest := "cd " + outside + " && stat -c '%n %s %Y %Z %a' . f && cat f"
	wantStatus(t, w.RunInput(guestProgram(t, "swap"), "vm", "exec", "devbox", "--", "sh", "-c", "cat >/root/swap; chmod +x /root/swap"), 0)
	there := w.Must("vm", "exec", "devbox", "--", "sh", "-c", "mkdir -p "+outside+" && echo secret of the guest > "+outside+"/f && mkdir -p /srv/t/dir && cd /srv/t && ln -s "+outside+
		" link && ln -s "+outside+"/f linked && echo plain > file && for n in $(seq 50); do echo plain > dir/f$n; done && echo plain > dir/f; "+describeGuest)

	ctx, cancel := context.WithCancel(t.Context())
	swap := w.Command(ctx, "vm", "exec", "devbox", "--", "/root/swap", "/srv/t/dir", "/srv/t/link", "/srv/t/file", "/srv/t/linked")
	said := &strings.Builder{}
	swap.Stdout, swap.Stderr = said, said
	if err := swap.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = swap.Wait(); close(ended) }()
	defer func() {
		cancel()
		<-ended
	}()

	in := filepath.Join(w.User.Dir(t), "in")
	for _, name := range []string{"dir/f", "dir/new"} {
		userFile(t, w, filepath.Join(in, name), "from here\n")
	}
	out := filepath.Join(w.User.Dir(t), "out")
	statuses, kinds := map[string]int{}, map[string]int{}
	for n := range 100 {
		fresh := n%2 == 0
		if fresh { // else the links of the last copy are in the way of this one
			if err := os.RemoveAll(out); err != nil {
				t.Fatal(err)
			}
		}
		r := w.Run("vm", "cp", "devbox:/srv/t/.", out)
		statuses[fmt.Sprint("out ", r.Status)]++
		if r.Status != 0 && statuses[fmt.Sprint("out ", r.Status)] == 1 {
			t.Logf("out: %s", r.Stderr)
		}
		if info, err := os.Lstat(filepath.Join(out, "dir")); fresh && err == nil {
			kinds[info.Mode().Type().String()]++
		}
		wantNoSecret(t, out)
		if n%3 == 0 {
			r := w.Run("vm", "cp", in+"/.", "devbox:/srv/t")
			statuses[fmt.Sprint("in ", r.Status)]++
		}
	}
	t.Logf("statuses %v, dir was %v", statuses, kinds)
	select {
	case <-ended:
		t.Fatalf("the swapping ended: %s", said)
	default:
	}
	if statuses["out 0"] == 0 || len(kinds) < 2 {
		t.Errorf("statuses %v, and dir was %v: nothing was tried", statuses, kinds)
	}
	testenv.SameLines(t, copyLines(t, outside), here)
	if got := w.Must("vm", "exec", "devbox", "--", "sh", "-c", describeGuest); got != there {
		t.Errorf("outside in the guest: %q, was %q", got, there)
	}
}

// wantNoSecret looks for what is outside of a copy in all of its files.
func wantNoSecret(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if strings.Contains(string(content), "secret") || d.Name() == "only-here" {
			t.Errorf("%s has %q", path, content)
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
}
