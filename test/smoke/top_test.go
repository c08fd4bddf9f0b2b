package smoke

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/testenv"
	"banger/internal/testenv/screen"
)

// banger top shows a real guest, opens a shell in it by a key and comes back, and stops it by another.
func TestTop(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	testenv.RequireTool(t, "tmux")
	w := testenv.NewWorld(t)
	w.Must("vm", "create", "--name", "topbox")
	w.Must("vm", "start", "topbox")
	w.Must("vm", "exec", "topbox", "--", "sh", "-c", "echo seen on the console >/dev/console; (dd if=/dev/zero of=/dev/null) >/dev/null 2>&1 &")

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	s := screen.New(t, "100", "20", "env SHELL=/bin/sh "+filepath.Join(w.Bin, "banger")+" top; echo left with $?; sleep 1000", w.Command(ctx))
	s.Await("1 VM, 1 running", "topbox  running", "%")
	s.Keys("s")
	s.Await("topbox:", "#", "!NAME*")
	s.Keys("echo $((6*7)) >answer; stty size; hostname", "Enter")
	s.Await("20 100", "topbox\n")
	s.Keys("exit", "Enter")
	s.Await("NAME*", "topbox  running")
	if got := w.Must("vm", "exec", "topbox", "--", "cat", "answer"); got != "42\n" {
		t.Errorf("the shell wrote %q", got)
	}
	s.Keys("l")
	s.Await("console of topbox", "seen on the console")
	s.Keys("q", "x")
	s.Await("stop topbox? y or n")
	s.Keys("y")
	s.Await("topbox: stopped", "topbox  stopped", "0 running")
	if state := w.Must("vm", "list", "--filter", "state=stopped", "--quiet"); strings.TrimSpace(state) == "" {
		t.Error("the VM is not stopped")
	}
	s.Keys("q")
	s.Await("left with 0", "!NAME*")
}
