package smoke

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/testenv"
)

// userGit runs git as the world's user and gives what it prints.
func userGit(t *testing.T, w *testenv.World, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=A U Thor", "-c", "user.email=author@example.com"}, args...)...)
	cmd.Dir = dir
	w.User.As(cmd)
	r := testenv.Capture(t, cmd)
	if r.Status != 0 {
		t.Fatalf("git %s: %s", strings.Join(args, " "), r.Stderr)
	}
	return r.Stdout
}

func userFile(t *testing.T, w *testenv.World, path, content string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `mkdir -p "$(dirname "$0")" && cat > "$0"`, path)
	cmd.Stdin = strings.NewReader(content)
	w.User.As(cmd)
	if r := testenv.Capture(t, cmd); r.Status != 0 {
		t.Fatalf("write %s: %s", path, r.Stderr)
	}
}

// userRepo makes a repository with some commits and an edit.
func userRepo(t *testing.T, w *testenv.World) string {
	t.Helper()
	testenv.RequireTool(t, "git")
	dir := filepath.Join(w.User.Dir(t), "app")
	userFile(t, w, filepath.Join(dir, "README"), "one\n")
	userGit(t, w, dir, "init", "-q", "-b", "main")
	userFile(t, w, filepath.Join(dir, "src/main.c"), "int main(void) { return 0; }\n")
	userFile(t, w, filepath.Join(dir, "gone"), "gone\n")
	userFile(t, w, filepath.Join(dir, ".gitignore"), "*.o\n")
	userGit(t, w, dir, "add", ".")
	userGit(t, w, dir, "commit", "-q", "-m", "first")
	userGit(t, w, dir, "config", "remote.origin.url", "https://me:secret@example.com/app.git")
	userFile(t, w, filepath.Join(dir, "README"), "edited on the host\n")
	userFile(t, w, filepath.Join(dir, "notes"), "untracked\n")
	return dir
}

// TestWorkspaceRoundTrip takes a repository into a guest that has no git, and the work back.
func TestWorkspaceRoundTrip(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	dir := userRepo(t, w)
	head := userGit(t, w, dir, "rev-parse", "HEAD")

	if out := w.Must("vm", "run", "--dry-run", dir); out != ".gitignore\nREADME\ngone\nsrc/main.c\n" {
		t.Errorf("--dry-run: %q", out)
	}
	r := w.Run("vm", "run", "--name", "devbox", "--branch", "topic", dir, "--", "sh", "-c",
		"pwd; cat README; cat .git/HEAD; ls; grep -c secret .git/config; echo 'work' > src/new.c; echo changed > src/main.c; rm gone; echo o > x.o")
	wantStatus(t, r, 0, "1 untracked files stay on the host")
	if want := "/root/repo\nedited on the host\nref: refs/heads/topic\nREADME\ngone\nsrc\n0\n"; r.Stdout != want {
		t.Errorf("in the guest: %q, want %q", r.Stdout, want)
	}
	if out := w.Must("vm", "exec", "devbox", "--", "pwd"); out != "/root/repo\n" {
		t.Errorf("vm exec runs in %q", out)
	}
	r = w.Run("workspace", "prepare", "devbox", "--branch", "topic", dir) // nothing has changed here: what was done there stays
	wantStatus(t, r, 0, "0 files written, 0 removed", "2 files have changed there")
	if r := w.Run("workspace", "prepare", "devbox", "--guest-path", "/root/.ssh", dir); r.Status != 4 || !strings.Contains(r.Stderr, "there already") {
		t.Errorf("prepared over what is there: %d %s", r.Status, r.Stderr)
	}

	checkWork := func() {
		t.Helper()
		out := w.Must("workspace", "status", "devbox")
		for _, want := range []string{"branch topic, 0 commits since it went in", "deleted    gone", "modified   src/main.c", "untracked  src/new.c"} {
			if !strings.Contains(out, want) {
				t.Errorf("status has no %q:\n%s", want, out)
			}
		}
		if strings.Contains(out, "README") || strings.Contains(out, "x.o") {
			t.Errorf("status shows what the host has or ignores:\n%s", out)
		}
		if out := w.Must("workspace", "diff", "devbox"); !strings.Contains(out, "+work") || !strings.Contains(out, "-int main") {
			t.Errorf("diff: %s", out)
		}
	}
	checkWork()
	userFile(t, w, filepath.Join(dir, "src/main.c"), "changed on the host too\n")
	r = w.Run("workspace", "prepare", "devbox", "--branch", "topic", dir)
	wantStatus(t, r, 4, "1 file (src/main.c)", "workspace pull")
	userGit(t, w, dir, "checkout", "-q", "src/main.c")
	checkWork()
	w.Must("vm", "stop", "devbox")
	checkWork()

	before := userGit(t, w, dir, "status", "--porcelain")
	out := w.Must("workspace", "pull", "devbox", "--branch", "from-vm", "--with-changes")
	if !strings.Contains(out, "/worktree") || !strings.Contains(out, "/untracked") {
		t.Errorf("pull: %s", out)
	}
	if got := userGit(t, w, dir, "show", "from-vm:src/new.c"); got != "work\n" {
		t.Errorf("src/new.c on the branch: %q", got)
	}
	if got := userGit(t, w, dir, "status", "--porcelain"); got != before || userGit(t, w, dir, "rev-parse", "HEAD") != head {
		t.Errorf("the pull changed the work tree: %q, was %q", got, before)
	}
	patch := filepath.Join(w.User.Dir(t), "work.patch")
	w.Must("workspace", "export", "devbox", "-o", patch)
	if b, err := os.ReadFile(patch); err != nil || !strings.Contains(string(b), "+++ b/src/new.c") {
		t.Errorf("export: %s, %v", b, err)
	}
	w.Must("workspace", "pull", "devbox", "--apply")
	if got, want := userGit(t, w, dir, "status", "--porcelain"), " M README\n D gone\n M src/main.c\n?? notes\n?? src/new.c\n"; got != want {
		t.Errorf("after --apply: %q, want %q", got, want)
	}
	userGit(t, w, dir, "fsck", "--strict")
}

// TestDeleteKeepsWork deletes VMs in every way that there is: what was done in them is in the repository afterwards.
func TestDeleteKeepsWork(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	dir := userRepo(t, w)
	kept := func(vm, file, content string) {
		t.Helper()
		refs := strings.Fields(userGit(t, w, dir, "for-each-ref", "--format=%(refname)", "refs/banger/"+vm))
		for _, ref := range refs {
			if strings.HasSuffix(ref, "/untracked") && userGit(t, w, dir, "show", ref+":"+file) == content {
				return
			}
		}
		t.Errorf("%s of %s is in none of %q", file, vm, refs)
	}

	w.Must("vm", "run", "--name", "idle", dir, "--", "true")
	r := w.Run("vm", "delete", "--force", "idle")
	wantStatus(t, r, 0)
	if out := w.Must("autosave", "list", "--quiet"); out != "" || strings.Contains(r.Stderr, "work of") {
		t.Errorf("a VM without work left %q", out)
	}

	// The file is not synced: the guest writes it as it stops.
	r = w.Run("vm", "run", "--rm", "--name", "gone", dir, "--", "sh", "-c", "echo precious > new; exit 3")
	wantStatus(t, r, 3, "work of vm gone is in "+dir)
	kept("gone", "new", "precious\n")

	w.Must("vm", "run", "--name", "twice", dir, "--", "sh", "-c", "echo first > new")
	w.Must("vm", "delete", "--force", "twice")
	kept("twice", "new", "first\n")
	w.Must("vm", "run", "--name", "twice", dir, "--", "sh", "-c", "echo second > new")
	w.Must("vm", "stop", "twice")
	away := dir + ".away"
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	w.Must("vm", "delete", "twice") // the repository is not there: the bundle waits for it
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	kept("twice", "new", "first\n")
	ids := strings.Fields(w.Must("autosave", "list", "--quiet"))
	if len(ids) != 3 {
		t.Fatalf("autosaves %q, want 3", ids)
	}
	w.Must("autosave", "restore", ids[2])
	kept("twice", "new", "second\n")

	w.Must("vm", "run", "--name", "large", "--disk-size", "4G", dir, "--", "sh", "-c", "truncate -s 2G huge || dd if=/dev/zero of=huge bs=1 count=1 seek=2147483647")
	r = w.Run("vm", "delete", "--force", "large")
	wantStatus(t, r, 4, "more than 1 GiB", "--discard-work")
	if rows := listVMs(w); len(rows) != 1 {
		t.Errorf("VMs %v, want the one whose work can't be kept", rows)
	}
	w.Must("vm", "delete", "--discard-work", "large")
	userGit(t, w, dir, "fsck", "--strict")
}
