package smoke

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"banger/internal/testenv"
)

// hostImage makes an ext4 image with one static program and a /root, which belongs to the world's user.
func hostImage(t *testing.T, w *testenv.World) string {
	t.Helper()
	tree := t.TempDir()
	for _, dir := range []string{"root", "work"} {
		if err := os.Mkdir(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(filepath.Join(tree, "hello"), helloProgram(t), 0o755), os.WriteFile(filepath.Join(tree, "root", "note"), []byte("from the image"), 0o644)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.User.Dir(t), "mine, and more.ext4")
	testenv.Run(t, "mv", testenv.Mke2fs(t, 64<<20, "-t", "ext4", "-d", tree), file)
	testenv.Run(t, "chown", fmt.Sprintf("%d:%d", w.User.UID, w.User.GID), file)
	return file
}

// A machine boots from the user's own file, is refused when that is not as it was, and from a copy of it once that is made.
func TestRegisteredImageBoots(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	file := hostImage(t, w)
	before := testenv.Run(t, "sha256sum", file)
	w.Must("image", "register", "mine", "--rootfs", file)
	if out := w.Must("vm", "run", "--name", "box", "--image", "mine", "--", "/hello", "one"); out != " 0 / [one] <nil>\n" && out != " 0 /root [one] <nil>\n" {
		t.Errorf("the program printed %q", out)
	}
	var shown struct {
		VMs        []string `json:"vms"`
		Registered struct {
			Path string `json:"path"`
		} `json:"registered"`
	}
	if w.JSON(&shown, "image", "show", "mine"); len(shown.VMs) != 1 || shown.Registered.Path != file {
		t.Errorf("image show: %+v", shown)
	}
	w.Must("vm", "stop", "box")

	away := file + ".away"
	testenv.Run(t, "cp", "-p", file, away)
	testenv.Run(t, "debugfs", "-w", "-R", "rm /root/note", file)
	r := w.Run("vm", "start", "box")
	if r.Status != 4 || !strings.Contains(r.Stderr, "has changed since it was registered") || !strings.Contains(r.Stderr, "hint: put the file back") {
		t.Errorf("start on a changed file: status %d, %s", r.Status, r.Stderr)
	}
	if r := w.Run("vm", "run", "--rm", "--image", "mine", "--", "/hello"); r.Status != 125 || !strings.Contains(r.Stderr, "has changed") {
		t.Errorf("run on a changed file: status %d, %s", r.Status, r.Stderr)
	}
	testenv.Run(t, "mv", away, file)
	w.Must("vm", "start", "box") // the same bytes in another inode
	if after := testenv.Run(t, "sha256sum", file); after != before {
		t.Errorf("a machine changed the file: %s, before %s", after, before)
	}

	w.Must("image", "promote", "mine") // while it runs
	w.Must("vm", "exec", "box", "--", "/hello")
	w.Must("vm", "stop", "box")
	testenv.Run(t, "rm", file)
	w.Must("vm", "start", "box")
	if out := w.Must("vm", "exec", "box", "--", "/hello", "two"); !strings.Contains(out, "[two]") {
		t.Errorf("from the copy it printed %q", out)
	}
	w.Must("vm", "delete", "--force", "box")
	w.Must("image", "prune", "--all", "--force")
	if out := w.Must("image", "list", "--quiet"); out != "" {
		t.Errorf("left: %q", out)
	}
}

// What is imported of an ext4 image boots, and again when it was exported; /root comes from the seed.
func TestImportedRootfsBoots(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	file := hostImage(t, w)
	w.Must("image", "import", "--rootfs", file, "--name", "first")
	exported := filepath.Join(w.User.Dir(t), "first.tar.zst")
	w.Must("image", "export", "first", exported)
	w.Must("image", "import", exported, "--name", "second")
	seed := filepath.Join(w.User.Dir(t), "home.tar.gz")
	own := t.TempDir()
	if err := os.WriteFile(filepath.Join(own, "mine"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-C", own, "-czf", seed, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v %s", err, out)
	}
	w.Must("image", "register", "third", "--rootfs", file, "--work-seed", seed)
	for image, want := range map[string]string{"first": "note", "second": "note", "third": "mine"} {
		if out := w.Must("vm", "run", "--rm", "--image", image, "--", "/hello", image); !strings.Contains(out, "["+image+"]") {
			t.Errorf("%s printed %q", image, out)
		}
		w.Must("vm", "create", "--name", image, "--image", image)
		var detail struct {
			Dir string `json:"dir"`
		}
		w.JSON(&detail, "vm", "show", image)
		if out := testenv.Run(t, "debugfs", "-R", "ls -p /data/root", filepath.Join(detail.Dir, "disk.ext4")); !strings.Contains(out, "/"+want+"/") {
			t.Errorf("%s: /root holds %s", image, out)
		}
	}
}

// On a terminal a prune asks, and a tar is not shown.
func TestPruneAsks(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("image", "register", "mine", "--rootfs", hostImage(t, w))
	onTerminal := func(answer string, args ...string) (shown string, status int) {
		t.Helper()
		cmd := w.Command(t.Context(), args...)
		tty, err := pty.StartWithAttrs(cmd, &pty.Winsize{Rows: 30, Cols: 200}, withTerminal(cmd.SysProcAttr))
		if err != nil {
			t.Fatal(err)
		}
		defer tty.Close()
		x := watchTerminal(t, tty)
		if answer != "" {
			shown = x.until("[y/N]")
			x.send(answer)
		}
		for b := range x.screen {
			shown += string(b)
		}
		cmd.Wait()
		return shown, cmd.ProcessState.ExitCode()
	}
	for _, answer := range []string{"n\r", "\r", "\x03"} {
		shown, status := onTerminal(answer, "image", "prune", "--all")
		if wanted := map[string]int{"\x03": 130}[answer]; status != wanted || !strings.Contains(shown, "mine") || !strings.Contains(shown, "Remove this and free") {
			t.Errorf("answer %q: status %d, %q", answer, status, shown)
		}
		if out := w.Must("image", "list"); !strings.Contains(out, "mine") {
			t.Errorf("answer %q removed it", answer)
		}
	}
	if shown, status := onTerminal("", "image", "export", "mine", "-"); status != 2 || !strings.Contains(shown, "terminal") {
		t.Errorf("export to a terminal: status %d, %q", status, shown)
	}
	if shown, status := onTerminal("y\r", "image", "prune", "--all"); status != 0 || !strings.Contains(shown, "freed") {
		t.Errorf("answer y: status %d, %q", status, shown)
	}
	if out := w.Must("image", "list", "--quiet"); out != "" {
		t.Errorf("left: %q", out)
	}
}

// An export that is interrupted leaves nothing.
func TestExportInterrupted(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	name := strings.Fields(w.Must("image", "list"))
	dir := w.User.Dir(t)
	cmd := w.Command(t.Context(), "image", "export", name[len(strings.Fields("NAME KEY BOOT SIZE CREATED SOURCE"))], filepath.Join(dir, "out.tar"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testenv.WaitFor(t, time.Minute, "the export to begin", func() bool {
		part, _ := filepath.Glob(filepath.Join(dir, ".out.tar.*"))
		if len(part) == 0 {
			return false
		}
		info, err := os.Stat(part[0])
		return err == nil && info.Size() > 0
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != 130 {
		t.Errorf("status %d, want 130", status)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
