package workspace

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/testenv"
	"banger/internal/transfer"
)

// local is a directory of this machine in the place of a guest: the agent's own server answers. It notes what is read.
func local(read *[]string) Guest {
	return Guest{Ask: func(ctx context.Context, req transfer.Request, names []string) (io.ReadCloser, error) {
		if read != nil {
			*read = append(*read, names...)
		}
		host, guest := net.Pipe()
		server := transfer.Server{Owner: func() (transfer.Owner, error) {
			return transfer.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}, nil
		}}
		go server.Serve(guest)
		return host, transfer.WriteRequest(host, req, names)
	}}
}

// fetch fetches a guest's repository with all that it has.
func fetch(t *testing.T, guest string, origin Origin) *Copy {
	t.Helper()
	origin.MaxUntracked = 1 << 30
	c, err := Fetch(t.Context(), local(nil), guest, t.TempDir(), origin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestFetch(t *testing.T) {
	host := newRepo(t)
	for i := range 20 {
		writeFile(t, filepath.Join(host, fmt.Sprintf("f%d", i)), fmt.Sprint(i))
	}
	writeFile(t, filepath.Join(host, ".gitignore"), "*.o\n/build/\n")
	writeFile(t, filepath.Join(host, "run"), "x")
	for range 12 {
		commit(t, host, "c")
	}
	base := commit(t, host, "base")
	guest := ship(t, plan(t, host, Options{}))
	packs, _ := filepath.Glob(filepath.Join(guest, ".git/objects/pack/*.pack"))
	origin := Origin{Repo: host, Base: base, Packs: []string{filepath.Base(packs[0])}}

	t.Run("unchanged", func(t *testing.T) {
		var read []string
		c, err := Fetch(t.Context(), local(&read), guest, t.TempDir(), Origin{Repo: host, Base: base, Packs: origin.Packs, MaxUntracked: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if !reflect.DeepEqual(c.Changes, Changes{}) || len(c.Commits) > 0 || len(c.Notices) > 0 {
			t.Errorf("changes %+v, commits %v, notices %q", c.Changes, c.Commits, c.Notices)
		}
		for _, name := range read {
			if strings.Contains(name, "pack") && name != "packed-refs" || strings.HasPrefix(name, "f1") {
				t.Errorf("%s was read", name)
			}
		}
	})

	writeFile(t, filepath.Join(guest, "f0"), "committed")
	commit(t, guest, "work")
	gitIn(t, guest, "checkout", "-q", "-b", "topic/two")
	commit(t, guest, "other work")
	gitIn(t, guest, "checkout", "-q", "main")
	writeFile(t, filepath.Join(guest, "f2"), "stashed")
	gitIn(t, guest, "stash", "-q")
	writeFile(t, filepath.Join(guest, "f1"), "edited")
	writeFile(t, filepath.Join(guest, "staged"), "staged")
	gitIn(t, guest, "add", "staged")
	writeFile(t, filepath.Join(guest, "staged"), "staged and edited")
	os.Remove(filepath.Join(guest, "f3"))
	os.Chmod(filepath.Join(guest, "run"), 0o755)
	writeFile(t, filepath.Join(guest, "new dir/ü\n\"x\""), "untracked")
	writeFile(t, filepath.Join(guest, "x.o"), "ignored")
	writeFile(t, filepath.Join(guest, "build/out"), "ignored")
	os.Symlink("/etc/passwd", filepath.Join(guest, "link"))

	for _, repack := range []bool{false, true} {
		if repack {
			gitIn(t, guest, "gc", "-q", "--prune=now")
		}
		c := fetch(t, guest, origin)
		want := Changes{Tracked: []Change{{"f1", "modified", false}, {"f3", "deleted", false}, {"run", "modified", false}, {"staged", "added", false}},
			Untracked: []Change{{"link", "untracked", false}, {"new dir/ü\n\"x\"", "untracked", false}}, UntrackedBytes: int64(len("/etc/passwd") + len("untracked")), Staged: true}
		if !reflect.DeepEqual(c.Changes, want) {
			t.Errorf("changes %+v, want %+v", c.Changes, want)
		}
		back := filepath.Join(t.TempDir(), "back")
		gitIn(t, "/", "clone", "-q", host, back)
		gitIn(t, back, "fetch", "-q", c.dir, "+refs/guest/heads/*:refs/back/*", "+refs/work/*:refs/back/work/*")
		gitIn(t, back, "fsck", "--strict")
		gitIn(t, back, "checkout", "-q", "--detach", "refs/back/main")
		gitIn(t, back, "stash", "apply", "-q", "--index", "refs/back/work/worktree")
		if got, want := gitIn(t, back, "status", "--porcelain", "-z"), gitIn(t, guest, "status", "--porcelain", "-z"); got != want {
			t.Errorf("after git stash apply: %q, want %q", got, want)
		}
		if got, want := readTree(t, back), without(readTree(t, guest), "x.o", "build/out"); !slices.Equal(got, want) {
			t.Errorf("files:\n%q\nwant\n%q", got, want)
		}
		if got, want := gitIn(t, back, "rev-parse", "refs/back/topic/two"), gitIn(t, guest, "rev-parse", "topic/two"); got != want {
			t.Errorf("branch topic/two = %s, want %s", got, want)
		}
		if len(c.refs.stashes) != 1 {
			t.Errorf("stashes %v", c.refs.stashes)
		}
	}
}

func TestFetchWithoutTheHostsRepository(t *testing.T) {
	host := newRepo(t)
	writeFile(t, filepath.Join(host, "a"), "1")
	for range 12 {
		commit(t, host, "c")
	}
	guest := ship(t, plan(t, host, Options{}))
	writeFile(t, filepath.Join(guest, "a"), "2")
	c := fetch(t, guest, Origin{})
	if got := gitIn(t, c.dir, "show", "refs/work/all:a"); got != "2" {
		t.Errorf("a = %q", got)
	}
}

func TestFetchOddGuests(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(t *testing.T, guest string)
		tracked []Change
		others  []Change
		notice  string
	}{
		{"no index", func(t *testing.T, g string) { os.Remove(filepath.Join(g, ".git/index")) }, nil, nil, ""},
		{"bad index", func(t *testing.T, g string) { writeFile(t, filepath.Join(g, ".git/index"), "DIRC") }, nil, nil, "index can't be read"},
		{"split index", func(t *testing.T, g string) { gitIn(t, g, "update-index", "--split-index") }, nil, nil, ""},
		{"no HEAD", func(t *testing.T, g string) { os.Remove(filepath.Join(g, ".git/HEAD")) }, []Change{{"a", "added", false}}, nil, ""},
		{"HEAD of nothing", func(t *testing.T, g string) {
			writeFile(t, filepath.Join(g, ".git/HEAD"), strings.Repeat("1", 40)+"\n")
		}, []Change{{"a", "added", false}}, nil, "does not have"},
		{"nested repository", func(t *testing.T, g string) {
			writeFile(t, filepath.Join(g, "dep/x"), "x")
			gitIn(t, filepath.Join(g, "dep"), "init", "-q")
		}, nil, nil, ""},
		{"names that git can't have", func(t *testing.T, g string) {
			writeFile(t, filepath.Join(g, ".GIT/x"), "x")
		}, nil, nil, "left out"},
		{"damaged object", func(t *testing.T, g string) {
			writeFile(t, filepath.Join(g, ".git/objects/11/"+strings.Repeat("1", 38)), "junk")
		}, nil, nil, "damaged object"},
		{"fifo", func(t *testing.T, g string) { unix.Mkfifo(filepath.Join(g, "fifo"), 0o644) }, nil, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			host := newRepo(t)
			writeFile(t, filepath.Join(host, "a"), "1")
			commit(t, host, "c")
			guest := ship(t, plan(t, host, Options{}))
			test.change(t, guest)
			c := fetch(t, guest, Origin{Repo: host})
			if !slices.Equal(c.Changes.Tracked, test.tracked) || !slices.Equal(c.Changes.Untracked, test.others) {
				t.Errorf("changes %+v", c.Changes)
			}
			if got := strings.Join(c.Notices, "\n"); !strings.Contains(got, test.notice) {
				t.Errorf("notices %q, want %q", got, test.notice)
			}
		})
	}
}

// TestHostileGuestRunsNothing gives the guest everything that would make git run a program or look elsewhere.
func TestHostileGuestRunsNothing(t *testing.T) {
	host := newRepo(t)
	writeFile(t, filepath.Join(host, "a"), "1")
	commit(t, host, "c")
	guest := ship(t, plan(t, host, Options{}))
	canary, id := testenv.HostileGuest(t, guest)
	writeFile(t, filepath.Join(guest, ".git/refs/heads/stolen"), id+"\n")

	c := fetch(t, guest, Origin{Repo: host})
	back := filepath.Join(t.TempDir(), "back")
	gitIn(t, "/", "clone", "-q", host, back)
	cmd := exec.Command("git", "-C", back, "fetch", "-q", c.dir, "+refs/guest/heads/main:refs/back/main", "+refs/work/*:refs/back/work/*")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Lstat(canary); err == nil {
		t.Error("a program of the guest ran")
	}
	if out, err := exec.Command("git", "-C", c.dir, "cat-file", "-e", id).CombinedOutput(); err == nil {
		t.Errorf("an object of another repository is there: %s", out)
	}
	for name := range c.refs.byName {
		if strings.Contains(name, "evil") || strings.Contains(name, "passwd") {
			t.Errorf("ref %q was taken", name)
		}
	}
	if got, err := os.Readlink(filepath.Join(guest, "linked")); err != nil || gitIn(t, back, "show", "refs/back/work/all:linked") != got {
		t.Errorf("the link is not its text, %q (%v)", got, err)
	}
	if got := gitIn(t, back, "show", "refs/back/work/all:a"); got != "2" {
		t.Errorf("a = %q", got)
	}
	if err := c.checkWhole(); err == nil {
		t.Error("a branch whose commit is not there counts as kept")
	}
}

func FuzzRefs(f *testing.F) {
	f.Add([]byte("# pack-refs\n"+strings.Repeat("1", 40)+" refs/heads/main\n^"+strings.Repeat("2", 40)+"\n"), []byte("ref: refs/heads/main\n"))
	f.Fuzz(func(t *testing.T, packed, head []byte) {
		r := refs{byName: map[string]string{}, remotes: map[string]string{}}
		r.addPacked(packed)
		r.setHead(head)
		for name, id := range r.byName {
			if checkRefName(name) != nil || !isObjectID(id) || strings.Contains("/"+name+"/", "/../") {
				t.Errorf("ref %q %q", name, id)
			}
		}
		if r.head != "" && !isObjectID(r.head) {
			t.Errorf("HEAD %q", r.head)
		}
	})
}
