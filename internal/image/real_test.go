package image

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/statedir"
	"banger/internal/testenv"
)

// asOrdinaryUser runs the rest of a test as a user that may not be root, and tells whether this is that user.
func asOrdinaryUser(t *testing.T) bool {
	t.Helper()
	if os.Getuid() != 0 {
		return true
	}
	user := testenv.OrdinaryUser(t)
	dir := user.Dir(t)
	self := filepath.Join(dir, "image.test")
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(self, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	out.Close()
	cmd := exec.CommandContext(t.Context(), self, "-test.v", "-test.run", "^"+t.Name()+"$")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+user.Home, "USER="+user.Name, "LOGNAME="+user.Name, "TMPDIR="+dir)
	user.As(cmd)
	text, err := cmd.CombinedOutput()
	if strings.Contains(string(text), "--- SKIP") {
		t.Skipf("%s", text)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return false
}

func realManager(t *testing.T) *Manager {
	t.Helper()
	testenv.RequireTool(t, tool)
	testenv.RequireTool(t, mapTool)
	m := New(Config{Dir: statedir.Dir{Root: filepath.Join(t.TempDir(), "s")}, Mirror: os.Getenv("BANGER_MIRROR")})
	var err error
	if m.scratch, err = os.MkdirTemp(scratchDir, "bi"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(m.scratch) })
	if err := errors.Join(os.Chmod(m.scratch, 0o711), m.Dir.Ensure()); err != nil {
		t.Fatal(err)
	}
	return m
}

// The real mmdebstrap makes an image that e2fsck and debugfs like. In the tier "test" the first machine's image is looked at instead
// (TestImageFromPackages).
func TestRealImage(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	if testing.Short() || !asOrdinaryUser(t) {
		return
	}
	m := realManager(t)
	image, err := m.Ensure(t.Context(), name, func(p banger.Progress) { t.Log(p.Detail, p.Bytes) })
	if errors.Is(err, banger.ErrUnavailable) {
		t.Log(err)
		testenv.Skip(t, "a package mirror")
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := m.Dir.Image(image.Key)
	if out, err := exec.Command(testenv.RequireTool(t, "e2fsck"), "-fn", dir.Rootfs()).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	for path, want := range map[string]string{"/usr/bin/git": "Mode:  0755", "/usr/bin/passwd": "Mode:  04755"} {
		out, err := exec.Command(testenv.RequireTool(t, "debugfs"), "-R", "stat "+path, dir.Rootfs()).Output()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, want %q in\n%s", path, err, want, out)
		}
	}
	out, err := exec.Command("tar", "-tf", dir.Seed()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), ".bashrc") {
		t.Errorf("seed: %v\n%s", err, out)
	}
	wantNoScratch(t, m)
}

// A build that ends in the middle leaves nothing, although the files in mmdebstrap's directory belong to other users.
func TestRealImageCancelled(t *testing.T) {
	testenv.RequireTier(t, "test", "smoke")
	if testing.Short() || !asOrdinaryUser(t) {
		return
	}
	m := realManager(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := m.Ensure(ctx, name, func(p banger.Progress) {
		if strings.Contains(p.Detail, "installing") || strings.Contains(p.Detail, "extracting") {
			cancel()
		}
	})
	if errors.Is(err, banger.ErrUnavailable) {
		t.Log(err)
		testenv.Skip(t, "a package mirror")
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Ensure = %v, want canceled", err)
	}
	wantNothing(t, m)
}
