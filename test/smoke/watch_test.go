package smoke

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/testenv"
)

// watching is a running "workspace watch".
type watching struct {
	t      *testing.T
	cmd    *exec.Cmd
	events chan watchEvent
	stderr *strings.Builder
}

type watchEvent struct{ Event, Path, From, Kept_as string }

// startWatch begins to watch and waits until both sides are alike.
func startWatch(t *testing.T, w *testenv.World, args ...string) *watching {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	h := &watching{t: t, cmd: w.Command(ctx, append([]string{"workspace", "watch", "--json", "devbox"}, args...)...), events: make(chan watchEvent, 1000), stderr: &strings.Builder{}}
	h.cmd.Stderr = h.stderr
	out, err := h.cmd.StdoutPipe()
	if err == nil {
		err = h.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(h.events)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e watchEvent
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				h.events <- e
			}
		}
	}()
	return h
}

// await waits for an event and gives those up to it.
func (h *watching) await(event, path string) (seen []watchEvent) {
	h.t.Helper()
	for e := range h.events {
		seen = append(seen, e)
		if e.Event == event && e.Path == path {
			return seen
		}
	}
	h.t.Fatalf("the watch ended before %s %s: %v, %s", event, path, seen, h.stderr)
	return nil
}

// stop ends it by a signal and gives the exit status.
func (h *watching) stop(sig syscall.Signal) int {
	h.t.Helper()
	if err := h.cmd.Process.Signal(sig); err != nil {
		h.t.Fatal(err)
	}
	for range h.events {
	}
	_ = h.cmd.Wait() // its state says how it ended
	return h.cmd.ProcessState.ExitCode()
}

// TestWatch keeps a repository and its copy in a VM alike, through conflicts, files that are held back, and every way to be interrupted.
func TestWatch(t *testing.T) {
	testenv.RequireTier(t, "smoke")
	t.Parallel()
	w := testenv.NewWorld(t)
	dir := userRepo(t, w)
	w.Must("vm", "run", "--name", "devbox", dir, "--", "true")
	guest := func(script string) string {
		t.Helper()
		return w.Must("vm", "exec", "devbox", "--", "sh", "-c", "cd /root/repo && "+script)
	}
	wantHost := func(name, want string) {
		t.Helper()
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("here %s has %q, %v, want %q", name, b, err, want)
		}
	}
	userFile(t, w, filepath.Join(dir, "README"), "edited before the first watch\n")
	guest("echo there > src/there.c; rm gone; echo o > x.o")

	h := startWatch(t, w)
	h.await("ready", "")
	wantHost("src/there.c", "there\n")
	if got := guest("cat README notes; ls"); got != "edited before the first watch\nuntracked\nREADME\nnotes\nsrc\nx.o\n" {
		t.Errorf("in the guest: %q", got)
	}
	for _, name := range []string{"gone", "x.o"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is here", name)
		}
	}
	if r := w.Run("workspace", "watch", "devbox"); r.Status != 4 || !strings.Contains(r.Stderr, "watched already") {
		t.Errorf("a second watch: %d %s", r.Status, r.Stderr)
	}

	userFile(t, w, filepath.Join(dir, "src/deep/here.c"), "here\n")
	h.await("written", "src/deep/here.c")
	if got := guest("cat src/deep/here.c"); got != "here\n" {
		t.Errorf("in the guest: %q", got)
	}
	guest("mkdir -p lib/a && echo lib > lib/a/b && mv src/there.c src/moved.c && chmod +x src/moved.c && ln -s /etc/passwd link && echo 'echo pwned' > .envrc && mkdir .vscode && echo '{}' > .vscode/tasks.json")
	held := h.await("held", ".vscode/tasks.json")
	if !slices.ContainsFunc(held, func(e watchEvent) bool { return e.Event == "held" && e.Path == ".envrc" }) {
		t.Errorf("no word about .envrc: %v", held)
	}
	guest("echo last > last")
	h.await("written", "last")
	wantHost("lib/a/b", "lib\n")
	wantHost("src/moved.c", "there\n")
	if target, err := os.Readlink(filepath.Join(dir, "link")); err != nil || target != "/etc/passwd" {
		t.Errorf("link: %q, %v", target, err)
	}
	for _, name := range []string{".envrc", ".vscode", "src/there.c"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is here", name)
		}
	}
	if info, err := os.Lstat(filepath.Join(dir, "src/moved.c")); err != nil || info.Mode().Perm()&0o100 == 0 {
		t.Errorf("src/moved.c: %v, %v", info, err)
	}
	if status := h.stop(syscall.SIGINT); status != 130 {
		t.Errorf("status %d after Ctrl-C: %s", status, h.stderr)
	}

	// While nobody watches: both sides edit, one removes what the other edits.
	userFile(t, w, filepath.Join(dir, "last"), "edited here\n")
	userFile(t, w, filepath.Join(dir, "README"), "edited here\n")
	guest("echo edited there > last; rm README; echo meanwhile > meanwhile")
	h = startWatch(t, w, "--accept", ".envrc")
	seen := h.await("ready", "")
	i := slices.IndexFunc(seen, func(e watchEvent) bool { return e.Event == "conflict" && e.Path == "last" })
	if i < 0 || !strings.HasPrefix(seen[i].Kept_as, "last.conflict-guest-") {
		t.Fatalf("no conflict: %v", seen)
	}
	wantHost("last", "edited here\n")
	wantHost(seen[i].Kept_as, "edited there\n")
	wantHost("meanwhile", "meanwhile\n")
	wantHost(".envrc", "echo pwned\n")
	if got := guest("cat last README '" + seen[i].Kept_as + "'"); got != "edited here\nedited here\nedited there\n" {
		t.Errorf("in the guest: %q", got)
	}

	// Killed, and a VM that loses power: the next watch goes on.
	userFile(t, w, filepath.Join(dir, "src/deep/here.c"), "second\n")
	h.await("written", "src/deep/here.c")
	h.stop(syscall.SIGKILL)
	guest("echo third > src/moved.c")
	h = startWatch(t, w)
	h.await("ready", "")
	wantHost("src/moved.c", "third\n")
	w.Must("vm", "kill", "devbox")
	for range h.events {
	}
	if _ = h.cmd.Wait(); h.cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("status %d when the VM is gone: %s", h.cmd.ProcessState.ExitCode(), h.stderr)
	}
	userFile(t, w, filepath.Join(dir, "src/moved.c"), "fourth\n")
	w.Must("vm", "start", "devbox")
	h = startWatch(t, w)
	for _, e := range h.await("ready", "") {
		if e.Event == "conflict" || e.From == "guest" && e.Event != "held" {
			t.Errorf("after the VM lost power: %v", e)
		}
	}
	if got := guest("cat src/moved.c src/deep/here.c last"); got != "fourth\nsecond\nedited here\n" {
		t.Errorf("in the guest: %q", got)
	}
	h.stop(syscall.SIGTERM)
}
