package smoke

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/testenv"
)

// configure makes a configuration of the world's own. It holds for daemons that start from now on.
func configure(t *testing.T, w *testenv.World, text string) {
	t.Helper()
	path := filepath.Join(w.User.Dir(t), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	w.Env = append(w.Env, "BANGER_CONFIG="+path)
}

// What one user publishes, another pulls and boots: the image with its kernel, and nothing from anywhere else.
func TestPublishedImageBoots(t *testing.T) {
	t.Parallel()
	publisher := testenv.NewWorld(t)
	shared := publisher.User.Dir(t)
	key, dir := filepath.Join(shared, "key.pem"), filepath.Join(shared, "catalog")
	public := strings.TrimSpace(publisher.Must("catalog", "keygen", key))
	var images []struct{ Name, Key string }
	publisher.JSON(&images, "image", "list")
	var kernels []struct{ Name string }
	publisher.JSON(&kernels, "kernel", "list")
	publisher.Must("kernel", "publish", kernels[0].Name, "--to", dir, "--key", key)
	publisher.Must("image", "publish", images[0].Name, "--to", dir, "--key", key)
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(server.Close)

	w := testenv.NewBareWorld(t)
	configure(t, w, fmt.Sprintf("[catalog]\nurl = %q\nkeys = [%q]\n[images]\ndefault = %q\n", server.URL, public, images[0].Name))
	w.Env = append(w.Env, "BANGER_MIRROR=http://127.0.0.1:9/debian") // nothing else is to be had
	if out := w.Must("image", "list", "--available", "--quiet"); out != images[0].Name+"\n" {
		t.Errorf("available: %q", out)
	}
	r := w.Run("image", "pull", images[0].Name)
	wantStatus(t, r, 0)
	if !strings.Contains(r.Stderr, "from the catalog "+server.URL) {
		t.Errorf("the source is not told: %s", r.Stderr)
	}
	w.Must("kernel", "pull", kernels[0].Name)
	sameContent(t, filepath.Join(publisher.State, "images", images[0].Key, "rootfs.ext4"), filepath.Join(w.State, "images", images[0].Key, "rootfs.ext4"))
	if out := w.Must("vm", "run", "--rm", "--", "sh", "-c", "echo $((6 * 7))"); out != "42\n" {
		t.Errorf("the machine printed %q", out)
	}
	w.Must("image", "delete", images[0].Name)
	r = w.Run("vm", "run", "--rm", "--", "echo", "again") // the default image is looked for there too
	wantStatus(t, r, 0)
	if r.Stdout != "again\n" || !strings.Contains(r.Stderr, "from the catalog "+server.URL) {
		t.Errorf("the machine printed %q, and banger %s", r.Stdout, r.Stderr)
	}
	w.Must("daemon", "stop")
	configure(t, w, fmt.Sprintf("[catalog]\nurl = %q\nkeys = [%q]\n", server.URL, strings.TrimSpace(publisher.Must("catalog", "keygen", key+"2"))))
	if r := w.Run("image", "pull", images[0].Name); r.Status != 6 || !strings.Contains(r.Stderr, "not known here") {
		t.Errorf("with another key: status %d, %s", r.Status, r.Stderr)
	}
}

func sameContent(t *testing.T, a, b string) {
	t.Helper()
	testenv.Run(t, testenv.RequireTool(t, "cmp"), a, b)
}
