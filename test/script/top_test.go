package script

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"banger/internal/testenv/screen"
)

// newScreen runs a command on a terminal with more variables in its environment.
func newScreen(t *testing.T, cols, rows, command string, env ...string) *screen.Screen {
	t.Helper()
	return screen.New(t, cols, rows, command, &exec.Cmd{Env: append(os.Environ(), env...)})
}

// topWorld is a daemon with two VMs, of which devbox runs, and how banger is run beside it.
func topWorld(t *testing.T) (w *world, run func(args ...string) string, env []string) {
	t.Helper()
	dir := t.TempDir()
	w, err := newWorld(filepath.Join(dir, "s"), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	env = []string{"BANGER_STATE_DIR=" + w.dir.Root, "HOME=" + dir, "SHELL=/bin/sh"}
	run = func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(context.Background(), "banger", args...)
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("banger %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	run("vm", "create", "--name", "devbox", "--memory", "1G")
	run("vm", "create", "--name", "webbox")
	run("vm", "start", "devbox")
	return w, run, env
}

func TestTop(t *testing.T) {
	_, run, env := topWorld(t)
	s := newScreen(t, "100", "14", "banger top; echo left with $?; exec sh", env...)
	s.Await("2 VMs, 1 running", "NAME*", "PORTS", "devbox  running  50.0%  300M/1G", "webbox  stopped", "s shell", "q quit")

	s.Keys("?")
	s.Await("leave; VMs go on", "!NAME")
	s.Keys("x")
	s.Await("NAME*")

	// Sorting and filtering.
	s.Keys(">", ">", "r")
	s.Await("CPU^", "!NAME*")
	s.Keys("/", "web")
	s.Await("filter: web", "!devbox", "1 shown")
	s.Keys("Enter", "Escape")
	s.Await("devbox", "!filter:")
	s.Keys("<", "<")
	s.Await("NAME*")

	// The console, without what would change the terminal.
	s.Keys("Home", "l")
	s.Await("console of devbox", "q back")
	s.Keys("q")
	s.Await("NAME*")

	// A question comes before a stop.
	s.Keys("x")
	s.Await("stop devbox? y or n")
	s.Keys("n")
	s.Await("devbox goes on", "devbox  running")
	s.Keys("x", "y")
	s.Await("devbox: stopped", "devbox  stopped", "0 running")
	s.Keys("u")
	s.Await("devbox: runs", "devbox  running")
	s.Keys("Down", "s")
	s.Await("webbox is stopped: u starts it")

	// What others do shows; sizes of terminals change.
	run("vm", "create", "--name", "a-name-that-is-too-long-for-a-narrow-terminal")
	s.Await("3 VMs", "a-name-that-is")
	s.Tmux("resize-window", "-x", "40", "-y", "10")
	s.Await("a-name-that-is-…", "CPU", "!PORTS", "s shell", "q quit")
	for line := range strings.Lines(s.Text()) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 40 {
			t.Errorf("a line of %d columns in 40: %q", n, line)
		}
	}
	s.Tmux("resize-window", "-x", "100", "-y", "14")
	s.Await("PORTS")
	s.Keys("q")
	s.Await("left with 0", "!NAME*")

	// A signal ends it like any command, and leaves the terminal as it was.
	s.Keys("clear; banger top; echo left with $?; stty -a | grep -o 'isig icanon iexten echo '", "Enter")
	s.Await("NAME*")
	shell := strings.TrimSpace(s.Tmux("display-message", "-p", "#{pane_pid}"))
	children, err := os.ReadFile("/proc/" + shell + "/task/" + shell + "/children")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGTERM)
	}
	if err != nil {
		t.Fatalf("end banger top, one of the processes %q: %v", children, err)
	}
	s.Await("banger: interrupted", "left with 130", "\nisig icanon iexten echo", "!NAME*")
}

// What a repository wants run at each start is run by the key that starts its VM: quietly, and what fails is told below the table.
func TestTopRunsStartCommands(t *testing.T) {
	w, _, env := topWorld(t)
	vm, err := w.db.Get(t.Context(), "webbox")
	if err != nil {
		t.Fatal(err)
	}
	kept := w.dir.VM(vm.ID).StartCommands()
	want := func(line string) {
		t.Helper()
		text := fmt.Sprintf(`{"commands":[{"name":"commands.start[0]","line":%q}],"dir":"/root/repo","boots":0}`, line)
		if err := os.WriteFile(kept, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := newScreen(t, "100", "14", "banger top", env...)
	s.Await("webbox  stopped")
	want("echo up")
	s.Keys("Down", "u")
	s.Await("webbox: runs", "webbox  running", "!echo up", "!ran")
	if text, err := os.ReadFile(kept); err != nil || !strings.Contains(string(text), `"boots":1`) {
		t.Errorf("after the start: %s, %v", text, err)
	}
	s.Keys("x", "y")
	s.Await("webbox: stopped", "webbox  stopped")
	want("fail")
	s.Keys("u")
	s.Await("commands.start[0]: it ended with status 3", "webbox  running")
	s.Keys("u")
	s.Await("webbox runs already")
}

// A daemon that goes is told, and used again when it comes back.
func TestTopWithoutDaemon(t *testing.T) {
	w, _, env := topWorld(t)
	s := newScreen(t, "100", "12", "banger top", env...)
	s.Await("devbox  running")
	w.close()
	s.Await("no answer, trying again", "devbox")
	again, err := newWorld(w.dir.Root, filepath.Dir(w.dir.Root))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.close)
	s.Await("2 VMs", "!no answer")
}

func TestTopColors(t *testing.T) {
	const grey = "\x1b[90m"
	_, _, env := topWorld(t)
	for _, none := range []bool{false, true} {
		if none {
			env = append(env, "NO_COLOR=yes")
		}
		s := newScreen(t, "100", "12", "banger top", env...)
		s.Await("webbox  stopped")
		shown := s.Tmux("capture-pane", "-p", "-e")
		if got := strings.Contains(shown, grey); got == none {
			t.Errorf("NO_COLOR %v: grey %v: %q", none, got, shown)
		}
		if !regexp.MustCompile(`\x1b\[(0;)?7m`).MatchString(shown) {
			t.Errorf("NO_COLOR %v: no VM is chosen: %q", none, shown)
		}
	}
}
