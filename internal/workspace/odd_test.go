package workspace

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger"
)

// What can't go in is refused with the reason.
func TestInspectRefuses(t *testing.T) {
	dir := newRepo(t)
	commit(t, dir, "c")
	bare, sha256, plain := filepath.Join(t.TempDir(), "bare.git"), t.TempDir(), t.TempDir()
	gitIn(t, "/", "clone", "-q", "--bare", dir, bare)
	gitIn(t, sha256, "init", "-q", "--object-format=sha256")
	for name, want := range map[string]struct {
		kind error
		text string
	}{
		bare:                          {banger.ErrUnsupported, "bare"},
		sha256:                        {banger.ErrUnsupported, "sha256"},
		filepath.Join(dir, ".git"):    {banger.ErrUnsupported, "inside a .git"},
		plain:                         {banger.ErrNotFound, "not in a git repository"},
		filepath.Join(plain, "where"): {banger.ErrNotFound, "no such file"},
	} {
		_, err := Inspect(t.Context(), name)
		if !errors.Is(err, want.kind) || !strings.Contains(err.Error(), want.text) || IsNoRepo(err) != (name == plain) {
			t.Errorf("Inspect(%s) = %v, want %q", name, err, want.text)
		}
	}
	linked := filepath.Join(t.TempDir(), "linked")
	gitIn(t, bare, "worktree", "add", "-q", linked)
	if repo, err := Inspect(t.Context(), linked); err != nil || repo.Root != linked {
		t.Errorf("Inspect of a bare repository's work tree = %+v, %v", repo, err)
	}
}

// What goes in otherwise than it may seem is told.
func TestPlanTells(t *testing.T) {
	for _, test := range []struct {
		name   string
		make   func(t *testing.T, dir string)
		notice string
		status string // of the guest
	}{
		{"rebase", func(t *testing.T, dir string) {
			gitIn(t, dir, "checkout", "-q", "-b", "topic")
			writeFile(t, filepath.Join(dir, "a"), "topic\n")
			commit(t, dir, "topic")
			gitIn(t, dir, "checkout", "-q", "main")
			writeFile(t, filepath.Join(dir, "a"), "main\n")
			commit(t, dir, "main")
			exec.Command("git", "-C", dir, "rebase", "main", "topic").Run() // stops at the conflict: that is the case
		}, "a rebase is under way", "UU a\n"},
		{"bisect", func(t *testing.T, dir string) {
			commit(t, dir, "2")
			gitIn(t, dir, "bisect", "start", "HEAD", "HEAD~1")
		}, "a bisect is under way", ""},
		{"pointers of LFS", func(t *testing.T, dir string) {
			writeFile(t, filepath.Join(dir, "big.bin"), pointerStart+"v1\noid sha256:"+strings.Repeat("0", 64)+"\nsize 12\n")
			commit(t, dir, "lfs")
		}, "1 files are pointers of Git LFS", ""},
		{"a submodule that is not checked out", func(t *testing.T, dir string) {
			inner := newRepo(t)
			commit(t, inner, "inner")
			gitIn(t, dir, "-c", "protocol.file.allow=always", "submodule", "add", "-q", inner, "mod")
			commit(t, dir, "outer")
			gitIn(t, dir, "submodule", "deinit", "-q", "-f", "mod")
		}, "the submodule mod is not checked out", ""},
		{"untracked files, and a repository among them", func(t *testing.T, dir string) {
			writeFile(t, filepath.Join(dir, "new"), "n\n")
			gitIn(t, dir, "init", "-q", "other")
			commit(t, filepath.Join(dir, "other"), "other")
		}, "2 untracked files stay", ""},
		{"staged, and edited since", func(t *testing.T, dir string) {
			writeFile(t, filepath.Join(dir, "a"), "staged\n")
			writeFile(t, filepath.Join(dir, "added"), "staged\n")
			gitIn(t, dir, "add", ".")
			writeFile(t, filepath.Join(dir, "a"), "edited\n")
			os.Remove(filepath.Join(dir, "added"))
		}, "", "MM a\nAD added\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := newRepo(t)
			writeFile(t, filepath.Join(dir, "a"), "1\n")
			commit(t, dir, "c")
			test.make(t, dir)
			p := plan(t, dir, Options{})
			if got := strings.Join(p.Notices, "\n"); !strings.Contains(got, test.notice) || test.notice == "" && got != "" {
				t.Errorf("notices %q, want %q", got, test.notice)
			}
			guest := ship(t, p)
			if got := gitIn(t, guest, "status", "--porcelain"); got != test.status {
				t.Errorf("git status = %q, want %q", got, test.status)
			}
			if got, want := gitIn(t, guest, "rev-parse", "HEAD"), gitIn(t, dir, "rev-parse", "HEAD"); got != want {
				t.Errorf("HEAD = %s, want %s", got, want)
			}
		})
	}
}

// Files that git stores in another form than they have are no edits of the guest.
func TestUpdateOfEndsOfLines(t *testing.T) {
	host := newRepo(t)
	gitIn(t, host, "config", "core.autocrlf", "true")
	writeFile(t, filepath.Join(host, "Case"), "1\r\n")
	writeFile(t, filepath.Join(host, "case"), "2\r\n")
	writeFile(t, filepath.Join(host, "other"), "3\r\n")
	commit(t, host, "c")
	guest, record := prepared(t, host, Options{})
	gitIn(t, guest, "status") // it notes in the index what it has looked at
	writeFile(t, filepath.Join(host, "Case"), "1\r\nmore\r\n")
	writeFile(t, filepath.Join(host, "new"), "n\r\n")
	commit(t, host, "more")
	u, record := again(t, host, record, Options{})
	if got := strings.Join(u.Written, " "); got != "Case new" || len(u.Kept) > 0 {
		t.Errorf("written %q, kept %q", got, u.Kept)
	}
	if got := gitIn(t, guest, "status", "--porcelain"); got != "" {
		t.Errorf("git status = %q", got)
	}
	writeFile(t, filepath.Join(guest, "other"), "guest\r\n")
	writeFile(t, filepath.Join(host, "other"), "host\r\n")
	if _, err := look(t, host, record, Options{}, false); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("an edit on both sides: %v", err)
	}
}
