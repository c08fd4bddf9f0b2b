package script

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/testenv"
)

// screen is a terminal that tmux emulates: what a person would see.
type screen struct {
	t      *testing.T
	socket string
}

func newScreen(t *testing.T, cols, rows, command string, env ...string) screen {
	t.Helper()
	testenv.RequireTool(t, "tmux")
	s := screen{t, filepath.Join(t.TempDir(), "tmux")}
	args := []string{"-f", "/dev/null", "new-session", "-d", "-x", cols, "-y", rows}
	for _, v := range env {
		args = append(args, "-e", v)
	}
	s.tmux(append(args, command)...)
	t.Cleanup(func() { exec.Command("tmux", "-S", s.socket, "kill-server").Run() })
	return s
}

func (s screen) tmux(args ...string) string {
	s.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", s.socket}, args...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("tmux %q: %v: %s", args, err, out)
	}
	return string(out)
}

func (s screen) keys(keys ...string) { s.tmux(append([]string{"send-keys"}, keys...)...) }

func (s screen) text() string { return s.tmux("capture-pane", "-p") }

// await waits until the screen has all texts, and none of those that begin with "!".
func (s screen) await(texts ...string) {
	s.t.Helper()
	right := func() bool {
		shown := s.text()
		for _, text := range texts {
			if text, not := strings.CutPrefix(text, "!"); strings.Contains(shown, text) == not {
				return false
			}
		}
		return true
	}
	testenv.WaitFor(s.t, 30*time.Second, strings.Join(texts, ", "), right)
	if s.t.Failed() {
		s.t.Fatalf("the screen shows:\n%s", s.text())
	}
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
	s.await("2 VMs, 1 running", "NAME*", "PORTS", "devbox  running  50.0%  300M/1G", "webbox  stopped", "s shell", "q quit")

	s.keys("?")
	s.await("leave; VMs go on", "!NAME")
	s.keys("x")
	s.await("NAME*")

	// Sorting and filtering.
	s.keys(">", ">", "r")
	s.await("CPU^", "!NAME*")
	s.keys("/", "web")
	s.await("filter: web", "!devbox", "1 shown")
	s.keys("Enter", "Escape")
	s.await("devbox", "!filter:")
	s.keys("<", "<")
	s.await("NAME*")

	// The console, without what would change the terminal.
	s.keys("Home", "l")
	s.await("console of devbox", "q back")
	s.keys("q")
	s.await("NAME*")

	// A question comes before a stop.
	s.keys("x")
	s.await("stop devbox? y or n")
	s.keys("n")
	s.await("devbox goes on", "devbox  running")
	s.keys("x", "y")
	s.await("devbox: stopped", "devbox  stopped", "0 running")
	s.keys("u")
	s.await("devbox: runs", "devbox  running")
	s.keys("Down", "s")
	s.await("webbox is stopped: u starts it")

	// What others do shows; sizes of terminals change.
	run("vm", "create", "--name", "a-name-that-is-too-long-for-a-narrow-terminal")
	s.await("3 VMs", "a-name-that-is")
	s.tmux("resize-window", "-x", "40", "-y", "10")
	s.await("a-name-that-is-…", "CPU", "!PORTS", "s shell", "q quit")
	for line := range strings.Lines(s.text()) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 40 {
			t.Errorf("a line of %d columns in 40: %q", n, line)
		}
	}
	s.tmux("resize-window", "-x", "100", "-y", "14")
	s.await("PORTS")
	s.keys("q")
	s.await("left with 0", "!NAME*")

	// A signal ends it like any command, and leaves the terminal as it was.
	s.keys("clear; banger top; echo left with $?; stty -a | grep -o 'isig icanon iexten echo '", "Enter")
	s.await("NAME*")
	shell := strings.TrimSpace(s.tmux("display-message", "-p", "#{pane_pid}"))
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
	s.await("banger: interrupted", "left with 130", "\nisig icanon iexten echo", "!NAME*")
}

// A daemon that goes is told, and used again when it comes back.
func TestTopWithoutDaemon(t *testing.T) {
	w, _, env := topWorld(t)
	s := newScreen(t, "100", "12", "banger top", env...)
	s.await("devbox  running")
	w.close()
	s.await("no answer, trying again", "devbox")
	again, err := newWorld(w.dir.Root, filepath.Dir(w.dir.Root))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.close)
	s.await("2 VMs", "!no answer")
}

func TestTopColors(t *testing.T) {
	const grey = "\x1b[90m"
	_, _, env := topWorld(t)
	for _, none := range []bool{false, true} {
		if none {
			env = append(env, "NO_COLOR=yes")
		}
		s := newScreen(t, "100", "12", "banger top", env...)
		s.await("webbox  stopped")
		shown := s.tmux("capture-pane", "-p", "-e")
		if got := strings.Contains(shown, grey); got == none {
			t.Errorf("NO_COLOR %v: grey %v: %q", none, got, shown)
		}
		if !regexp.MustCompile(`\x1b\[(0;)?7m`).MatchString(shown) {
			t.Errorf("NO_COLOR %v: no VM is chosen: %q", none, shown)
		}
	}
}
