package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// gitIn runs git in a directory of the test's.
func gitIn(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command(RequireTool(t, "git"), append([]string{"-c", "user.name=x", "-c", "user.email=x@example.com"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// HostileGit gives a repository's configuration and hooks everything that would make git run a program; it leaves the file canary.
func HostileGit(t testing.TB, dir string) (canary string) {
	t.Helper()
	canary = filepath.Join(t.TempDir(), "ran")
	program := filepath.Join(t.TempDir(), "evil")
	putFile(t, program, "#!/bin/sh\ntouch "+canary+"\ncat\n", 0o755)
	for _, setting := range []string{"core.fsmonitor", "filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.external", "diff.evil.textconv", "merge.evil.driver",
		"core.sshCommand", "core.editor", "core.pager", "uploadpack.packObjectsHook", "core.alternateRefsCommand", "gpg.program", "credential.helper"} {
		gitIn(t, dir, "config", setting, program)
	}
	for _, hook := range []string{"post-checkout", "reference-transaction", "pre-commit", "post-index-change", "fsmonitor-watchman", "pre-auto-gc"} {
		putFile(t, filepath.Join(dir, ".git/hooks", hook), "#!/bin/sh\ntouch "+canary+"\n", 0o755)
	}
	return canary
}

// HostileGuest makes a guest's repository one that tries all that a guest can try on a host that reads it: to have programs run, to
// be given files and objects of the host, and to write refs elsewhere. It has the files a, changed, and b, new. secret is a commit of
// another repository of the host, whose objects must not be there.
func HostileGuest(t testing.TB, dir string) (canary, secret string) {
	t.Helper()
	other := t.TempDir()
	gitIn(t, other, "init", "-q")
	putFile(t, filepath.Join(other, "s"), "secret", 0o600)
	gitIn(t, other, "add", ".")
	gitIn(t, other, "commit", "-q", "-m", "secret")
	secret = gitIn(t, other, "rev-parse", "HEAD")

	putFile(t, filepath.Join(dir, ".gitattributes"), "* filter=evil diff=evil merge=evil export-subst\n", 0o644)
	putFile(t, filepath.Join(dir, "a"), "2", 0o644)
	putFile(t, filepath.Join(dir, "b"), "2", 0o644)
	gitIn(t, dir, "add", ".")
	canary = HostileGit(t, dir)
	putFile(t, filepath.Join(dir, "b"), "3", 0o644)
	putFile(t, filepath.Join(dir, ".gitmodules"), "[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c 'touch "+canary+"'\n", 0o644)
	putFile(t, filepath.Join(dir, ".git/config.worktree"), "[core]\n\tfsmonitor = touch "+canary+"\n", 0o644)
	putFile(t, filepath.Join(dir, ".git/info/attributes"), "* filter=evil\n", 0o644)
	putFile(t, filepath.Join(dir, ".git/refs/heads/..evil"), secret+"\n", 0o644)
	putFile(t, filepath.Join(dir, ".git/refs/heads/e\x1b[31mvil"), secret+"\n", 0o644)
	putFile(t, filepath.Join(dir, ".git/refs/heads/-evil"), secret+"\n", 0o644)
	putFile(t, filepath.Join(dir, ".git/objects/info/alternates"), filepath.Join(other, ".git/objects")+"\n", 0o644)
	packed, _ := os.ReadFile(filepath.Join(dir, ".git/packed-refs"))
	putFile(t, filepath.Join(dir, ".git/packed-refs"), string(packed)+secret+" refs/heads/../../evil\n"+secret+" refs/banger/evil\n"+secret+" HEAD\n", 0o644)
	putFile(t, filepath.Join(dir, ".git/worktrees/evil/gitdir"), filepath.Join(other, ".git")+"\n", 0o644)
	for link, to := range map[string]string{".git/refs/heads/passwd": "/etc/passwd", ".git/objects/pack/pack-" + strings.Repeat("1", 40) + ".pack": "/etc/passwd",
		".git/objects/" + secret[:2]: filepath.Join(other, ".git/objects", secret[:2]), ".git/shallow": "/etc/passwd", "linked": other} {
		at := filepath.Join(dir, link)
		if _, err := os.Lstat(at); err == nil {
			continue // a directory of objects that the repository needs
		}
		if err := os.Symlink(to, at); err != nil {
			t.Fatal(err)
		}
	}
	return canary, secret
}

func putFile(t testing.TB, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}
