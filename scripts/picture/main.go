// Command picture makes the picture of a terminal in the README from a real run: it types commands into a terminal (tmux), waits
// for each to end, and draws what the terminal then shows as an SVG file.
//
// It is run as an ordinary user with banger on the PATH and tmux and git installed: go run ./scripts/picture docs/terminal.svg
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	columns = 100
	rows    = 50 // more than the commands fill
	vm      = "devbox"
)

// commands are what a newcomer does first: a repository goes in, work is done there, the work comes back.
var commands = []string{
	"banger vm run ./hello --name " + vm + " -- sh test.sh",
	"banger ps",
	"banger vm exec " + vm + " -- sed -i s/wrold/world/ greet.sh",
	"banger vm exec " + vm + " -- sh test.sh",
	"banger workspace status " + vm,
	"banger workspace pull " + vm + " --branch fix --with-changes",
	"git -C hello show --stat --oneline fix",
	"banger vm delete --force " + vm,
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: picture FILE.svg")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

func run(out string) (err error) {
	dir := filepath.Join(os.TempDir(), "demo") // it is in the picture
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := makeRepository(filepath.Join(dir, "hello")); err != nil {
		return err
	}
	t := terminal{socket: filepath.Join(dir, "tmux")}
	// Before each prompt whoever waits is told.
	rc := "PS1='\\[\\e[1;32m\\]$\\[\\e[0m\\] '\nPROMPT_COMMAND='tmux -S " + t.socket + " wait-for -S prompt'\nexport GIT_PAGER=cat\nunset HISTFILE\n"
	if err := os.WriteFile(filepath.Join(dir, "rc"), []byte(rc), 0o600); err != nil {
		return err
	}
	if err := t.tmux("-f", "/dev/null", "new-session", "-d", "-x", fmt.Sprint(columns), "-y", fmt.Sprint(rows), "-c", dir, "bash --rcfile "+filepath.Join(dir, "rc")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.tmux("kill-server")) }()
	if err := t.prompt(); err != nil {
		return err
	}
	for _, line := range commands {
		if err := errors.Join(t.tmux("send-keys", "-l", line), t.tmux("send-keys", "Enter"), t.prompt()); err != nil {
			return err
		}
	}
	shown, err := exec.Command("tmux", "-S", t.socket, "capture-pane", "-p", "-e").Output()
	if err != nil {
		return fmt.Errorf("read the terminal: %w", err)
	}
	lines := strings.Split(strings.TrimRight(string(shown), "\n"), "\n")
	if len(lines) > 1 {
		lines = lines[:len(lines)-1] // the last prompt, where nothing was typed
	}
	if len(lines) >= rows-1 {
		return fmt.Errorf("the commands filled all %d lines: some are lost", rows)
	}
	return os.WriteFile(out, []byte(draw(lines)), 0o644)
}

type terminal struct{ socket string }

func (t terminal) tmux(args ...string) error {
	text, err := exec.Command("tmux", append([]string{"-S", t.socket}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("tmux %s: %w: %s", args[0], err, text)
	}
	return nil
}

// prompt waits until the shell has shown its prompt, of two characters.
func (t terminal) prompt() error {
	if err := t.tmux("wait-for", "prompt"); err != nil {
		return err
	}
	for {
		column, err := exec.Command("tmux", "-S", t.socket, "display-message", "-p", "#{cursor_x}").Output()
		if err != nil || strings.TrimSpace(string(column)) == "2" {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// makeRepository makes a small repository whose test fails.
func makeRepository(dir string) error {
	files := map[string]string{
		"greet.sh": "echo hello, wrold\n",
		"test.sh":  "got=$(sh greet.sh)\nif [ \"$got\" = \"hello, world\" ]; then echo \"ok    $got\"; else echo \"FAIL  $got\"; exit 1; fi\n",
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"}, {"config", "user.name", "Ada"}, {"config", "user.email", "ada@example.com"}, {"add", "."}, {"commit", "-q", "-m", "a greeting"},
	} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %s: %w: %s", args[0], err, text)
		}
	}
	return nil
}
