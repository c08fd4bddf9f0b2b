package cli

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/testenv"
)

// smallMise stands for mise: it notes how it is called, waits with an installation until there is a file "go", and has no python.
const smallMise = `#!/bin/sh
echo "mise $*" >> "$HOME/calls"
case "$*" in
install) while [ ! -e "$HOME/go" ]; do sleep 0.01; done; echo installing ;;
*python*) echo "no python" >&2; exit 1 ;;
esac
`

// runTools runs the script of the VM in a shell of this computer.
func runTools(t *testing.T, home, how, own string, tools ...string) (out string, status int) {
	t.Helper()
	cmd := exec.Command(testenv.RequireTool(t, "sh"), append([]string{"-c", toolScript, "banger", "x.log", how, own}, tools...)...)
	cmd.Env = []string{"HOME=" + home, "PATH=" + filepath.Join(home, "bin") + ":/usr/bin:/bin"}
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

func toolsHome(t *testing.T) (home string, read func(name string) string) {
	t.Helper()
	home = t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(home, "bin"), 0o755), os.WriteFile(filepath.Join(home, "bin/mise"), []byte(smallMise), 0o755)); err != nil {
		t.Fatal(err)
	}
	return home, func(name string) string {
		text, err := os.ReadFile(filepath.Join(home, name))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
}

func TestToolScript(t *testing.T) {
	home, read := toolsHome(t)
	if err := os.WriteFile(filepath.Join(home, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, status := runTools(t, home, toolsInForeground, "1", "go@1.22", "rust@stable")
	want := "+ mise install\ninstalling\n+ mise use --global --pin go@1.22\n+ mise use --global --pin rust@stable\nbanger: done with status 0\n"
	if log := read(".cache/banger/x.log"); status != 0 || out != want || log != want {
		t.Errorf("status %d, output %q, log %q, want %q", status, out, log, want)
	}
	if calls := read("calls"); calls != "mise trust --quiet --all\nmise install\nmise use --global --pin go@1.22\nmise use --global --pin rust@stable\n" {
		t.Errorf("called %q", calls)
	}
	if out, status := runTools(t, home, toolsInForeground, "0", "python@3.12", "node@20; touch $HOME/canary"); status != 1 || !strings.Contains(out, "no python\n") || strings.Contains(out, "mise install") {
		t.Errorf("a tool that can't be had: status %d, %q", status, out)
	}
	if _, err := os.Stat(filepath.Join(home, "canary")); err == nil {
		t.Error("an argument was run")
	}
	if left, err := os.ReadDir(filepath.Join(home, ".cache/banger")); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
	if err := os.Remove(filepath.Join(home, "bin/mise")); err != nil {
		t.Fatal(err)
	}
	if out, status := runTools(t, home, toolsInForeground, "1"); status != 127 || out != "" {
		t.Errorf("without mise: status %d, %q", status, out)
	}
}

// In the background the script goes on when the command that began it has ended.
func TestToolScriptInBackground(t *testing.T) {
	home, read := toolsHome(t)
	if out, status := runTools(t, home, toolsInBackground, "1", "python@3.12"); status != 0 || out != "" {
		t.Errorf("status %d, %q", status, out)
	}
	if err := os.WriteFile(filepath.Join(home, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(read(".cache/banger/x.log"), "banger: done with status 1\n"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the log: %q", read(".cache/banger/x.log"))
		}
	}
}

func TestLastLine(t *testing.T) {
	var told []string
	l := &lastLine{tell: func(line string) { told = append(told, line) }}
	for _, part := range []string{"one\ntw", "o\n", strings.Repeat("x", 1000), "\n\x1b[31m\nrest"} {
		if n, err := l.Write([]byte(part)); n != len(part) || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
	}
	want := []string{"one", "two", strings.Repeat("x", maxDetail), "\x1b[31m"}
	if strings.Join(told, "|") != strings.Join(want, "|") {
		t.Errorf("told %q", told)
	}
}
