package guest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/testenv"
)

// screen is a terminal that tmux emulates: what a person would see.
type screen struct {
	t      *testing.T
	socket string
}

func newScreen(t *testing.T, command string) screen {
	t.Helper()
	s := screen{t, filepath.Join(t.TempDir(), "tmux")}
	s.tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", command)
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

func (s screen) await(what string, shows func(text string) bool) {
	s.t.Helper()
	testenv.WaitFor(s.t, 30*time.Second, what, func() bool { return shows(s.tmux("capture-pane", "-p")) })
	if s.t.Failed() {
		s.t.Fatalf("the screen shows:\n%s", s.tmux("capture-pane", "-p"))
	}
}

// Programs that draw on the whole screen work through ssh on a terminal, and follow its size.
func TestOpenSSHScreens(t *testing.T) {
	testenv.RequireTool(t, "tmux")
	o := newOpenSSH(t, newWorld(t))
	has := func(text string) func(string) bool {
		return func(shown string) bool { return strings.Contains(shown, text) }
	}
	t.Run("vim", func(t *testing.T) {
		testenv.RequireTool(t, "vim")
		file := filepath.Join(t.TempDir(), "file")
		s := newScreen(t, "ssh -tt -F "+o.config+" vm vim -u NONE -N "+file)
		s.await("an empty file", func(shown string) bool { return strings.Count(shown, "\n~") > 20 })
		s.keys("i", "first line", "Enter", "second", "Escape", "k", "0", "x")
		s.await("the edit", has("irst line\nsecond\n~"))
		s.tmux("resize-window", "-x", "60", "-y", "12")
		s.await("the new size", func(shown string) bool {
			return strings.Count(shown, "\n~") < 12 && strings.Contains(shown, "irst line")
		})
		s.keys(":wq", "Enter")
		testenv.WaitFor(t, 20*time.Second, "what vim writes", func() bool {
			got, err := os.ReadFile(file)
			return err == nil && string(got) == "irst line\nsecond\n"
		})
	})
	t.Run("htop", func(t *testing.T) {
		testenv.RequireTool(t, "htop")
		s := newScreen(t, "ssh -tt -F "+o.config+" vm env HOME="+t.TempDir()+" htop")
		s.await("meters, processes and keys", func(shown string) bool {
			return strings.Contains(shown, "Load average") && strings.Contains(shown, "PID") && strings.Contains(shown, "F10")
		})
		s.tmux("resize-window", "-x", "70", "-y", "14")
		s.await("the new size", func(shown string) bool {
			lines := strings.Split(strings.TrimRight(shown, "\n"), "\n")
			return len(lines) <= 14 && strings.Contains(lines[len(lines)-1], "F1")
		})
		s.keys("q")
	})
	t.Run("tmux in it", func(t *testing.T) {
		inner := filepath.Join(t.TempDir(), "inner")
		s := newScreen(t, "ssh -tt -F "+o.config+" vm env -u TMUX tmux -S "+inner+" -f /dev/null")
		defer exec.Command("tmux", "-S", inner, "kill-server").Run()
		s.await("the status line", has("[0] 0:"))
		s.keys("C-b", `"`)
		s.await("two panes", has("────"))
		s.keys("echo in''ner", "Enter")
		s.await("the shell in it", has("inner\n"))
	})
	t.Run("interrupt and job control", func(t *testing.T) {
		s := newScreen(t, "ssh -tt -F "+o.config+" vm sh")
		s.await("the shell", func(shown string) bool { return strings.ContainsAny(shown, "#$") })
		s.keys("sleep 1000; echo interr''upted", "Enter")
		s.await("the command", has("sleep 1000"))
		s.keys("C-c")
		s.await("the next prompt", func(shown string) bool {
			_, after, interrupted := strings.Cut(shown, "^C")
			return interrupted && strings.ContainsAny(after, "#$")
		})
		s.keys("echo al''ive", "Enter")
		s.await("the shell after Ctrl-C", has("\nalive"))
		s.keys("exit 0", "Enter")
	})
}
