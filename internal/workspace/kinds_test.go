package workspace

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/testenv"
	"banger/internal/transfer"
)

// treeOf is the tree of all that git would keep of a work tree.
func treeOf(t *testing.T, dir string) string {
	t.Helper()
	index := filepath.Join(t.TempDir(), "index")
	if info, err := os.Stat(filepath.Join(dir, ".git/index")); err == nil {
		b, readErr := os.ReadFile(filepath.Join(dir, ".git/index"))
		writeFile(t, index, string(b))
		// Its time tells git which files may have changed since in the same second.
		if err := errors.Join(readErr, os.Chtimes(index, info.ModTime(), info.ModTime())); err != nil {
			t.Fatal(err)
		}
	}
	var id string
	for _, args := range [][]string{{"add", "-A"}, {"write-tree"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GIT_INDEX_FILE="+index)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
		id = strings.TrimSpace(string(out))
	}
	return id
}

// sameBack brings a guest's work into the host's repository, as a pull and by a bundle, and compares all of it.
func sameBack(t *testing.T, host string, record Record) *Copy {
	t.Helper()
	guest := record.GuestPath
	c := fetch(t, guest, record.Origin())
	namespace := Namespace(banger.VM{ID: "0123456789ab", Spec: banger.VMSpec{Name: "devbox"}}, time.Unix(0, 0))
	if has, err := c.Work(t.Context(), nil); err != nil {
		t.Fatal(err)
	} else if has {
		path := filepath.Join(t.TempDir(), "save.bundle")
		refs, err := c.Bundle(t.Context(), path, namespace)
		if err != nil {
			t.Fatal(err)
		}
		if err := Restore(t.Context(), banger.Autosave{Bundle: path, Refs: refs}, host); err != nil {
			t.Error(err)
		}
		for ref, id := range refs {
			if got := strings.TrimSpace(gitIn(t, host, "rev-parse", ref)); got != id {
				t.Errorf("%s is %s in the repository, %s in the bundle", ref, got, id)
			}
			gitIn(t, host, "update-ref", "-d", ref)
		}
	}
	if _, err := c.Save(t.Context(), host, namespace); err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer("refs/heads/", namespace+"/branches/", "refs/tags/", namespace+"/tags/").Replace(gitIn(t, guest, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads/", "refs/tags/"))
	if got := gitIn(t, host, "for-each-ref", "--format=%(refname) %(objectname)", namespace+"/branches/", namespace+"/tags/"); got != want {
		t.Errorf("refs:\n%swant\n%s", got, want)
	}
	kept := namespace + "/all"
	if exec.Command("git", "-C", host, "rev-parse", "-q", "--verify", kept).Run() != nil {
		kept = namespace + "/head"
	}
	if got, want := strings.TrimSpace(gitIn(t, host, "rev-parse", kept+"^{tree}")), treeOf(t, guest); got != want {
		t.Errorf("%s: tree %s, want %s:\n%s", kept, got, want, differ(host, guest, got, want))
	}
	gitIn(t, host, "fsck", "--strict", "--connectivity-only")
	for ref := range strings.FieldsSeq(gitIn(t, host, "for-each-ref", "--format=%(refname)", namespace)) {
		gitIn(t, host, "update-ref", "-d", ref)
	}
	return c
}

// differ tells how two trees differ, of which the host has the first and the guest the second.
func differ(host, guest, a, b string) string {
	list := func(dir, id string) string {
		out, _ := exec.Command("git", "-C", dir, "ls-tree", "-r", id).CombinedOutput()
		return string(out)
	}
	return list(host, a) + "want\n" + list(guest, b)
}

// sent makes a guest of a host's repository.
func sent(t *testing.T, host string, options Options) (guest string, record Record) {
	t.Helper()
	p := plan(t, host, options)
	s, err := p.Prepare(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	guest = shipped(t, s)
	return guest, s.record(guest)
}

// TestRoundTrips takes repositories of many kinds into a guest, lets git work there, and compares what comes back with what git says.
func TestRoundTrips(t *testing.T) {
	git := func(t *testing.T, dir string, commands ...string) {
		t.Helper()
		for _, command := range commands {
			gitIn(t, dir, strings.Fields(command)...)
		}
	}
	write := func(t *testing.T, dir string, files ...string) {
		t.Helper()
		for i := 0; i < len(files); i += 2 {
			writeFile(t, filepath.Join(dir, files[i]), files[i+1])
		}
	}
	for _, test := range []struct {
		name string
		host func(t *testing.T, dir string) // beside a first commit with the file "a"
		work func(t *testing.T, guest string)
	}{
		{"nothing done", nil, func(*testing.T, string) {}},
		{"merges and an octopus", nil, func(t *testing.T, guest string) {
			for _, branch := range []string{"x", "y", "z"} {
				git(t, guest, "checkout -q -b "+branch+" main")
				write(t, guest, branch, branch)
				commit(t, guest, branch)
			}
			git(t, guest, "checkout -q main", "merge -q --no-ff x -m merge", "merge -q y z -m octopus")
		}},
		{"tags", nil, func(t *testing.T, guest string) {
			git(t, guest, "tag light", "tag -a heavy -m heavy", "tag -a deep heavy -m deep")
			gitIn(t, guest, "tag", "-a", "blob", "-m", "of a file", "HEAD:a")
		}},
		{"detached, with branches that changed", nil, func(t *testing.T, guest string) {
			git(t, guest, "checkout -q -b one")
			commit(t, guest, "one")
			git(t, guest, "checkout -q -b two/deep main")
			commit(t, guest, "two")
			git(t, guest, "checkout -q --detach one")
			write(t, guest, "a", "detached")
			commit(t, guest, "on no branch")
		}},
		{"packed refs, repacked", nil, func(t *testing.T, guest string) {
			write(t, guest, "a", "2")
			commit(t, guest, "w")
			git(t, guest, "tag -a v1 -m v1", "branch b", "pack-refs --all", "gc -q --prune=now")
			write(t, guest, "a", "3")
			commit(t, guest, "w")
		}},
		{"another repack, alternates empty, multi-pack-index", nil, func(t *testing.T, guest string) {
			for range 3 {
				write(t, guest, "a", t.Name()+time.Now().String())
				commit(t, guest, "w")
				git(t, guest, "repack -q -d")
			}
			git(t, guest, "multi-pack-index write", "commit-graph write --reachable")
		}},
		{"stashes", nil, func(t *testing.T, guest string) {
			for _, text := range []string{"1", "2"} {
				write(t, guest, "a", text, "new"+text, text)
				git(t, guest, "stash -q -u")
			}
		}},
		{"odd names", func(t *testing.T, dir string) {
			write(t, dir, "-rf", "1", "tab\tname", "1", " lead", "1", "trail ", "1", `back\slash`, "1", `"quotes"`, "1", "\xff\xfe", "not UTF-8", "ü/日本/\u202e", "1", strings.Repeat("n", 255), "1", "new\nline", "1")
			commit(t, dir, "odd")
		}, func(t *testing.T, guest string) {
			write(t, guest, "-rf", "2", "tab\tname", "2", `back\slash`, "2", "\xff\xfe", "2", "more\nlines", "2", "\x01\x1b[31m", "2", "trail ", "2", `"q"`, "2")
			os.Remove(filepath.Join(guest, "new\nline"))
		}},
		{"kinds that change", func(t *testing.T, dir string) {
			write(t, dir, "file", "1", "dir/x", "1", "dir/y", "1", "program", "1", "empty", "")
			os.Symlink("a", filepath.Join(dir, "link"))
			os.Chmod(filepath.Join(dir, "program"), 0o755)
			commit(t, dir, "kinds")
		}, func(t *testing.T, guest string) {
			for _, name := range []string{"file", "dir", "link"} {
				os.RemoveAll(filepath.Join(guest, name))
			}
			write(t, guest, "file/now/a/dir", "2", "link", "now a file", "dir", "now a file")
			os.Remove(filepath.Join(guest, "empty"))
			os.Symlink("/etc/passwd", filepath.Join(guest, "empty"))
			os.Chmod(filepath.Join(guest, "program"), 0o600)
			os.Chmod(filepath.Join(guest, "a"), 0o777)
		}},
		{"ignored", func(t *testing.T, dir string) {
			write(t, dir, ".gitignore", "*.o\n/out/\n!keep.o\n", "sub/.gitignore", "*\n!.gitignore\n!yes\n", "forced.o", "1")
			git(t, dir, "add -f .")
			commit(t, dir, "ignore")
		}, func(t *testing.T, guest string) {
			write(t, guest, "x.o", "no", "keep.o", "yes", "out/x", "no", "sub/no", "no", "sub/yes", "yes", "forced.o", "2", ".git/info/exclude", "excluded\n", "excluded", "no")
		}},
		{"added but not committed, in three ways", nil, func(t *testing.T, guest string) {
			write(t, guest, "staged", "1", "intent", "1", "both", "1")
			git(t, guest, "add staged both", "add -N intent")
			write(t, guest, "both", "2")
			git(t, guest, "rm -q --cached a")
		}},
		{"a conflict", nil, func(t *testing.T, guest string) {
			git(t, guest, "checkout -q -b other")
			write(t, guest, "a", "other")
			commit(t, guest, "other")
			git(t, guest, "checkout -q main")
			write(t, guest, "a", "main")
			commit(t, guest, "main")
			exec.Command("git", "-C", guest, "merge", "other").Run() // fails: that is the case
		}},
		{"another index", nil, func(t *testing.T, guest string) {
			git(t, guest, "update-index --index-version 4", "update-index --untracked-cache", "update-index --assume-unchanged a")
			write(t, guest, "a", "2")
			git(t, guest, "update-index --no-assume-unchanged a")
		}},
		{"sparse on the host", func(t *testing.T, dir string) {
			write(t, dir, "in/a", "1", "out/b", "1")
			commit(t, dir, "c")
			git(t, dir, "sparse-checkout set in")
		}, func(t *testing.T, guest string) { write(t, guest, "in/a", "2", "in/new", "2") }},
		{"pointers of Git LFS", func(t *testing.T, dir string) {
			write(t, dir, ".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n", "x.bin", pointerStart+"v1\noid sha256:"+strings.Repeat("0", 64)+"\nsize 12\n")
			commit(t, dir, "lfs")
		}, func(t *testing.T, guest string) { write(t, guest, "y.bin", "raw") }},
		{"ends of lines", func(t *testing.T, dir string) {
			write(t, dir, ".gitattributes", "*.bat text eol=crlf\n*.txt text\n*.auto text=auto\n", "x.bat", "1\r\n2\r\n", "edited.bat", "1\r\n", "x.txt", "1\n", "n.auto", "1\n", "other", "1\r\n")
			commit(t, dir, "eol")
		}, func(t *testing.T, guest string) {
			write(t, guest, "edited.bat", "1\r\n2\r\n", "new.bat", "n\r\n", "x.txt", "1\r\n2\r\n", "n.auto", "1\r\n\x00", "m.auto", "1\r\n", "other", "2\r\n")
		}},
		{"an end of lines that the user has set", func(t *testing.T, dir string) {
			git(t, dir, "config core.autocrlf true")
			write(t, dir, "x", "1\r\n2\r\n", "edited", "1\r\n", "binary", "\x00\r\n")
			commit(t, dir, "eol")
		}, func(t *testing.T, guest string) {
			git(t, guest, "config core.autocrlf true")
			write(t, guest, "edited", "1\r\n2\r\n", "new", "n\r\n", "binary", "\x00\r\n\r\n")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			host := newRepo(t)
			writeFile(t, filepath.Join(host, "a"), "1\n")
			commit(t, host, "first")
			if test.host != nil {
				test.host(t, host)
			}
			guest, record := sent(t, host, Options{})
			test.work(t, guest)
			sameBack(t, host, record)
		})
	}
}

// TestRoundTripOfALargeRepository is the one of bench/workspace, smaller.
func TestRoundTripOfALargeRepository(t *testing.T) {
	host := newRepo(t)
	var stream bytes.Buffer
	if err := (testenv.Repo{Files: 2000, Commits: 200}).Stream(&stream); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("git", "-C", host, "fast-import", "--quiet", "--done")
	cmd.Stdin = &stream
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git fast-import: %v\n%s", err, out)
	}
	gitIn(t, host, "reset", "-q", "--hard", "main")
	guest, record := sent(t, host, Options{})
	if status := gitIn(t, guest, "status", "--porcelain"); status != "" {
		t.Errorf("git status = %q", status)
	}
	for n := 0; n < 2000; n += 40 {
		writeFile(t, filepath.Join(guest, testenv.Repo{}.Path(n)), "edited\n")
	}
	commit(t, guest, "work")
	writeFile(t, filepath.Join(guest, testenv.Repo{}.Path(7)), "edited\n")
	sameBack(t, host, record)
}

func TestRoundTripOfAShallowHost(t *testing.T) {
	deep := newRepo(t)
	for range 5 {
		commit(t, deep, "c")
	}
	for _, options := range []Options{{}, {FullHistory: true}} {
		host := filepath.Join(t.TempDir(), "shallow")
		gitIn(t, "/", "clone", "-q", "--depth", "3", "file://"+deep, host)
		guest, record := sent(t, host, options)
		writeFile(t, filepath.Join(guest, "a"), "2")
		commit(t, guest, "work")
		writeFile(t, filepath.Join(guest, "b"), "3")
		c := sameBack(t, host, record)
		if s, err := c.Status(t.Context()); err != nil || s.Ahead != 1 || s.Behind != 0 {
			t.Errorf("Status() = %+v, %v", s, err)
		}
		linked := filepath.Join(t.TempDir(), "linked")
		gitIn(t, host, "worktree", "add", "-q", linked, "-b", "linked")
		guest, record = sent(t, linked, options)
		writeFile(t, filepath.Join(guest, "a"), "4")
		commit(t, guest, "work")
		sameBack(t, linked, record)
	}
}

// keepAll saves a guest as its deletion does, puts the saves into the host's repository, and gives each by its place below the guest.
func keepAll(t *testing.T, host string, record Record) map[string]banger.Autosave {
	t.Helper()
	saves := Saves{Dir: t.TempDir()}
	kept, err := saves.Keep(t.Context(), local(nil), banger.VM{ID: "0123456789ab", Spec: banger.VMSpec{Name: "devbox"}}, record, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]banger.Autosave{}
	for _, save := range kept {
		if _, err := os.Stat(save.HostPath); err != nil { // a clone that was made in the guest
			save.HostPath = host
		}
		if err := Restore(t.Context(), save, save.HostPath); err != nil {
			t.Error(err)
		}
		name, err := filepath.Rel(record.GuestPath, save.GuestPath)
		if err != nil {
			t.Fatal(err)
		}
		list[name] = save
	}
	return list
}

// at gives a file of what was saved, by the ends of ref and path.
func at(t *testing.T, save banger.Autosave, ref, path string) string {
	t.Helper()
	for name := range save.Refs {
		if strings.HasSuffix(name, "/"+ref) {
			return gitIn(t, save.HostPath, "show", name+":"+path)
		}
	}
	t.Errorf("%s: no ref %s in %v", save.GuestPath, ref, save.Refs)
	return ""
}

// Work trees that a guest adds lie in the workspace or beside it, with work that no branch has.
func TestKeepLinkedWorkTrees(t *testing.T) {
	host := newRepo(t)
	writeFile(t, filepath.Join(host, "a"), "1")
	commit(t, host, "c")
	guest, record := sent(t, host, Options{})
	beside := filepath.Join(t.TempDir(), "beside")
	gitIn(t, guest, "worktree", "add", "-q", ".trees/topic", "-b", "topic")
	gitIn(t, guest, "worktree", "add", "-q", "--detach", beside)
	if got := keepAll(t, host, record); len(got) > 0 {
		t.Errorf("saved without work: %v", got)
	}
	writeFile(t, filepath.Join(guest, ".trees/topic/new"), "new")
	writeFile(t, filepath.Join(beside, "a"), "detached")
	head := commit(t, beside, "on no branch")
	got := keepAll(t, host, record)
	side, _ := filepath.Rel(guest, beside)
	if len(got) != 2 || at(t, got[".trees/topic"], "untracked", "new") != "new" || at(t, got[side], "head", "a") != "detached" {
		t.Errorf("saved %v, want both work trees", got)
	}
	gitIn(t, host, "cat-file", "-e", head)
	os.RemoveAll(beside)
	if got := keepAll(t, host, record); len(got) != 1 {
		t.Errorf("saved %v, want the work tree that is left", got)
	}
}

func TestKeepSubmodulesAndClones(t *testing.T) {
	inner, host := newRepo(t), newRepo(t)
	writeFile(t, filepath.Join(inner, "in"), "in\n")
	for range 3 {
		commit(t, inner, "inner")
	}
	gitIn(t, host, "-c", "protocol.file.allow=always", "submodule", "add", "-q", inner, "mod")
	commit(t, host, "outer")
	guest, record := sent(t, host, Options{})
	for name, depth := range map[string]string{"whole": "100", "shallow": "1"} {
		gitIn(t, guest, "clone", "-q", "--depth", depth, "file://"+inner, name)
	}
	writeFile(t, filepath.Join(guest, "stray/.git"), "gitdir: ../nowhere\n")
	if got := keepAll(t, host, record); len(got) > 0 {
		t.Errorf("saved without work: %v", got)
	}
	for _, name := range []string{"mod", "whole", "shallow"} {
		writeFile(t, filepath.Join(guest, name, "in"), name)
		commit(t, filepath.Join(guest, name), "work")
	}
	writeFile(t, filepath.Join(guest, "stray/file"), "stray")
	gitIn(t, guest, "submodule", "absorbgitdirs") // .git is a file now
	got := keepAll(t, host, record)
	for _, name := range []string{"mod", "whole", "shallow"} {
		if text := at(t, got[name], "head", "in"); text != name {
			t.Errorf("%s: in = %q", name, text)
		}
	}
	if text := at(t, got["stray"], "untracked", "file"); text != "stray" {
		t.Errorf("stray/file = %q", text)
	}
	if len(got) != 4 {
		t.Errorf("saved %d, want 4", len(got))
	}
}

// What can't be saved is told, and keeps the VM from being deleted.
func TestKeepRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		change func(t *testing.T, guest string)
		want   string
	}{
		"SHA-256": {func(t *testing.T, guest string) {
			os.RemoveAll(filepath.Join(guest, ".git"))
			gitIn(t, guest, "init", "-q", "--object-format=sha256")
			commit(t, guest, "c")
		}, "SHA-256"},
		"reftable": {func(t *testing.T, guest string) {
			writeFile(t, filepath.Join(guest, ".git/reftable/tables.list"), "x.ref\n")
			writeFile(t, filepath.Join(guest, ".git/HEAD"), "ref: refs/heads/.invalid\n")
		}, "reftable"},
		"objects elsewhere": {func(t *testing.T, guest string) {
			other := newRepo(t)
			id := commit(t, other, "elsewhere")
			writeFile(t, filepath.Join(guest, ".git/objects/info/alternates"), filepath.Join(other, ".git/objects")+"\n")
			gitIn(t, guest, "branch", "lent", id)
		}, "alternates"},
		"damaged history": {func(t *testing.T, guest string) {
			first := commit(t, guest, "1")
			commit(t, guest, "2")
			os.Remove(filepath.Join(guest, ".git/objects", first[:2], first[2:]))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			host := newRepo(t)
			writeFile(t, filepath.Join(host, "a"), "1")
			commit(t, host, "c")
			guest, record := sent(t, host, Options{})
			test.change(t, guest)
			kept, err := Saves{Dir: t.TempDir()}.Keep(t.Context(), local(nil), banger.VM{ID: "0123456789ab", Spec: banger.VMSpec{Name: "devbox"}}, record, time.Now())
			if err == nil || !strings.Contains(err.Error()+banger.HintOf(err), test.want) {
				t.Errorf("Keep() = %v, %v, want an error with %q", kept, err, test.want)
			}
		})
	}
}

// TestFetchWhileGitRepacks moves objects between the list of them and the reading.
func TestFetchWhileGitRepacks(t *testing.T) {
	host := newRepo(t)
	writeFile(t, filepath.Join(host, "a"), "1")
	commit(t, host, "c")
	guest, record := sent(t, host, Options{})
	writeFile(t, filepath.Join(guest, "a"), "2")
	commit(t, guest, "w")
	asked, moved := local(nil), 0
	busy := Guest{Ask: func(ctx context.Context, req transfer.Request, names []string) (io.ReadCloser, error) {
		if req.Read != nil && strings.HasSuffix(req.Dir(), "/objects") && moved < 2 {
			moved++
			writeFile(t, filepath.Join(guest, "b"), strings.Repeat("b", moved))
			commit(t, guest, "meanwhile")
			gitIn(t, guest, "gc", "-q", "--prune=now")
		}
		return asked.Ask(ctx, req, names)
	}}
	c, err := Fetch(t.Context(), busy, guest, t.TempDir(), record.Origin())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if moved != 2 || len(c.lacking) > 0 || len(c.Notices) > 0 {
		t.Errorf("moved %d times, lacking %v, notices %q", moved, c.lacking, c.Notices)
	}
	if got, want := c.refs.head, strings.TrimSpace(gitIn(t, guest, "rev-parse", "HEAD")); got != want {
		t.Errorf("HEAD = %s, want %s", got, want)
	}
}

// An old git repeats the options that it does not know.
func TestOldGit(t *testing.T) {
	host := newRepo(t)
	commit(t, host, "c")
	guest, record := sent(t, host, Options{})
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	writeFile(t, filepath.Join(bin, "git"), "#!/bin/sh\nfor arg; do [ \"$arg\" != --path-format=absolute ] || { echo $arg; echo .git; exit 0; }; done\nexec "+git+" \"$@\"\n")
	if err := os.Chmod(filepath.Join(bin, "git"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if _, err := Inspect(t.Context(), host); !errors.Is(err, banger.ErrUnsupported) || !strings.Contains(err.Error(), "2.31") {
		t.Errorf("Inspect() = %v", err)
	}
	if _, err := Fetch(t.Context(), local(nil), guest, t.TempDir(), record.Origin()); !errors.Is(err, banger.ErrUnsupported) {
		t.Errorf("Fetch() = %v", err)
	}
}
