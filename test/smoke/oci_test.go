package smoke

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/testenv"
)

// shareWith makes what root made the user's.
func shareWith(t *testing.T, u testenv.User, path string) {
	t.Helper()
	if os.Getuid() == 0 {
		testenv.Run(t, "chown", "-R", u.Name, path)
	}
}

// umociTar packs a tar as an image of one layer, with umoci, and gives its layout. The image is called app.
func umociTar(t *testing.T, tarball string) (layout string) {
	t.Helper()
	umoci := testenv.RequireTool(t, "umoci")
	layout = filepath.Join(t.TempDir(), "L")
	testenv.Run(t, umoci, "init", "--layout", layout)
	testenv.Run(t, umoci, "new", "--image", layout+":app")
	testenv.Run(t, umoci, "raw", "add-layer", "--image", layout+":app", tarball)
	testenv.Run(t, umoci, "config", "--image", layout+":app", "--config.env", "MADE=umoci", "--config.user", "games", "--config.workingdir", "/srv", "--config.cmd", "/usr/bin/id", "--config.cmd", "-un")
	return layout
}

// Debian without an init, packed by umoci, in Debian's registry server with TLS and a password: one command pulls and boots it, and the
// same from an archive of docker save that skopeo makes.
func TestPrivateImageBoots(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	skopeo := testenv.RequireTool(t, "skopeo")
	w := testenv.NewWorld(t)
	debian := filepath.Join(w.State, "debian.tar")
	w.Must("image", "export", "debian-bookworm-slim", debian)
	layout := umociTar(t, debian)
	registry := testenv.StartRegistry(t, true, true)
	ca := filepath.Join(registry.Dir, "ca.crt")
	testenv.Run(t, skopeo, "copy", "-q", "--dest-cert-dir", registry.Dir, "--dest-creds", testenv.RegistryCredentials, "oci:"+layout+":app", "docker://"+registry.Host+"/team/debian:12")
	ref := registry.Host + "/team/debian:12"

	if r := w.Run("image", "pull", ref); r.Status != 5 || !strings.Contains(r.Stderr, "certificate") {
		t.Errorf("without the authority: status %d, %s", r.Status, r.Stderr)
	}
	w.Must("daemon", "stop")
	w.Env = append(w.Env, "SSL_CERT_FILE="+ca)
	if r := w.Run("image", "pull", ref); r.Status != 6 || !strings.Contains(r.Stderr, "docker login") {
		t.Errorf("without a password: status %d, %s", r.Status, r.Stderr)
	}
	w.Must("daemon", "stop")
	w.Env = append(w.Env, "DOCKER_CONFIG="+registry.Dir)
	if out := w.Must("vm", "run", "--rm", "--image", ref, "--oci-cmd"); out != "games\n" {
		t.Errorf("the image's command printed %q", out)
	}
	if out := w.Must("vm", "run", "--rm", "--image", ref, "--", "sh", "-c", "echo $MADE; pwd; . /etc/os-release; echo $VERSION_CODENAME; git --version >/dev/null && echo git"); out != "umoci\n/usr/games\nbookworm\ngit\n" { // the user's home: the image's directory is for its own command
		t.Errorf("the machine printed %q", out)
	}
	saved := filepath.Join(t.TempDir(), "saved.tar")
	testenv.Run(t, skopeo, "copy", "-q", "oci:"+layout+":app", "docker-archive:"+saved+":debian:12")
	file, err := os.Open(saved)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := w.Command(t.Context(), "image", "import", "-", "--name", "saved")
	cmd.Stdin = file
	wantStatus(t, testenv.Capture(t, cmd), 0)
	if out := w.Must("vm", "run", "--rm", "--image", "saved", "--oci-cmd"); out != "games\n" {
		t.Errorf("the command of the archive's image printed %q", out)
	}
}

// Debian with systemd as buildah packs it is known as such, and systemd comes up whole.
func TestSystemdImageBoots(t *testing.T) { // alone: as TestDefaultImage
	testenv.RequireTier(t, "smoke", "soak")
	buildah := testenv.RequireTool(t, "buildah")
	w := testenv.NewWorld(t)
	w.Must("image", "build", "packages", "--from", "debian:bookworm", "--packages", "systemd,systemd-sysv,dbus,udev")
	debian := filepath.Join(w.State, "debian.tar")
	w.Must("image", "export", "packages", debian)
	dir := t.TempDir()
	do := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(buildah, append([]string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run")}, args...)...)
		cmd.Env = append(os.Environ(), "STORAGE_DRIVER=vfs", "BUILDAH_ISOLATION=chroot")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("buildah %q: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	from := do("from", "scratch")
	do("add", from, debian, "/")
	do("config", "--cmd", "/sbin/init", from)
	layout := filepath.Join(w.State, "layout")
	do("commit", "--quiet", from, "oci:"+layout+":sys")
	shareWith(t, w.User, layout)
	var image banger.Image
	w.JSON(&image, "image", "import", layout, "--name", "sys")
	if image.Boot != banger.BootSystem {
		t.Errorf("imported %+v", image)
	}
	if r := w.Run("vm", "run", "--name", "sys", "--image", "sys", "--", "systemctl", "is-system-running"); r.Status != 0 || r.Stdout != "running\n" {
		t.Errorf("systemd: status %d, %q, %s", r.Status, r.Stdout, r.Stderr)
	}
	if out := w.Must("vm", "exec", "sys", "--", "sh", "-c", "systemctl --failed --no-legend --plain; systemctl is-active multi-user.target; cat /proc/1/comm"); out != "active\nsystemd\n" {
		t.Errorf("systemd says %q", out)
	}
}
