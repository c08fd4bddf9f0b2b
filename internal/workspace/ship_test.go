package workspace

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/testenv"
	"banger/internal/tree"
)

// commit adds everything and commits it.
func commit(t *testing.T, dir, message string) string {
	t.Helper()
	gitIn(t, dir, "add", "-A")
	gitIn(t, dir, "commit", "-q", "--allow-empty", "-m", message)
	return strings.TrimSpace(gitIn(t, dir, "rev-parse", "HEAD"))
}

func plan(t *testing.T, dir string, options Options) Plan {
	t.Helper()
	repo, err := Inspect(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := MakePlan(t.Context(), repo, options)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ship sends a plan into a new directory by a tar stream, as into a guest.
func ship(t *testing.T, p Plan) string {
	t.Helper()
	s, err := p.Prepare(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return shipped(t, s)
}

func shipped(t *testing.T, s *Shipment) string {
	t.Helper()
	var stream bytes.Buffer
	if err := tree.WriteTar(&stream, s.Entries(t.Context())); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command("tar", "-x", "--no-same-owner", "-p", "-C", dir)
	cmd.Stdin = &stream
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	writeIndexes(t, s, dir)
	return dir
}

// writeIndexes does what the guest's side does when the files are there.
func writeIndexes(t *testing.T, s *Shipment, dir string) {
	t.Helper()
	stats := map[string]stat{}
	for _, e := range s.plan.entries {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(dir, e.Path), &st) == nil {
			stats[e.Path] = statOf(st)
		}
	}
	index, err := s.Index(stats)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".git/index"), index, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, sub := range s.subs {
		writeIndexes(t, sub, filepath.Join(dir, sub.plan.subPath(s)))
	}
}

func statOf(st unix.Stat_t) stat {
	return stat{CTime: uint32(st.Ctim.Sec), CTimeNs: uint32(st.Ctim.Nsec), MTime: uint32(st.Mtim.Sec), MTimeNs: uint32(st.Mtim.Nsec),
		Dev: uint32(st.Dev), Ino: uint32(st.Ino), UID: st.Uid, GID: st.Gid, Size: uint32(st.Size)}
}

func TestShip(t *testing.T) {
	dir := newRepo(t)
	writeFile(t, filepath.Join(dir, "README"), "one\n")
	writeFile(t, filepath.Join(dir, "bin/run"), "#!/bin/sh\n")
	os.Chmod(filepath.Join(dir, "bin/run"), 0o755)
	writeFile(t, filepath.Join(dir, "sub/ü \"quoted\"\nline"), "odd\n")
	writeFile(t, filepath.Join(dir, "Case"), "1\n")
	writeFile(t, filepath.Join(dir, "case"), "2\n")
	writeFile(t, filepath.Join(dir, "crlf"), "a\r\nb\r\n")
	writeFile(t, filepath.Join(dir, "gone"), "gone\n")
	writeFile(t, filepath.Join(dir, ".gitignore"), "*.o\n")
	if err := os.Symlink("../README", filepath.Join(dir, "sub/link")); err != nil {
		t.Fatal(err)
	}
	for range 12 {
		commit(t, dir, "more")
	}
	gitIn(t, dir, "remote", "add", "origin", "https://me:secret@example.com/r.git")
	head := commit(t, dir, "last")
	writeFile(t, filepath.Join(dir, "README"), "edited\n")
	writeFile(t, filepath.Join(dir, "staged"), "staged\n")
	gitIn(t, dir, "add", "staged")
	os.Remove(filepath.Join(dir, "gone"))
	writeFile(t, filepath.Join(dir, "untracked"), "u\n")
	writeFile(t, filepath.Join(dir, "x.o"), "ignored\n")

	want := gitIn(t, dir, "status", "--porcelain=v1", "-z", "--untracked-files=no")
	got := ship(t, plan(t, dir, Options{}))
	if status := gitIn(t, got, "status", "--porcelain=v1", "-z"); status != want {
		t.Errorf("git status = %q, want %q", status, want)
	}
	gitIn(t, got, "fsck", "--strict")
	if id := strings.TrimSpace(gitIn(t, got, "rev-parse", "HEAD")); id != head {
		t.Errorf("HEAD = %s, want %s", id, head)
	}
	if n := strings.Count(gitIn(t, got, "log", "--format=%H"), "\n"); n != DefaultDepth {
		t.Errorf("%d commits travelled, want %d", n, DefaultDepth)
	}
	if origin := strings.TrimSpace(gitIn(t, got, "remote", "get-url", "origin")); origin != "https://example.com/r.git" {
		t.Errorf("origin = %s", origin)
	}
	if out, err := exec.Command("grep", "-r", "secret", got).Output(); err == nil {
		t.Errorf("a secret travelled: %s", out)
	}
	if before, after := readTree(t, dir), readTree(t, got); !slices.Equal(without(before, "untracked", "x.o"), after) {
		t.Errorf("files:\n%q\nwant\n%q", after, before)
	}
	if n := strings.Count(gitIn(t, ship(t, plan(t, dir, Options{FullHistory: true})), "log", "--format=%H"), "\n"); n != 13 {
		t.Errorf("%d commits of the full history, want 13", n)
	}
}

// readTree lists a directory without .git: type, mode, path and content.
func readTree(t *testing.T, dir string) (list []string) {
	t.Helper()
	for e, err := range tree.Filter(tree.FromDir(dir), func(e *tree.Entry) bool {
		return e.Path != ".git" && !strings.HasPrefix(e.Path, ".git/") && e.Kind != tree.Dir
	}) {
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if e.Content != nil {
			b.ReadFrom(e.Content)
		}
		list = append(list, e.Path+"|"+e.Link+"|"+b.String()+"|"+string(rune('0'+e.Mode&0o100)))
	}
	slices.Sort(list)
	return list
}

func without(list []string, paths ...string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(line string) bool {
		path, _, _ := strings.Cut(line, "|")
		return slices.Contains(paths, path)
	})
}

func TestShipOptions(t *testing.T) {
	dir := newRepo(t)
	writeFile(t, filepath.Join(dir, "a"), "1\n")
	writeFile(t, filepath.Join(dir, ".gitignore"), "*.o\nbuild/\n")
	first := commit(t, dir, "first")
	writeFile(t, filepath.Join(dir, "a"), "2\n")
	commit(t, dir, "second")
	writeFile(t, filepath.Join(dir, "a"), "3\n")
	writeFile(t, filepath.Join(dir, "new"), "n\n")
	writeFile(t, filepath.Join(dir, "x.o"), "o\n")
	writeFile(t, filepath.Join(dir, "build/deep/out"), "o\n")
	for _, c := range []struct {
		name    string
		options Options
		files   string // all in the guest
		a       string
		branch  string
	}{
		{"default", Options{}, ".gitignore a", "3\n", "main"},
		{"untracked", Options{Untracked: true}, ".gitignore a new", "3\n", "main"},
		{"ignored", Options{Ignored: []string{"build"}}, ".gitignore a build/deep/out", "3\n", "main"},
		{"ignored by glob", Options{Ignored: []string{"**/*.o"}}, ".gitignore a x.o", "3\n", "main"},
		{"branch", Options{Branch: "topic"}, ".gitignore a", "3\n", "topic"},
		{"branch from", Options{Branch: "topic", From: first[:10]}, ".gitignore a", "1\n", "topic"},
	} {
		p := plan(t, dir, c.options)
		if got := strings.Join(p.Files(), " "); got != c.files {
			t.Errorf("%s: Files() = %q, want %q", c.name, got, c.files)
		}
		got := ship(t, p)
		if b, err := os.ReadFile(filepath.Join(got, "a")); err != nil || string(b) != c.a {
			t.Errorf("%s: a = %q, %v, want %q", c.name, b, err, c.a)
		}
		if branch := strings.TrimSpace(gitIn(t, got, "branch", "--show-current")); branch != c.branch {
			t.Errorf("%s: branch %q, want %q", c.name, branch, c.branch)
		}
		if c.options.From != "" {
			if status := gitIn(t, got, "status", "--porcelain"); status != "" {
				t.Errorf("%s: git status = %q", c.name, status)
			}
		}
		gitIn(t, got, "fsck", "--strict")
	}
}

func TestShipOddRepositories(t *testing.T) {
	t.Run("no commit", func(t *testing.T) {
		dir := newRepo(t)
		writeFile(t, filepath.Join(dir, "a"), "1\n")
		gitIn(t, dir, "add", "a")
		got := ship(t, plan(t, dir, Options{}))
		if status := gitIn(t, got, "status", "--porcelain"); status != "A  a\n" {
			t.Errorf("git status = %q", status)
		}
	})
	t.Run("empty", func(t *testing.T) {
		if status := gitIn(t, ship(t, plan(t, newRepo(t), Options{})), "status", "--porcelain"); status != "" {
			t.Errorf("git status = %q", status)
		}
	})
	t.Run("detached", func(t *testing.T) {
		dir := newRepo(t)
		head := commit(t, dir, "one")
		gitIn(t, dir, "checkout", "-q", "--detach")
		got := ship(t, plan(t, dir, Options{}))
		if text, _ := os.ReadFile(filepath.Join(got, ".git/HEAD")); string(text) != head+"\n" {
			t.Errorf("HEAD = %q", text)
		}
	})
	t.Run("merge with conflict", func(t *testing.T) {
		dir := newRepo(t)
		writeFile(t, filepath.Join(dir, "a"), "0\n")
		commit(t, dir, "base")
		gitIn(t, dir, "checkout", "-q", "-b", "other")
		writeFile(t, filepath.Join(dir, "a"), "other\n")
		commit(t, dir, "other")
		gitIn(t, dir, "checkout", "-q", "main")
		writeFile(t, filepath.Join(dir, "a"), "main\n")
		commit(t, dir, "main")
		exec.Command("git", "-C", dir, "merge", "other").Run() // fails: that is the case
		p := plan(t, dir, Options{})
		if len(p.Notices) != 1 || !strings.Contains(p.Notices[0], "merge") {
			t.Errorf("notices %q", p.Notices)
		}
		if status := gitIn(t, ship(t, p), "status", "--porcelain"); status != "UU a\n" {
			t.Errorf("git status = %q", status)
		}
	})
	t.Run("linked work tree, shallow", func(t *testing.T) {
		dir := newRepo(t)
		for range 5 {
			commit(t, dir, "c")
		}
		shallow := filepath.Join(t.TempDir(), "shallow")
		gitIn(t, "/", "clone", "-q", "--depth", "3", "file://"+dir, shallow)
		linked := filepath.Join(t.TempDir(), "linked")
		gitIn(t, shallow, "worktree", "add", "-q", linked, "-b", "linked")
		for _, options := range []Options{{}, {FullHistory: true}} {
			got := ship(t, plan(t, linked, options))
			gitIn(t, got, "fsck", "--strict")
			if n := strings.Count(gitIn(t, got, "log", "--format=%H"), "\n"); n != 3 {
				t.Errorf("%+v: %d commits, want 3", options, n)
			}
		}
	})
	t.Run("submodule", func(t *testing.T) {
		inner, dir := newRepo(t), newRepo(t)
		writeFile(t, filepath.Join(inner, "in"), "in\n")
		commit(t, inner, "inner")
		gitIn(t, dir, "-c", "protocol.file.allow=always", "submodule", "add", "-q", inner, "mod")
		commit(t, dir, "outer")
		writeFile(t, filepath.Join(dir, "mod/in"), "edited\n")
		p := plan(t, dir, Options{})
		if got := strings.Join(p.Files(), " "); got != ".gitmodules mod/in" {
			t.Errorf("Files() = %q", got)
		}
		got := ship(t, p)
		if status := gitIn(t, got, "status", "--porcelain"); status != " M mod\n" {
			t.Errorf("git status = %q", status)
		}
		if status := gitIn(t, filepath.Join(got, "mod"), "status", "--porcelain"); status != " M in\n" {
			t.Errorf("git status in the submodule = %q", status)
		}
	})
	t.Run("sparse", func(t *testing.T) {
		dir := newRepo(t)
		writeFile(t, filepath.Join(dir, "in/a"), "a\n")
		writeFile(t, filepath.Join(dir, "out/b"), "b\n")
		commit(t, dir, "c")
		gitIn(t, dir, "sparse-checkout", "set", "in")
		got := ship(t, plan(t, dir, Options{}))
		if status := gitIn(t, got, "status", "--porcelain"); status != "" {
			t.Errorf("git status = %q", status)
		}
		gitIn(t, got, "checkout", "-q", "HEAD", "--", ".") // all content is there
	})
}

func TestHostileRepositoryRunsNothing(t *testing.T) {
	dir := newRepo(t)
	writeFile(t, filepath.Join(dir, ".gitattributes"), "* filter=evil diff=evil\n")
	writeFile(t, filepath.Join(dir, "a"), "1\n")
	commit(t, dir, "c")
	canary := testenv.HostileGit(t, dir)
	writeFile(t, filepath.Join(dir, "a"), "2\n")
	writeFile(t, filepath.Join(dir, "new"), "2\n")
	for _, options := range []Options{{Untracked: true}, {Branch: "b", From: "HEAD"}, {FullHistory: true}} {
		s, err := plan(t, dir, options).Prepare(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range s.Entries(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
	}
	if _, err := os.Lstat(canary); err == nil {
		t.Error("a program of the repository ran")
	}
	gitIn(t, dir, "status")
	if _, err := os.Lstat(canary); err != nil {
		t.Error("the canary is dead: git itself does not run it")
	}
}
