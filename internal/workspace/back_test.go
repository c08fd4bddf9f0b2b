package workspace

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger"
)

// workedOn makes a host repository and a guest that has every kind of work.
func workedOn(t *testing.T) (host, guest string, origin Origin) {
	t.Helper()
	host = newRepo(t)
	writeFile(t, filepath.Join(host, "a"), "1\n")
	writeFile(t, filepath.Join(host, "bin"), "\x00\x01")
	for range 12 {
		commit(t, host, "c")
	}
	writeFile(t, filepath.Join(host, "a"), "edited on the host\n")
	base := strings.TrimSpace(gitIn(t, host, "rev-parse", "HEAD"))
	s, err := plan(t, host, Options{}).Prepare(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	guest = shipped(t, s)
	return host, guest, Origin{Repo: host, Base: base, Sent: s.sent, Packs: []string{s.pack.name() + ".pack"}}
}

func work(t *testing.T, guest string) {
	t.Helper()
	writeFile(t, filepath.Join(guest, "stashed"), "s\n")
	gitIn(t, guest, "stash", "-q", "-u")
	gitIn(t, guest, "stash", "apply", "-q")
	writeFile(t, filepath.Join(guest, "a"), "2\n")
	commit(t, guest, "work")
	gitIn(t, guest, "branch", "side")
	writeFile(t, filepath.Join(guest, "bin"), "\x00\x02")
	writeFile(t, filepath.Join(guest, "new"), "new\n")
}

func TestWorkIsTold(t *testing.T) {
	host, guest, origin := workedOn(t)
	c := fetch(t, guest, origin)
	if got := c.Changes.Tracked; !slices.Equal(got, []Change{{"a", "modified", true}}) {
		t.Errorf("changes %v, want the host's own edit", got)
	}
	if has, err := c.Work(t.Context(), nil); err != nil || has {
		t.Errorf("Work() of an untouched guest = %v, %v", has, err)
	}
	for name, change := range map[string]func(){
		"file":   func() { writeFile(t, filepath.Join(guest, "a"), "x\n") },
		"new":    func() { writeFile(t, filepath.Join(guest, "n"), "x\n") },
		"delete": func() { os.Remove(filepath.Join(guest, "bin")) },
		"commit": func() { commit(t, guest, "w") },
		"branch": func() {
			commit(t, guest, "w")
			gitIn(t, guest, "branch", "b")
			gitIn(t, guest, "reset", "-q", "--hard", "HEAD~1")
		},
		"stash": func() { writeFile(t, filepath.Join(guest, "bin"), "x"); gitIn(t, guest, "stash", "-q") },
	} {
		t.Run(name, func(t *testing.T) {
			host, guest, origin = workedOn(t)
			change()
			c := fetch(t, guest, origin)
			if has, err := c.Work(t.Context(), nil); err != nil || !has {
				t.Errorf("Work() = %v, %v", has, err)
			}
			exported, err := c.Contents(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if has, err := fetch(t, guest, origin).Work(t.Context(), &exported); err != nil || has {
				t.Errorf("Work() of what was exported = %v, %v", has, err)
			}
			writeFile(t, filepath.Join(guest, "later"), "x\n")
			if has, err := fetch(t, guest, origin).Work(t.Context(), &exported); err != nil || !has {
				t.Errorf("Work() after the export = %v, %v", has, err)
			}
		})
	}
	_ = host
}

func TestSaveAndBundle(t *testing.T) {
	host, guest, origin := workedOn(t)
	work(t, guest)
	c := fetch(t, guest, origin)
	before := gitIn(t, host, "for-each-ref") + gitIn(t, host, "status", "--porcelain") + gitIn(t, host, "rev-parse", "HEAD")
	vm := banger.VM{ID: "0123456789ab", Spec: banger.VMSpec{Name: "devbox"}}
	namespace := Namespace(vm, time.Date(2026, 11, 28, 1, 2, 3, 4e6, time.UTC))
	if want := "refs/banger/devbox/0123456789ab/20261128T010203.004Z"; namespace != want {
		t.Errorf("Namespace = %s, want %s", namespace, want)
	}
	saved, err := c.Save(t.Context(), host, namespace)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(saved)) {
		names = append(names, strings.TrimPrefix(name, namespace+"/"))
	}
	if got, want := strings.Join(names, " "), "all branches/main branches/side head stash/0 untracked worktree"; got != want {
		t.Errorf("saved %s, want %s", got, want)
	}
	checkSaved(t, host, namespace, guest)
	gitIn(t, host, "fsck", "--strict")
	if _, err := c.Save(t.Context(), host, namespace); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("saved twice: %v", err)
	}
	for name := range saved {
		gitIn(t, host, "update-ref", "-d", name)
	}
	if after := gitIn(t, host, "for-each-ref") + gitIn(t, host, "status", "--porcelain") + gitIn(t, host, "rev-parse", "HEAD"); after != before {
		t.Errorf("the repository changed:\n%s\nwas\n%s", after, before)
	}
	if text, _ := os.ReadFile(filepath.Join(host, ".git/shallow")); len(text) > 0 {
		t.Error("the host's repository became shallow")
	}

	for name, o := range map[string]Origin{"beside the repository": origin, "without it": {Base: origin.Base}} {
		t.Run("bundle "+name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "save.bundle")
			refs, err := fetch(t, guest, o).Bundle(t.Context(), path, namespace)
			if err != nil {
				t.Fatal(err)
			}
			if refs[namespace+"/worktree"] == "" || refs[namespace+"/stash/0"] == "" {
				t.Errorf("in the bundle: %v", refs)
			}
			back := filepath.Join(t.TempDir(), "back")
			gitIn(t, "/", "clone", "-q", host, back)
			gitIn(t, back, "fetch", "-q", path, "refs/banger/*:refs/banger/*")
			checkSaved(t, back, namespace, guest)
		})
	}
}

// checkSaved compares what was saved with what the guest has.
func checkSaved(t *testing.T, repo, namespace, guest string) {
	t.Helper()
	if got, want := gitIn(t, repo, "rev-parse", namespace+"/head"), gitIn(t, guest, "rev-parse", "HEAD"); got != want {
		t.Errorf("head = %s, want %s", got, want)
	}
	if got, want := gitIn(t, repo, "rev-parse", namespace+"/stash/0"), gitIn(t, guest, "rev-parse", "stash@{0}"); got != want {
		t.Errorf("stash = %s, want %s", got, want)
	}
	if got := gitIn(t, repo, "show", namespace+"/worktree:bin"); got != "\x00\x02" {
		t.Errorf("bin = %q", got)
	}
	if got := gitIn(t, repo, "show", namespace+"/untracked:new"); got != "new\n" {
		t.Errorf("new = %q", got)
	}
}

func TestPatch(t *testing.T) {
	host, guest, origin := workedOn(t)
	work(t, guest)
	os.Symlink("a", filepath.Join(guest, "link"))
	c := fetch(t, guest, origin)
	var patch bytes.Buffer
	if err := c.Patch(t.Context(), "", &patch, false); err != nil {
		t.Fatal(err)
	}
	back := filepath.Join(t.TempDir(), "back")
	gitIn(t, "/", "clone", "-q", host, back)
	cmd := exec.Command("git", "-C", back, "apply", "--index")
	cmd.Stdin = &patch
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git apply: %v\n%s", err, out)
	}
	if got, want := readTree(t, back), readTree(t, guest); !slices.Equal(got, want) {
		t.Errorf("files:\n%q\nwant\n%q", got, want)
	}
	if err := c.Patch(t.Context(), "nothing", &patch, false); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("Patch of an unknown base = %v", err)
	}
}

func TestSetBranch(t *testing.T) {
	dir := newRepo(t)
	one := commit(t, dir, "1")
	gitIn(t, dir, "branch", "old")
	two := commit(t, dir, "2")
	gitIn(t, dir, "checkout", "-q", "-b", "aside", one)
	three := commit(t, dir, "3")
	for _, c := range []struct {
		branch, id string
		want       error
	}{
		{"new", two, nil}, {"new", two, nil}, {"old", two, nil}, {"old", one, banger.ErrConflict}, {"main", three, banger.ErrConflict},
		{"aside", two, banger.ErrConflict}, {"-d", two, banger.ErrInvalid}, {"a..b", two, banger.ErrInvalid},
	} {
		if err := SetBranch(t.Context(), dir, c.branch, c.id); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("SetBranch(%s, %s) = %v, want %v", c.branch, c.id[:7], err, c.want)
		}
	}
}

func TestApply(t *testing.T) {
	host, guest, origin := workedOn(t)
	writeFile(t, filepath.Join(guest, "a"), "2\n")
	commit(t, guest, "work")
	writeFile(t, filepath.Join(guest, "deep/dir/new"), "new\n")
	os.Remove(filepath.Join(guest, "bin"))
	writeFile(t, filepath.Join(guest, "bin/now/a/directory"), "x")
	os.Symlink("/etc", filepath.Join(guest, "link"))
	c := fetch(t, guest, origin)
	head := gitIn(t, host, "rev-parse", "HEAD")

	writeFile(t, filepath.Join(host, "deep/dir/new"), "the host's\n")
	done, err := c.Apply(t.Context(), false)
	if !errors.Is(err, banger.ErrConflict) || !slices.Equal(done.Conflicts, []string{"deep/dir/new"}) {
		t.Fatalf("Apply() = %+v, %v, want the conflict", done, err)
	}
	if b, _ := os.ReadFile(filepath.Join(host, "a")); string(b) != "edited on the host\n" {
		t.Errorf("a = %q: something was written", b)
	}
	os.RemoveAll(filepath.Join(host, "deep"))
	if done, err = c.Apply(t.Context(), true); err != nil || len(done.Written) != 4 || len(done.Removed) != 1 {
		t.Fatalf("dry run: %+v, %v", done, err)
	}
	if _, err = c.Apply(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if got, want := readTree(t, host), readTree(t, guest); !slices.Equal(got, want) {
		t.Errorf("files:\n%q\nwant\n%q", got, want)
	}
	if gitIn(t, host, "rev-parse", "HEAD") != head {
		t.Error("HEAD moved")
	}
	if done, err = c.Apply(t.Context(), false); err != nil || len(done.Written)+len(done.Removed) > 0 {
		t.Errorf("applied twice: %+v, %v", done, err)
	}
	if text, err := json.Marshal(done); err != nil || string(text) != `{"written":[],"removed":[],"conflicts":[]}` {
		t.Errorf("for programs: %s, %v", text, err)
	}
}

// Programs get a list also where there is nothing in it.
func TestStatusOfNothing(t *testing.T) {
	host := newRepo(t)
	writeFile(t, filepath.Join(host, "a"), "1\n")
	commit(t, host, "c")
	guest, record := sent(t, host, Options{})
	status, err := fetch(t, guest, record.Origin()).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if text, err := json.Marshal(status); err != nil || strings.Contains(string(text), "null") || !strings.Contains(string(text), `"tracked":[],"untracked":[]`) {
		t.Errorf("for programs: %s, %v", text, err)
	}
}

// TestApplyStaysInside has symbolic links of the host's work tree lead out of it.
func TestApplyStaysInside(t *testing.T) {
	host, guest, origin := workedOn(t)
	writeFile(t, filepath.Join(guest, "out/x"), "x")
	c := fetch(t, guest, origin)
	outside := t.TempDir()
	os.Symlink(outside, filepath.Join(host, "out"))
	if done, err := c.Apply(t.Context(), false); err == nil {
		t.Errorf("Apply() = %+v", done)
	}
	if list, _ := os.ReadDir(outside); len(list) > 0 {
		t.Errorf("written outside: %v", list)
	}
}
