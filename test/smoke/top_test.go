package smoke

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/testenv"
)

// banger top shows a real guest, opens a shell in it by a key and comes back, and stops it by another.
func TestTop(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	testenv.RequireTool(t, "tmux")
	w := testenv.NewWorld(t)
	w.Must("vm", "create", "--name", "topbox")
	w.Must("vm", "start", "topbox")
	w.Must("vm", "exec", "topbox", "--", "sh", "-c", "echo seen on the console >/dev/console; (dd if=/dev/zero of=/dev/null) >/dev/null 2>&1 &")

	socket := filepath.Join(w.User.Dir(t), "tmux")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	tmux := func(args ...string) string {
		t.Helper()
		cmd := w.Command(ctx)
		asked := exec.CommandContext(ctx, "tmux", append([]string{"-S", socket}, args...)...)
		asked.Env, asked.SysProcAttr, asked.Dir = cmd.Env, cmd.SysProcAttr, cmd.Dir
		out, err := asked.CombinedOutput()
		if err != nil {
			t.Fatalf("tmux %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "20", "env SHELL=/bin/sh "+filepath.Join(w.Bin, "banger")+" top; echo left with $?; sleep 1000")
	defer tmux("kill-server")
	text := func() string { return tmux("capture-pane", "-p") }
	await := func(texts ...string) {
		t.Helper()
		testenv.WaitFor(t, time.Minute, strings.Join(texts, ", "), func() bool {
			shown := text()
			for _, text := range texts {
				if text, not := strings.CutPrefix(text, "!"); strings.Contains(shown, text) == not {
					return false
				}
			}
			return true
		})
		if t.Failed() {
			t.Fatalf("the screen shows:\n%s", text())
		}
		t.Logf("the screen shows:\n%s", text())
	}
	keys := func(keys ...string) { tmux(append([]string{"send-keys"}, keys...)...) }

	await("1 VM, 1 running", "topbox  running", "%")
	keys("s")
	await("topbox:", "#", "!NAME*")
	keys("echo $((6*7)) >answer; stty size; hostname", "Enter")
	await("20 100", "topbox\n")
	keys("exit", "Enter")
	await("NAME*", "topbox  running")
	if got := w.Must("vm", "exec", "topbox", "--", "cat", "answer"); got != "42\n" {
		t.Errorf("the shell wrote %q", got)
	}
	keys("l")
	await("console of topbox", "seen on the console")
	keys("q", "x")
	await("stop topbox? y or n")
	keys("y")
	await("topbox: stopped", "topbox  stopped", "0 running")
	if state := w.Must("vm", "list", "--filter", "state=stopped", "--quiet"); strings.TrimSpace(state) == "" {
		t.Error("the VM is not stopped")
	}
	keys("q")
	await("left with 0", "!NAME*")
}
