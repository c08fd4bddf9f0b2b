package script

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/testenv"
)

const bashCompletion = "/usr/share/bash-completion/bash_completion"

// Tab in the shells themselves completes names of VMs and values of flags, and is quiet without a daemon.
func TestTabCompletes(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	for _, shell := range []struct{ name, run, setUp string }{
		{"bash", "bash --norc --noprofile -i", "source " + bashCompletion + "; source <(banger completion bash)"},
		{"zsh", "zsh -f -i", "autoload -U compinit; compinit -u -D; source <(banger completion zsh)"},
		{"fish", "fish --no-config --interactive", "banger completion fish | source"},
	} {
		t.Run(shell.name, func(t *testing.T) {
			testenv.RequireTool(t, shell.name)
			if _, err := os.Stat(bashCompletion); shell.name == "bash" && err != nil {
				t.Skipf("the package bash-completion is missing: %v", err)
			}
			_, _, env := topWorld(t)
			s := newScreen(t, "120", "20", shell.run, append(env, "PS1=ready> ", "HISTFILE=")...) // a history would be written after the test, when the terminal ends
			s.Keys(shell.setUp+"; echo set''up", "Enter")
			s.Await("setup\n")
			none := filepath.Join(t.TempDir(), "none")
			for _, tc := range []struct{ typed, shown string }{
				{"banger vm st", "start, stats, stop"},
				{"banger vm stop de", "banger vm stop devbox"},
				{"banger top --sort me", "banger top --sort memory"},
				{"banger vm list --filter stat", "banger vm list --filter state="},
				{"banger vm list --filter state=ru", "banger vm list --filter state=running"},
				{"banger vm list --filter name=we", "banger vm list --filter name=webbox"},
				{"banger vm create --image deb", "banger vm create --image debian-bookworm-slim"},
				{"banger vm create --kernel deb", "banger vm create --kernel debian"},
				{"banger vm create --net no", "banger vm create --net none"},
				{"export BANGER_STATE_DIR=" + none, ""},
				{"banger vm stop de", "!devbox"},
			} {
				s.Keys("C-u", "C-l")
				s.Keys("-l", tc.typed)
				s.Await(tc.typed)
				switch {
				case tc.shown == "":
					s.Keys("Enter")
				case tc.typed == "banger vm st":
					s.Keys("Tab", "Tab")
					s.Await("start", "stats", "stop")
				case strings.HasPrefix(tc.shown, "!"):
					s.Keys("Tab")
					s.Keys("-l", "END")
					s.Await("END", tc.shown, "!banger:", "!rror")
				default:
					s.Keys("Tab")
					s.Await(tc.shown)
				}
			}
		})
	}
}
