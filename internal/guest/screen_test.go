package guest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/testenv"
	"banger/internal/testenv/screen"
)

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
		s := screen.New(t, "100", "30", "ssh -tt -F "+o.config+" vm vim -u NONE -N "+file, nil)
		s.AwaitThat("an empty file", func(shown string) bool { return strings.Count(shown, "\n~") > 20 })
		s.Keys("i", "first line", "Enter", "second", "Escape", "k", "0", "x")
		s.AwaitThat("the edit", has("irst line\nsecond\n~"))
		s.Tmux("resize-window", "-x", "60", "-y", "12")
		s.AwaitThat("the new size", func(shown string) bool {
			return strings.Count(shown, "\n~") < 12 && strings.Contains(shown, "irst line")
		})
		s.Keys(":wq", "Enter")
		testenv.WaitFor(t, 20*time.Second, "what vim writes", func() bool {
			got, err := os.ReadFile(file)
			return err == nil && string(got) == "irst line\nsecond\n"
		})
	})
	t.Run("htop", func(t *testing.T) {
		testenv.RequireTool(t, "htop")
		s := screen.New(t, "100", "30", "ssh -tt -F "+o.config+" vm env HOME="+t.TempDir()+" htop", nil)
		s.AwaitThat("meters, processes and keys", func(shown string) bool {
			return strings.Contains(shown, "Load average") && strings.Contains(shown, "PID") && strings.Contains(shown, "F10")
		})
		s.Tmux("resize-window", "-x", "70", "-y", "14")
		s.AwaitThat("the new size", func(shown string) bool {
			lines := strings.Split(strings.TrimRight(shown, "\n"), "\n")
			return len(lines) <= 14 && strings.Contains(lines[len(lines)-1], "F1")
		})
		s.Keys("q")
	})
	t.Run("tmux in it", func(t *testing.T) {
		inner := filepath.Join(t.TempDir(), "inner")
		s := screen.New(t, "100", "30", "ssh -tt -F "+o.config+" vm env -u TMUX tmux -S "+inner+" -f /dev/null", nil)
		defer exec.Command("tmux", "-S", inner, "kill-server").Run()
		s.AwaitThat("the status line", has("[0] 0:"))
		s.Keys("C-b", `"`)
		s.AwaitThat("two panes", has("────"))
		s.Keys("echo in''ner", "Enter")
		s.AwaitThat("the shell in it", has("inner\n"))
	})
	t.Run("interrupt and job control", func(t *testing.T) {
		s := screen.New(t, "100", "30", "ssh -tt -F "+o.config+" vm sh", nil)
		s.AwaitThat("the shell", func(shown string) bool { return strings.ContainsAny(shown, "#$") })
		s.Keys("sleep 1000; echo interr''upted", "Enter")
		s.AwaitThat("the command", has("sleep 1000"))
		s.Keys("C-c")
		s.AwaitThat("the next prompt", func(shown string) bool {
			_, after, interrupted := strings.Cut(shown, "^C")
			return interrupted && strings.ContainsAny(after, "#$")
		})
		s.Keys("echo al''ive", "Enter")
		s.AwaitThat("the shell after Ctrl-C", has("\nalive"))
		s.Keys("exit 0", "Enter")
	})
}
