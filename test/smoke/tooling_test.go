package smoke

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/testenv"
)

// smallMise stands for mise: it takes the commands that banger gives, and notes them instead of fetching anything. An installation waits
// until the file ~/go is there, if ~/wait is; python can't be had.
const smallMise = `#!/bin/sh
mkdir -p "$HOME/tools"
echo "$PWD: mise $*" >> "$HOME/tools/calls"
case "$1" in
trust) ;;
install)
	cat mise.toml
	while [ -e "$HOME/wait" ] && [ ! -e "$HOME/go" ]; do sleep 0.1; done ;;
use)
	case "$*" in *python*) echo "python can't be had" >&2; exit 1 ;; esac
	echo "$4" >> "$HOME/tools/used" ;;
*) exit 2 ;;
esac
`

// toolsTar is an image of busybox and the small program in place of mise.
func toolsTar(t *testing.T) string {
	t.Helper()
	program, err := os.ReadFile(testenv.RequireTool(t, "busybox"))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, program)
	for _, name := range []string{"sh", "mkdir", "cat", "tee", "rm", "sleep", "touch", "grep"} {
		add(tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	add(tar.Header{Name: "usr/local/bin/mise", Typeflag: tar.TypeReg, Mode: 0o755}, []byte(smallMise))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestTooling: what a repository pins is installed in the machine by mise, for a shell beside it and beyond its end, for --detach before
// the command ends; the log stays in the machine; without mise, and for a command, nothing is. The image has a small program of the
// test's own in place of mise.
func TestTooling(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	w := testenv.NewWorld(t)
	repo := userRepo(t, w)
	userFile(t, w, filepath.Join(repo, "mise.toml"), "[tools]\nruby = \"3\"\n")
	userFile(t, w, filepath.Join(repo, "go.mod"), "module x\ngo 1.22\ntoolchain go1.23.4\n")
	userFile(t, w, filepath.Join(repo, ".python-version"), "3.12\n")
	userGit(t, w, repo, "add", ".")
	wantStatus(t, w.RunInput(toolsTar(t), "image", "import", "-", "--name", "tools"), 0)

	const log = "/root/.cache/banger/vm-run-tooling-app.log"
	wantStatus(t, w.Run("vm", "run", "-d", "--name", "one", "--image", "tools", repo), 0, "not all tools are installed: look at "+log+" in the VM")
	calls := "/root/repo: mise trust --quiet --all\n/root/repo: mise install\n/root/repo: mise use --global --pin go@1.23.4\n/root/repo: mise use --global --pin python@3.12\n"
	if out := w.Must("vm", "exec", "one", "--", "sh", "-c", "cat ~/tools/calls ~/tools/used"); out != calls+"go@1.23.4\n" {
		t.Errorf("mise was called\n%s\nwant\n%s", out, calls)
	}
	out := w.Must("vm", "exec", "one", "--", "cat", log)
	for _, want := range []string{"+ mise install\n[tools]\nruby", "+ mise use --global --pin go@1.23.4\n", "python can't be had\n", "banger: done with status 1\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("the log lacks %q:\n%s", want, out)
		}
	}

	userFile(t, w, filepath.Join(repo, ".python-version"), "3.x\n")
	home := w.User.Dir(t)
	userFile(t, w, filepath.Join(home, "wait"), "")
	w.Env = append(w.Env, "HOME="+home)
	r := w.RunInput("cat tools/used 2>&1 | grep -c go@; exit 7\n", "vm", "run", "--name", "two", "--image", "tools", "--sync", "~/wait", repo)
	wantStatus(t, r, 7, `.python-version: "3.x" is no version that is pinned`)
	wantStatus(t, r, 7, "installing mise install (mise.toml), go@1.23.4 (go.mod) goes on in the VM: tail -f "+log)
	w.Must("vm", "exec", "two", "--", "sh", "-c", "[ ! -e ~/tools/used ] && touch ~/go && until grep -q 'banger: done with status 0' "+log+"; do sleep 0.1; done; grep -q go@1.23.4 ~/tools/used")

	wantStatus(t, w.Run("vm", "run", "--rm", "--image", "tools", repo, "--", "sh", "-c", "[ ! -e ~/tools ]"), 0)
	wantStatus(t, w.Run("vm", "run", "-d", "--name", "three", repo), 0, "there is no mise in the VM: mise install (mise.toml), go@1.23.4 (go.mod) is not installed")
}
