package smoke

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"banger/internal/testenv"
)

// hideApt runs a command as the world's user where there is no apt and no dpkg: in a mount namespace where they, their lists and
// their configuration are covered when we are root, else with a PATH that does not lead to them.
func hideApt(t *testing.T, w *testenv.World, cmd *exec.Cmd) {
	t.Helper()
	if os.Getuid() != 0 {
		bin := t.TempDir()
		for _, dir := range []string{"/usr/sbin", "/usr/bin"} {
			programs, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range programs {
				if strings.HasPrefix(p.Name(), "apt") || strings.HasPrefix(p.Name(), "dpkg") {
					continue
				}
				os.Symlink(filepath.Join(dir, p.Name()), filepath.Join(bin, p.Name())) // of two of one name the first stays
			}
		}
		cmd.Env = append(cmd.Env, "PATH="+w.Bin+":"+bin)
		return
	}
	const script = `set -e
for program in /usr/bin/apt* /usr/bin/dpkg*; do mount --bind /dev/null "$program"; done
for dir in /var/lib/apt /var/lib/dpkg /var/cache/apt /etc/apt; do mount -t tmpfs tmpfs "$dir"; done
user=$1; shift
exec setpriv --reuid "$user" --regid "$user" --init-groups -- "$@"`
	tool := testenv.RequireTool(t, "unshare")
	testenv.RequireTool(t, "setpriv")
	cmd.Args = append([]string{tool, "--mount", "--propagation", "private", "sh", "-c", script, "sh", w.User.Name}, append([]string{cmd.Path}, cmd.Args[1:]...)...)
	cmd.Path = tool
	cmd.SysProcAttr = nil // root makes the namespace, setpriv leaves root
}

// Where there is no apt, the kernel comes from a signed archive, here one on loopback that has the package which apt downloaded.
func TestKernelPullWithoutApt(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	var kernels []struct{ Name, Source, Version string }
	w.JSON(&kernels, "kernel", "list")
	w.Must("daemon", "stop")
	if len(kernels) != 1 {
		t.Fatalf("kernels: %+v, want one", kernels)
	}
	if err := os.RemoveAll(filepath.Join(w.State, "kernels", kernels[0].Name)); err != nil {
		t.Fatal(err)
	}
	archive := testenv.NewMirror(t)
	control, deb := testenv.AptDownload(t, kernels[0].Source)
	archive.Add("bookworm", control, deb)
	name, version, _ := strings.Cut(kernels[0].Source, " ")
	archive.Add("bookworm", fmt.Sprintf("Package: linux-image-cloud-amd64\nVersion: %s\nArchitecture: amd64\nDepends: %s (= %s)\n", version, name, version), []byte("meta"))
	archive.Publish(t, testenv.Release{Suite: "oldstable", Codename: "bookworm"})
	keyring := archive.Keyring(t)
	config := filepath.Join(filepath.Dir(keyring), "config.toml")
	if err := os.WriteFile(config, []byte("[debian]\nkeyring = "+strconv.Quote(keyring)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.Env = append(w.Env, "BANGER_MIRROR="+archive.URL)

	pull := func() testenv.Result {
		cmd := w.Command(t.Context(), "kernel", "pull", "debian-cloud")
		hideApt(t, w, cmd)
		return testenv.Capture(t, cmd)
	}
	r := pull()
	wantStatus(t, r, 6)
	if !strings.Contains(r.Stderr, "no trusted keys") || !strings.Contains(r.Stderr, "apt-cache: it is not installed") || !strings.Contains(r.Stderr, "debian.keyring") {
		t.Errorf("with Debian's keys alone: %s", r.Stderr)
	}
	w.Must("daemon", "stop")
	w.Env = append(w.Env, "BANGER_CONFIG="+config)
	r = pull()
	wantStatus(t, r, 0)
	if r.Stdout != "debian-cloud\n" {
		t.Errorf("kernel pull printed %q", r.Stdout)
	}
	if r = pull(); r.Status != 0 || !strings.Contains(r.Stderr, "already there") {
		t.Errorf("kernel pull again: status %d, %s", r.Status, r.Stderr)
	}
	if out := w.Must("vm", "run", "--rm", "--image", "debian-bookworm-slim", "--", "uname", "-r"); out != kernels[0].Version+"\n" {
		t.Errorf("the machine's kernel is %q, want %s", out, kernels[0].Version)
	}
	r = w.Run("kernel", "pull", "debian-clowd")
	if r.Status != 3 || !strings.Contains(r.Stderr, "debian-cloud") {
		t.Errorf("an unknown kernel: status %d, %s", r.Status, r.Stderr)
	}
}
