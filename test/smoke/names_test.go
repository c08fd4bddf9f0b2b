package smoke

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/hostcheck"
	"banger/internal/testenv"
)

// ownEtc gives a test that is online a /etc of its own, with what is in the host's.
func ownEtc(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/upper", "/work"} {
		if err := unix.Mkdir(dir+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir="+dir+"/upper,workdir="+dir+"/work"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/etc/resolv.conf", []byte("nameserver "+testenv.DNSAddr+"\n"), 0o644); err != nil { // the one that was bound there is below
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount("/etc", unix.MNT_DETACH); unix.Unmount(dir, unix.MNT_DETACH) })
}

// doctor sees whether the computer's programs find a VM that runs by its name.
func TestNamesOfARunningVM(t *testing.T) {
	testenv.RequireTier(t, "smoke")
	t.Parallel()
	w := testenv.NewOnlineWorld(t)
	ownEtc(t)
	w.Must("vm", "run", "--name", "devbox", "--", "true")
	wantRow := func(when, want string) {
		t.Helper()
		var report hostcheck.Report
		if r := w.Run("doctor", "--json"); json.Unmarshal([]byte(r.Stdout), &report) != nil {
			t.Fatalf("%s: doctor: status %d, %s", when, r.Status, r.Stderr)
		}
		for _, c := range report {
			if c.Name == "names" && (c.Status != hostcheck.Pass || c.Details != want) {
				t.Errorf("%s: doctor says %+v, want %q", when, c, want)
			}
		}
	}
	wantRow("before", "NAME.vm is answered on 127.0.0.1:42069, where this computer's programs do not ask yet")
	address, _, _ := strings.Cut(strings.Split(w.Must("dns", "setup", "--for", "hosts"), "\n")[1], "\t")
	root := exec.Command(filepath.Join(w.Bin, "banger"), "dns", "setup", "--install", "--for", "hosts", "--server", "127.0.0.1:42069", "--host", "devbox="+address)
	if out, err := root.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("getent", "hosts", "devbox.vm").Output(); err != nil || !strings.HasPrefix(string(out), address) || !strings.HasPrefix(address, "127.88.") {
		t.Errorf("getent hosts devbox.vm says %q, %v, want %s", out, err, address)
	}
	wantRow("with the set-up", "devbox.vm resolves to "+address+" by hosts")
	w.Must("vm", "stop", "devbox")
	wantRow("after a stop", "/etc/hosts leads to 127.0.0.1:42069; it shows when a VM runs")
	w.Must("vm", "run", "--name", "later", "--", "true")
	wantRow("with another VM", "/etc/hosts has the VMs that ran at the set-up, none of which runs now: there is no name to try")
}
