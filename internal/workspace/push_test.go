package workspace

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
)

// push brings the host's commits into a guest.
func push(t *testing.T, host string, record Record) (Pushed, Record) {
	t.Helper()
	repo, err := Inspect(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Look(t.Context(), running(t, nil), record, false)
	if err != nil {
		t.Fatal(err)
	}
	u, done, err := repo.Push(t.Context(), running(t, nil), c, record)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if record, err = u.Send(t.Context(), running(t, nil), nil); err != nil {
		t.Fatal(err)
	}
	return done, record
}

func TestPush(t *testing.T) {
	for _, c := range []struct {
		name   string
		do     func(t *testing.T, guest string)
		moved  bool
		reason string
		files  string
		status string // of the guest afterwards, when it is not as before
	}{
		{name: "clean", do: func(*testing.T, string) {}, moved: true},
		{name: "changes elsewhere", do: func(t *testing.T, g string) {
			writeFile(t, filepath.Join(g, "dir/f4"), "guest\n")
			writeFile(t, filepath.Join(g, "added"), "guest\n")
			gitIn(t, g, "add", "added")
			writeFile(t, filepath.Join(g, "untracked"), "guest\n")
		}, moved: true, status: "A  added\n M dir/f4\n?? untracked\n"},
		{name: "the same change", do: func(t *testing.T, g string) { writeFile(t, filepath.Join(g, "dir/f1"), "committed\n") }, moved: true},
		{name: "changed", do: func(t *testing.T, g string) { writeFile(t, filepath.Join(g, "dir/f1"), "guest\n") }, reason: "changed in the VM", files: "dir/f1"},
		{name: "in the way", do: func(t *testing.T, g string) { writeFile(t, filepath.Join(g, "link/x.o"), "guest\n") }, reason: "changed in the VM", files: "link/x.o"},
		{name: "staged", do: func(t *testing.T, g string) {
			writeFile(t, filepath.Join(g, "dir/f1"), "only staged\n")
			gitIn(t, g, "add", "dir/f1")
			writeFile(t, filepath.Join(g, "dir/f1"), "1\n")
		}, reason: "changed in the VM", files: "dir/f1"},
		{name: "commits", do: func(t *testing.T, g string) { writeFile(t, filepath.Join(g, "mine"), "m\n"); commit(t, g, "work") }, reason: "has commits"},
		{name: "another branch", do: func(t *testing.T, g string) { gitIn(t, g, "checkout", "-q", "-b", "topic") }, moved: true},
		{name: "no such branch", do: func(t *testing.T, g string) { gitIn(t, g, "branch", "-q", "-m", "topic") }, moved: true},
		{name: "merge", do: func(t *testing.T, g string) {
			gitIn(t, g, "checkout", "-q", "-f", "-b", "side")
			writeFile(t, filepath.Join(g, "dir/f4"), "side\n")
			commit(t, g, "side")
			gitIn(t, g, "checkout", "-q", "main")
			gitIn(t, g, "-c", "user.name=x", "-c", "user.email=x", "merge", "-q", "--no-ff", "--no-commit", "side")
		}, reason: "a merge is under way"},
	} {
		t.Run(c.name, func(t *testing.T) {
			host, guest, record := twoSided(t, 2)
			old := record.Head
			c.do(t, guest)
			goOn(t, host)
			head, branch := gitIn(t, guest, "rev-parse", "HEAD"), gitIn(t, guest, "symbolic-ref", "HEAD")
			was := readTree(t, guest)
			done, record := push(t, host, record)
			tip := gitIn(t, host, "rev-parse", "main")
			if got := gitIn(t, guest, "rev-parse", "refs/remotes/host/main"); got != tip || done.Ref != "refs/remotes/host/main" {
				t.Errorf("%s is %s, want %s", done.Ref, got, tip)
			}
			if done.Moved != c.moved || !strings.Contains(done.Reason, c.reason) || strings.Join(done.Files, " ") != c.files {
				t.Errorf("Push() = %+v", done)
			}
			gitIn(t, guest, "fsck", "--strict", "--no-dangling")
			if got := gitIn(t, guest, "symbolic-ref", "HEAD"); got != branch {
				t.Errorf("HEAD is %s, was %s", got, branch)
			}
			if c.moved {
				if got := gitIn(t, guest, "rev-parse", "main"); got != tip {
					t.Errorf("main is %s, want %s", got, tip)
				}
			}
			if c.moved && branch == "refs/heads/main\n" {
				if got := gitIn(t, guest, "status", "--porcelain"); got != c.status {
					t.Errorf("git status:\n%swant\n%s", got, c.status)
				}
				if record.Head != strings.TrimSpace(tip) {
					t.Errorf("the record's head is %s", record.Head)
				}
				return
			}
			if got := gitIn(t, guest, "rev-parse", "HEAD"); got != head || record.Head != old {
				t.Errorf("HEAD moved to %s (record %s)", got, record.Head)
			}
			if now := readTree(t, guest); !slices.Equal(now, was) {
				t.Errorf("files:\n%q\nwant\n%q", now, was)
			}
		})
	}
}

// What is pushed counts as the host's: nothing of it is work of the guest, and the next prepare goes on from there.
func TestPushThenUpdate(t *testing.T) {
	host, guest, record := twoSided(t, 2)
	goOn(t, host)
	_, record = push(t, host, record)
	if has, err := fetch(t, guest, record.Origin()).Work(t.Context(), nil); err != nil || has {
		t.Errorf("Work() = %v, %v", has, err)
	}
	if done, _ := push(t, host, record); !done.Moved || len(done.Written)+len(done.Removed) > 0 {
		t.Errorf("pushed again: %+v", done)
	}
	again(t, host, record, Options{})
	sameAs(t, host, guest)
}

func TestPushRefuses(t *testing.T) {
	host, _, record := twoSided(t, 1)
	gitIn(t, host, "checkout", "-q", "--detach")
	repo, err := Inspect(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Look(t.Context(), running(t, nil), record, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := repo.Push(t.Context(), running(t, nil), c, record); !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("Push() of a detached HEAD = %v", err)
	}
}

// The work of a guest that git has no part of is left alone by a push that comes between.
func TestPushSparse(t *testing.T) {
	host := newRepo(t)
	writeFile(t, filepath.Join(host, "in/a"), "a\n")
	writeFile(t, filepath.Join(host, "out/b"), "b\n")
	commit(t, host, "c")
	gitIn(t, host, "sparse-checkout", "set", "in")
	guest, record := prepared(t, host, Options{})
	writeFile(t, filepath.Join(host, "in/a"), "newer\n")
	gitIn(t, host, "commit", "-q", "-a", "-m", "newer")
	if done, _ := push(t, host, record); !done.Moved {
		t.Errorf("Push() = %+v", done)
	}
	if got := gitIn(t, guest, "status", "--porcelain"); got != "" {
		t.Errorf("git status = %q", got)
	}
	if _, err := os.Lstat(filepath.Join(guest, "out/b")); err == nil {
		t.Error("a file that the sparse checkout leaves out came")
	}
	if out, err := exec.Command("git", "-C", guest, "cat-file", "-e", "HEAD:out/b").CombinedOutput(); err != nil {
		t.Errorf("its content did not come: %v %s", err, out)
	}
}
