package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/internal/testenv"
	"banger/internal/transfer"
	"banger/internal/tree"
)

// running is local for a guest that takes changes; the connection of a change ends after as many bytes as limit says, if it is not
// negative.
func running(t *testing.T, limit *int) Guest {
	t.Helper()
	guest := local(nil)
	guest.Change = func(ctx context.Context, change transfer.Change, steps []transfer.Step, src tree.Source) error {
		host, agent := testenv.SocketPair(t)
		done := make(chan bool)
		go func() { server.Serve(agent); close(done) }()
		var conn transfer.Conn = host
		if limit != nil && *limit >= 0 {
			conn = &cutting{host, limit}
		}
		_, err := transfer.AskChange(ctx, conn, change, steps, src)
		<-done
		return err
	}
	return guest
}

var server = transfer.Server{Owner: func() (transfer.Owner, error) {
	return transfer.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}, nil
}, Enter: func(uint64) bool { return false }}

// cutting lets so many bytes pass, then it ends the connection.
type cutting struct {
	transfer.Conn
	left *int
}

func (c *cutting) Write(p []byte) (int, error) {
	n := min(len(p), *c.left)
	*c.left -= n
	if n < len(p) {
		c.Conn.Write(p[:n])
		c.Conn.Close()
		return n, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// prepared puts a repository into a directory as into a guest.
func prepared(t *testing.T, host string, options Options) (guest string, record Record) {
	t.Helper()
	s, err := plan(t, host, options).Prepare(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	guest = shipped(t, s)
	return guest, s.record(guest)
}

// look begins an update of a guest.
func look(t *testing.T, host string, record Record, options Options, save bool) (*Update, error) {
	t.Helper()
	return plan(t, host, options).Update(t.Context(), running(t, nil), record, save)
}

// again updates a guest and gives what was done and the new record.
func again(t *testing.T, host string, record Record, options Options) (*Update, Record) {
	t.Helper()
	u, err := look(t, host, record, options, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	record, err = u.Send(t.Context(), running(t, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	return u, record
}

// sameAs compares a guest's checkout with the host's.
func sameAs(t *testing.T, host, guest string) {
	t.Helper()
	gitIn(t, guest, "fsck", "--strict", "--no-dangling")
	for _, args := range [][]string{{"status", "--porcelain=v1", "-z", "--untracked-files=no"}, {"rev-parse", "HEAD"}, {"ls-files", "--stage", "-v"}, {"symbolic-ref", "--quiet", "HEAD"}} {
		if got, want := gitIn(t, guest, args...), gitIn(t, host, args...); got != want {
			t.Errorf("git %s: %q, want %q", strings.Join(args, " "), got, want)
		}
	}
	tracked := func(dir string) []string {
		files := strings.Split(gitIn(t, host, "ls-files", "-z"), "\x00")
		return slices.DeleteFunc(readTree(t, dir), func(line string) bool {
			name, _, _ := strings.Cut(line, "|")
			return !slices.Contains(files, name)
		})
	}
	if got, want := tracked(guest), tracked(host); !slices.Equal(got, want) {
		t.Errorf("files:\n%q\nwant\n%q", got, want)
	}
}

// twoSided makes a host with so many commits and a guest that has it.
func twoSided(t *testing.T, commits int) (host, guest string, record Record) {
	t.Helper()
	host = newRepo(t)
	for i := range 8 {
		writeFile(t, filepath.Join(host, fmt.Sprintf("dir/f%d", i)), fmt.Sprintf("%d\n", i))
	}
	writeFile(t, filepath.Join(host, "run"), "#!/bin/sh\n")
	writeFile(t, filepath.Join(host, "file"), "a file\n")
	writeFile(t, filepath.Join(host, "tree/x"), "x\n")
	writeFile(t, filepath.Join(host, ".gitignore"), "*.o\n")
	for range commits {
		commit(t, host, "c")
	}
	writeFile(t, filepath.Join(host, "dir/f0"), "edited on the host\n")
	guest, record = prepared(t, host, Options{})
	return host, guest, record
}

// goOn changes the host in every way.
func goOn(t *testing.T, host string) {
	t.Helper()
	writeFile(t, filepath.Join(host, "dir/f1"), "committed\n")
	os.Chmod(filepath.Join(host, "run"), 0o755)
	os.Remove(filepath.Join(host, "file"))
	writeFile(t, filepath.Join(host, "file/is/a/directory"), "now\n")
	os.RemoveAll(filepath.Join(host, "tree"))
	writeFile(t, filepath.Join(host, "tree"), "a file now\n")
	os.Symlink("run", filepath.Join(host, "link"))
	commit(t, host, "host goes on")
	writeFile(t, filepath.Join(host, "dir/f2"), "edited\n")
	writeFile(t, filepath.Join(host, "staged"), "staged\n")
	gitIn(t, host, "add", "staged")
	os.Remove(filepath.Join(host, "dir/f3"))
}

func TestUpdate(t *testing.T) {
	host, guest, record := twoSided(t, DefaultDepth+2)
	u, record := again(t, host, record, Options{})
	if len(u.Written)+len(u.Removed)+len(u.Kept) > 0 || u.ship.pack.path != "" {
		t.Errorf("an update of nothing: %q, %q, %q, pack %q", u.Written, u.Removed, u.Kept, u.ship.pack.path)
	}
	sameAs(t, host, guest)
	goOn(t, host)
	u, record = again(t, host, record, Options{})
	if got, want := strings.Join(u.Written, " "), "dir/f1 dir/f2 file/is/a/directory link run staged tree"; got != want {
		t.Errorf("written: %s, want %s", got, want)
	}
	if got, want := strings.Join(u.Removed, " "), "dir/f3 file tree/x"; got != want {
		t.Errorf("removed: %s, want %s", got, want)
	}
	sameAs(t, host, guest)
	if has, err := fetch(t, guest, record.Origin()).Work(t.Context(), nil); err != nil || has {
		t.Errorf("Work() after an update = %v, %v", has, err)
	}
	gitIn(t, host, "checkout", "-q", "-f", "-b", "other", "HEAD~1")
	_, record = again(t, host, record, Options{})
	sameAs(t, host, guest)
	gitIn(t, host, "checkout", "-q", "--detach")
	_, record = again(t, host, record, Options{})
	if text, _ := os.ReadFile(filepath.Join(guest, ".git/HEAD")); strings.TrimSpace(string(text)) != record.Head {
		t.Errorf("HEAD %q, want %s", text, record.Head)
	}
	if list, err := os.ReadDir(filepath.Join(guest, ".git")); err != nil || slices.ContainsFunc(list, func(e os.DirEntry) bool { return e.Name() == transfer.ChangeStaging }) {
		t.Errorf("left in .git: %v, %v", list, err)
	}
}

// What has changed in the guest only stays, staged or not.
func TestUpdateKeeps(t *testing.T) {
	host, guest, record := twoSided(t, 2)
	writeFile(t, filepath.Join(guest, "dir/f4"), "guest\n")
	writeFile(t, filepath.Join(guest, "dir/f5"), "staged in the guest\n")
	writeFile(t, filepath.Join(guest, "added"), "added in the guest\n")
	gitIn(t, guest, "add", "dir/f5", "added")
	gitIn(t, guest, "rm", "-q", "dir/f6")
	os.Remove(filepath.Join(guest, "dir/f7"))
	writeFile(t, filepath.Join(guest, "untracked"), "u\n")
	writeFile(t, filepath.Join(guest, "x.o"), "o\n")
	goOn(t, host)
	writeFile(t, filepath.Join(guest, "dir/f2"), "edited\n") // the same on both sides
	u, _ := again(t, host, record, Options{})
	if got, want := strings.Join(u.Kept, " "), "dir/f4 dir/f5 dir/f6 dir/f7"; got != want {
		t.Errorf("kept: %s, want %s", got, want)
	}
	want := "A  added\n M dir/f2\n D dir/f3\n M dir/f4\nM  dir/f5\nD  dir/f6\n D dir/f7\nA  staged\n?? untracked\n"
	if got := gitIn(t, guest, "status", "--porcelain"); got != want {
		t.Errorf("git status:\n%swant\n%s", got, want)
	}
	gitIn(t, guest, "fsck", "--strict", "--no-dangling")
}

// gitState is all of a directory but what git itself changes as it looks.
func gitState(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	for e, err := range tree.FromDir(dir) {
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if e.Content != nil {
			b.ReadFrom(e.Content)
		}
		list = append(list, fmt.Sprintf("%s %o %d %q %x", e.Path, e.Mode, e.Kind, e.Link, b.Bytes()))
	}
	return list
}

func TestUpdateBlocked(t *testing.T) {
	for _, c := range []struct {
		name    string
		do      func(t *testing.T, guest string)
		want    string // in the error
		files   string
		commits int
		staged  string
		forced  bool // --force goes through
	}{
		{name: "commit", do: func(t *testing.T, g string) { commit(t, g, "work"); commit(t, g, "more") }, want: "2 commits", commits: 2, forced: true},
		{name: "detached commit", do: func(t *testing.T, g string) { gitIn(t, g, "checkout", "-q", "--detach"); commit(t, g, "work") }, want: "1 commit", commits: 1, forced: true},
		{name: "changed", do: func(t *testing.T, g string) {
			writeFile(t, filepath.Join(g, "dir/f1"), "guest\n")
			os.Remove(filepath.Join(g, "run"))
			writeFile(t, filepath.Join(g, "file"), "guest\n")
		}, want: "3 files", files: "dir/f1 file run", forced: true},
		{name: "untracked", do: func(t *testing.T, g string) { writeFile(t, filepath.Join(g, "link"), "guest\n") }, want: "1 file", files: "link", forced: true},
		{name: "staged", do: func(t *testing.T, g string) {
			writeFile(t, filepath.Join(g, "dir/f1"), "only staged\n")
			gitIn(t, g, "add", "dir/f1")
			writeFile(t, filepath.Join(g, "dir/f1"), "1\n")
		}, want: "1 staged file", staged: "dir/f1", forced: true},
		{name: "directory in the way", do: func(t *testing.T, g string) { writeFile(t, filepath.Join(g, "link/in.o"), "ignored\n") }, want: "1 file", files: "link/in.o"},
		{name: "untracked in a directory that becomes a file", do: func(t *testing.T, g string) { writeFile(t, filepath.Join(g, "tree/mine.o"), "ignored\n") }, want: "1 file", files: "tree/mine.o"},
		{name: "nested repository in the way", do: func(t *testing.T, g string) {
			os.Mkdir(filepath.Join(g, "link"), 0o755)
			gitIn(t, filepath.Join(g, "link"), "init", "-q")
		}, want: "files", files: "*"},
		{name: "merge", do: func(t *testing.T, g string) {
			gitIn(t, g, "checkout", "-q", "-b", "side", "HEAD~1")
			writeFile(t, filepath.Join(g, "dir/f4"), "side\n")
			commit(t, g, "side")
			gitIn(t, g, "checkout", "-q", "main")
			writeFile(t, filepath.Join(g, "dir/f4"), "main\n")
			gitIn(t, g, "commit", "-q", "-a", "-m", "main")
			exec.Command("git", "-C", g, "merge", "side").Run() // fails: that is the case
		}, want: "a merge is under way"},
		{name: "lock", do: func(t *testing.T, g string) { writeFile(t, filepath.Join(g, ".git/index.lock"), "") }, want: "git is at work"},
		{name: "split index", do: func(t *testing.T, g string) { gitIn(t, g, "update-index", "--split-index") }, want: "index can't be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			host, guest, record := twoSided(t, 2)
			c.do(t, guest)
			goOn(t, host)
			was := gitState(t, guest)
			_, err := look(t, host, record, Options{}, false)
			if !errors.Is(err, banger.ErrConflict) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Update() = %v, want a conflict with %q", err, c.want)
			}
			if blocked, ok := errors.AsType[*Blocked](err); ok {
				if got := strings.Join(blocked.Files, " "); got != c.files && c.files != "*" || len(blocked.Commits) != c.commits || strings.Join(blocked.Staged, " ") != c.staged {
					t.Errorf("blocked: %+v", blocked)
				}
			}
			forced(t, host, guest, record, c.forced)
			if !c.forced && !slices.Equal(gitState(t, guest), was) {
				t.Error("the guest changed")
			}
		})
	}
}

// forced saves what a guest has and updates it then: through tells whether that goes.
func forced(t *testing.T, host, guest string, record Record, through bool) {
	t.Helper()
	c, err := Look(t.Context(), running(t, nil), record, true)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := c.Save(t.Context(), host, "refs/banger/devbox/0123456789ab/now")
	if err != nil {
		t.Fatal(err)
	}
	head := strings.TrimSpace(gitIn(t, guest, "rev-parse", "HEAD"))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	u, err := plan(t, host, Options{}).Update(t.Context(), running(t, nil), record, true)
	if !through {
		if !errors.Is(err, banger.ErrConflict) {
			t.Errorf("forced: %v, want a conflict", err)
		}
		return
	}
	if err != nil {
		t.Fatalf("forced: %v", err)
	}
	defer u.Close()
	if _, err := u.Send(t.Context(), running(t, nil), nil); err != nil {
		t.Fatal(err)
	}
	if saved["refs/banger/devbox/0123456789ab/now/head"] != head {
		t.Errorf("saved %v, want the head %s", saved, head)
	}
	sameAs(t, host, guest)
}

// TestUpdateCutOff cuts the connection after each of many numbers of bytes: the guest is as it was, or, at the end, as it is to be.
func TestUpdateCutOff(t *testing.T) {
	host, guest, record := twoSided(t, 2)
	goOn(t, host)
	was := gitState(t, guest)
	u, err := look(t, host, record, Options{}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	begun := u.Begun()
	for cut := 0; ; cut += 397 {
		left := cut
		if _, err := u.Send(t.Context(), running(t, &left), nil); err == nil {
			break
		}
		if now := gitState(t, guest); !slices.Equal(now, was) {
			t.Fatalf("cut after %d bytes: the guest changed", cut)
		}
		if cut > 1<<20 {
			t.Fatal("it never ends")
		}
	}
	sameAs(t, host, guest)
	again(t, host, begun, Options{}) // the host does not know that the last one went through
	sameAs(t, host, guest)
}

// TestUpdateCompletes has the machine end between any two of an update's renames, and the host go on before the next update.
func TestUpdateCompletes(t *testing.T) {
	host, guest, record := twoSided(t, 2)
	goOn(t, host)
	u, err := look(t, host, record, Options{}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	begun := u.Begun()
	whole := filepath.Join(t.TempDir(), "whole")
	copyTree(t, guest, whole)
	u.record.GuestPath = whole
	if err := running(t, nil).Change(t.Context(), transfer.Change{Path: []byte(whole), Aside: []byte(".git")}, nil, tree.Of()); err != nil {
		t.Fatal(err)
	}
	var order []string
	for e, err := range u.source(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind != tree.Dir {
			order = append(order, e.Path)
		}
	}
	old := filepath.Join(t.TempDir(), "old")
	copyTree(t, guest, old)
	full := guest
	if _, err := mustSend(t, host, record); err != nil {
		t.Fatal(err)
	}
	for n := 0; n <= len(order); n += 3 {
		guest := filepath.Join(t.TempDir(), "guest")
		copyTree(t, old, guest)
		for _, name := range u.removed {
			os.Remove(filepath.Join(guest, name))
			os.Remove(filepath.Dir(filepath.Join(guest, name)))
		}
		for _, name := range order[:n] {
			os.MkdirAll(filepath.Dir(filepath.Join(guest, name)), 0o755)
			if out, err := exec.Command("cp", "-a", "--remove-destination", filepath.Join(full, name), filepath.Join(guest, name)).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		writeFile(t, filepath.Join(host, "dir/f1"), fmt.Sprintf("the host went on %d\n", n))
		r := begun
		r.GuestPath = guest
		again(t, host, r, Options{})
		sameAs(t, host, guest)
	}
}

func mustSend(t *testing.T, host string, record Record) (Record, error) {
	t.Helper()
	u, err := look(t, host, record, Options{}, false)
	if err != nil {
		return record, err
	}
	defer u.Close()
	return u.Send(t.Context(), running(t, nil), nil)
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestUpdateHistories goes from any commit of a random history to any other one: the guest's repository is whole each time.
func TestUpdateHistories(t *testing.T) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 7))
		host := newRepo(t)
		var commits []string
		for i := range 24 {
			switch {
			case i > 0 && r.IntN(6) == 0:
				gitIn(t, host, "checkout", "-q", "--detach", commits[r.IntN(len(commits))])
			case i > 0 && r.IntN(12) == 0:
				gitIn(t, host, "checkout", "-q", "--orphan", fmt.Sprintf("orphan%d", i))
			case i > 2 && r.IntN(6) == 0:
				gitIn(t, host, "merge", "-q", "-s", "ours", "--allow-unrelated-histories", "-m", "m", commits[r.IntN(len(commits))])
			}
			writeFile(t, filepath.Join(host, fmt.Sprintf("f%d", r.IntN(5))), fmt.Sprint(r.IntN(10)))
			id := commit(t, host, "c")
			gitIn(t, host, "branch", fmt.Sprintf("b%d", i))
			commits = append(commits, id)
		}
		if r.IntN(2) == 0 {
			shallow := filepath.Join(t.TempDir(), "shallow")
			gitIn(t, "/", "clone", "-q", "--no-single-branch", "--depth", "4", "file://"+host, shallow)
			host = shallow
		}
		gitIn(t, host, "checkout", "-q", "-B", "main", commits[r.IntN(len(commits))])
		guest, record := prepared(t, host, Options{FullHistory: r.IntN(4) == 0})
		for range 3 {
			gitIn(t, host, "checkout", "-q", "-B", "main", commits[r.IntN(len(commits))])
			full := r.IntN(3) == 0
			_, record = again(t, host, record, Options{FullHistory: full})
			sameAs(t, host, guest)
			if full {
				if got, want := gitIn(t, guest, "log", "--format=%H"), gitIn(t, host, "log", "--format=%H"); got != want {
					t.Errorf("seed %d: the full history has %d commits, want %d", seed, strings.Count(got, "\n"), strings.Count(want, "\n"))
				}
			}
		}
	}
}

func TestUpdateSubmodule(t *testing.T) {
	inner, second, host := newRepo(t), newRepo(t), newRepo(t)
	writeFile(t, filepath.Join(inner, "in"), "in\n")
	commit(t, inner, "inner")
	writeFile(t, filepath.Join(second, "two"), "two\n")
	commit(t, second, "second")
	gitIn(t, host, "-c", "protocol.file.allow=always", "submodule", "add", "-q", inner, "deep/mod")
	commit(t, host, "outer")
	guest, record := prepared(t, host, Options{})

	writeFile(t, filepath.Join(host, "deep/mod/in"), "newer\n")
	commit(t, filepath.Join(host, "deep/mod"), "inner goes on")
	gitIn(t, host, "-c", "protocol.file.allow=always", "submodule", "add", "-q", second, "mod2")
	commit(t, host, "outer goes on")
	// The agent of the test does not bring; what a new submodule needs afterwards comes by the same door.
	g := running(t, nil)
	g.Bring = func(ctx context.Context, put transfer.Put, src tree.Source) error {
		hostEnd, agent := testenv.SocketPair(t)
		go server.Serve(agent)
		_, err := transfer.Bring(ctx, hostEnd, put, src)
		return err
	}
	u, err := plan(t, host, Options{}).Update(t.Context(), g, record, false)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if got, want := strings.Join(u.Written, " "), ".gitmodules deep/mod/in mod2/two"; got != want {
		t.Errorf("written: %s, want %s", got, want)
	}
	if record, err = u.Send(t.Context(), g, nil); err != nil {
		t.Fatal(err)
	}
	sameAs(t, host, guest)
	sameAs(t, filepath.Join(host, "deep/mod"), filepath.Join(guest, "deep/mod"))
	sameAs(t, filepath.Join(host, "mod2"), filepath.Join(guest, "mod2"))
	writeFile(t, filepath.Join(guest, "mod2/two"), "guest\n")
	writeFile(t, filepath.Join(host, "mod2/two"), "host\n")
	if _, err = look(t, host, record, Options{}, false); !errors.Is(err, banger.ErrConflict) || !strings.Contains(fmt.Sprintf("%+v", *blockedBy(err)), "mod2/two") {
		t.Errorf("an edit in a submodule: %v", err)
	}
}

func blockedBy(err error) *Blocked {
	blocked, _ := errors.AsType[*Blocked](err)
	return blocked
}

func TestUpdateOfAnotherRepository(t *testing.T) {
	_, _, record := twoSided(t, 2)
	other := newRepo(t)
	commit(t, other, "other")
	if _, err := look(t, other, record, Options{}, false); !errors.Is(err, banger.ErrConflict) || !strings.Contains(err.Error(), "came from") {
		t.Errorf("Update() = %v", err)
	}
}

// A guest that is on another branch, or on none, is told of when it comes to be on the host's.
func TestUpdateTellsOfAnotherBranch(t *testing.T) {
	inner, host := newRepo(t), newRepo(t)
	commit(t, inner, "inner")
	gitIn(t, host, "-c", "protocol.file.allow=always", "submodule", "add", "-q", inner, "mod")
	first := commit(t, host, "c")
	guest, record := prepared(t, host, Options{})
	mod := gitIn(t, filepath.Join(host, "mod"), "rev-parse", "--short=12", "HEAD")
	gitIn(t, host, "commit", "-q", "--allow-empty", "-m", "more")
	update := func(want ...string) {
		t.Helper()
		var u *Update
		if u, record = again(t, host, record, Options{}); !slices.Equal(u.Notices, want) {
			t.Errorf("notices %q, want %q", u.Notices, want)
		}
	}
	update()
	gitIn(t, guest, "checkout", "-q", "-b", "topic", first)
	gitIn(t, filepath.Join(guest, "mod"), "checkout", "-q", "-b", "fix")
	update(fmt.Sprintf("it was on branch topic: now it is on branch main; topic stays there, at %.12s", first),
		fmt.Sprintf("the submodule mod was on branch fix: now it is on branch main; fix stays there, at %.12s", mod))
	gitIn(t, guest, "checkout", "-q", "--detach", first)
	update(fmt.Sprintf("it was on no branch, at %.12s: now it is on branch main", first))
	gitIn(t, guest, "checkout", "-q", "--orphan", "empty")
	update("it was on branch empty: now it is on branch main")
}
