// Package screen gives tests a terminal.
package screen

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/testenv"
)

// Screen is a terminal that tmux emulates: what a person would see.
type Screen struct {
	t      testing.TB
	socket string
	as     *exec.Cmd
}

// New runs a shell command on a terminal of so many columns and rows, with the user, the directory and the environment of as; nil: the
// test's own. It ends with the test.
func New(t testing.TB, cols, rows, command string, as *exec.Cmd) *Screen {
	t.Helper()
	testenv.RequireTool(t, "tmux")
	if as == nil {
		as = &exec.Cmd{}
	}
	dir := t.TempDir()
	if as.SysProcAttr != nil { // another user, who makes the socket
		dir = testenv.OrdinaryUser(t).Dir(t)
	}
	s := &Screen{t, filepath.Join(dir, "tmux"), as}
	s.Tmux("-f", "/dev/null", "new-session", "-d", "-x", cols, "-y", rows, command)
	t.Cleanup(func() { _ = s.command("kill-server").Run() })
	return s
}

func (s *Screen) command(args ...string) *exec.Cmd {
	cmd := exec.Command("tmux", append([]string{"-S", s.socket}, args...)...)
	cmd.Env, cmd.Dir, cmd.SysProcAttr = s.as.Env, s.as.Dir, s.as.SysProcAttr
	return cmd
}

// Tmux runs a command of tmux and gives its output.
func (s *Screen) Tmux(args ...string) string {
	s.t.Helper()
	out, err := s.command(args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("tmux %q: %v: %s", args, err, out)
	}
	return string(out)
}

// Keys types, by tmux's names of keys.
func (s *Screen) Keys(keys ...string) {
	s.t.Helper()
	s.Tmux(append([]string{"send-keys"}, keys...)...)
}

// Text is what the screen shows, without colours.
func (s *Screen) Text() string {
	s.t.Helper()
	return s.Tmux("capture-pane", "-p")
}

// Await waits until the screen shows all texts, and none of those that begin with "!".
func (s *Screen) Await(texts ...string) {
	s.t.Helper()
	s.AwaitThat(strings.Join(texts, ", "), func(shown string) bool {
		for _, text := range texts {
			if text, not := strings.CutPrefix(text, "!"); strings.Contains(shown, text) == not {
				return false
			}
		}
		return true
	})
}

// AwaitThat waits until the screen is as it should be.
func (s *Screen) AwaitThat(what string, right func(shown string) bool) {
	s.t.Helper()
	testenv.WaitFor(s.t, time.Minute, what, func() bool { return right(s.Text()) })
	if s.t.Failed() {
		s.t.Fatalf("the screen shows:\n%s", s.Text())
	}
}
