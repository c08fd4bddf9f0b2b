package workspace

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/testenv"
	"banger/internal/transfer"
	"banger/internal/tree"
)

// bringing is running that takes whole trees too.
func bringing(t *testing.T) Guest {
	t.Helper()
	g := running(t, nil)
	g.Bring = func(ctx context.Context, put transfer.Put, src tree.Source) error {
		host, agent := testenv.SocketPair(t)
		go server.Serve(agent)
		_, err := transfer.Bring(ctx, host, put, src)
		return err
	}
	return g
}

// plainDirectory makes a directory that is in no repository.
func plainDirectory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a"), "1\n")
	writeFile(t, filepath.Join(dir, "sub/ü\n"), "odd\n")
	writeFile(t, filepath.Join(dir, "sub/run"), "#!/bin/sh\n")
	writeFile(t, filepath.Join(dir, "gone"), "gone\n")
	writeFile(t, filepath.Join(dir, "app/.git/config"), "[remote \"origin\"]\n\turl = https://me:secret@example.com/x\n")
	writeFile(t, filepath.Join(dir, "app/code"), "code\n")
	for _, err := range []error{os.Chmod(filepath.Join(dir, "sub/run"), 0o755), os.Symlink("sub/run", filepath.Join(dir, "link")), os.MkdirAll(filepath.Join(dir, "empty/deep"), 0o750), unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func directoryPlan(t *testing.T, dir string) Plan {
	t.Helper()
	p, err := MakeDirectoryPlan(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sendDirectory puts a plan's files into a new directory as into a guest.
func sendDirectory(t *testing.T, p Plan) Record {
	t.Helper()
	s, err := p.Prepare(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	record, err := s.Send(t.Context(), bringing(t), filepath.Join(t.TempDir(), "guest"), forgotten, nil)
	if err != nil {
		t.Fatal(err)
	}
	return record
}

func TestDirectory(t *testing.T) {
	host := plainDirectory(t)
	p := directoryPlan(t, host)
	if got := strings.Join(p.Notices, "; "); !strings.Contains(got, "app/.git stays") || !strings.Contains(got, "1 devices") {
		t.Errorf("notices %q", got)
	}
	record := sendDirectory(t, p)
	guest := record.GuestPath
	all := without(readTree(t, host), "app/.git/config", "fifo")
	if got := readTree(t, guest); !slices.Equal(got, all) {
		t.Errorf("files:\n%q\nwant\n%q", got, all)
	}
	if info, err := os.Stat(filepath.Join(guest, "empty/deep")); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("an empty directory: %v", err)
	}
	c := fetch(t, guest, record.Origin())
	if has, err := c.Work(t.Context(), nil); err != nil || has || len(c.Changes.Tracked)+len(c.Changes.Untracked) > 0 {
		t.Errorf("Work() of an untouched guest = %v, %v (%+v)", has, err, c.Changes)
	}
	writeFile(t, filepath.Join(guest, "a"), "2\n")
	if err := os.Chtimes(filepath.Join(guest, "a"), time.Time{}, time.Unix(0, record.Sent["a"].MTime)); err != nil { // it looks like before, but for its ctime
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(guest, "sub/new"), "new\n")
	os.Remove(filepath.Join(guest, "gone"))
	c = fetch(t, guest, record.Origin())
	if want := []Change{{"a", "modified", false}, {"gone", "deleted", false}}; !slices.Equal(c.Changes.Tracked, want) || !slices.Equal(c.Changes.Untracked, []Change{{"sub/new", "untracked", false}}) {
		t.Errorf("changes %+v", c.Changes)
	}
	var patch bytes.Buffer
	if err := c.Patch(t.Context(), "", &patch, false); err != nil {
		t.Fatal(err)
	}
	back := filepath.Join(t.TempDir(), "back")
	copyTree(t, host, back)
	cmd := exec.Command("git", "apply")
	cmd.Dir, cmd.Stdin, cmd.Env = back, &patch, append(os.Environ(), "GIT_CEILING_DIRECTORIES=/")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git apply: %v\n%s", err, out)
	}
	if got, want := without(readTree(t, back), "app/.git/config", "fifo"), readTree(t, guest); !slices.Equal(got, want) {
		t.Errorf("after git apply:\n%q\nwant\n%q", got, want)
	}
	if _, err := c.Apply(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if got, want := without(readTree(t, host), "app/.git/config", "fifo"), readTree(t, guest); !slices.Equal(got, want) {
		t.Errorf("after Apply:\n%q\nwant\n%q", got, want)
	}
}

// A second prepare sends what has changed, and stops where the guest has changed the same.
func TestDirectoryAgain(t *testing.T) {
	host := plainDirectory(t)
	record := sendDirectory(t, directoryPlan(t, host))
	guest := record.GuestPath
	writeFile(t, filepath.Join(guest, "app/code"), "guest\n")
	writeFile(t, filepath.Join(host, "a"), "2\n")
	os.Remove(filepath.Join(host, "link"))
	if err := os.MkdirAll(filepath.Join(host, "new/empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	update := func() (*Update, error) {
		return directoryPlan(t, host).Update(t.Context(), bringing(t), record, false)
	}
	os.Remove(filepath.Join(host, "gone"))
	writeFile(t, filepath.Join(host, "gone/now/a/directory"), "x\n")
	u, err := update()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(u.Written, " ") + "; " + strings.Join(u.Removed, " ") + "; " + strings.Join(u.Kept, " "); got != "a gone/now/a/directory; gone link; app/code" {
		t.Errorf("update: %s", got)
	}
	record, err = u.Send(t.Context(), bringing(t), nil)
	if err = errors.Join(err, u.Close()); err != nil {
		t.Fatal(err)
	}
	if got, want := without(readTree(t, guest), "app/code"), without(readTree(t, host), "app/code", "app/.git/config", "fifo"); !slices.Equal(got, want) {
		t.Errorf("files:\n%q\nwant\n%q", got, want)
	}
	if info, err := os.Stat(filepath.Join(guest, "new/empty")); err != nil || !info.IsDir() {
		t.Errorf("a new empty directory: %v", err)
	}
	if c := fetch(t, guest, record.Origin()); !slices.Equal(c.Changes.Tracked, []Change{{"app/code", "modified", false}}) || len(c.Changes.Untracked) > 0 {
		t.Errorf("changes %+v", c.Changes)
	}
	writeFile(t, filepath.Join(host, "app/code"), "host\n")
	if _, err := update(); !errors.Is(err, banger.ErrConflict) || blockedBy(err) == nil || !slices.Equal(blockedBy(err).Files, []string{"app/code"}) {
		t.Errorf("Update() over an edit = %v", err)
	}
}

// What is deleted with its VM is kept in a bundle, whether a repository has been made of the files or not, and whether the host's are
// there or not.
func TestDirectoryIsKept(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(t *testing.T, host, guest string)
		kept map[string]string
	}{
		{"nothing", func(*testing.T, string, string) {}, nil},
		{"files", func(t *testing.T, _, guest string) {
			writeFile(t, filepath.Join(guest, "a"), "2\n")
			writeFile(t, filepath.Join(guest, "new"), "new\n")
		}, map[string]string{"all:a": "2\n", "all:new": "new\n"}},
		{"files, and the host's are gone", func(t *testing.T, host, guest string) {
			os.RemoveAll(host)
			writeFile(t, filepath.Join(guest, "a"), "2\n")
		}, map[string]string{"all:a": "2\n"}},
		{"a repository", func(t *testing.T, _, guest string) {
			gitIn(t, guest, "init", "-q", "-b", "main")
			writeFile(t, filepath.Join(guest, "a"), "committed\n")
			commit(t, guest, "work")
			writeFile(t, filepath.Join(guest, "a"), "edited\n")
		}, map[string]string{"branches/main:a": "committed\n", "worktree:a": "edited\n"}},
		{"deleted", func(t *testing.T, _, guest string) { os.RemoveAll(guest) }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			host := plainDirectory(t)
			record := sendDirectory(t, directoryPlan(t, host))
			test.do(t, host, record.GuestPath)
			vm, at := banger.VM{ID: "0123456789ab", Spec: banger.VMSpec{Name: "devbox"}}, time.Now()
			kept, err := Saves{Dir: t.TempDir()}.Keep(t.Context(), local(nil), vm, record, at)
			if err != nil || (len(kept) > 0) != (test.kept != nil) {
				t.Fatalf("Keep() = %+v, %v", kept, err)
			}
			into := newRepo(t)
			for _, save := range kept {
				if save.Pending {
					t.Error("the save waits for a repository, and there is none")
				}
				if err := Restore(t.Context(), save, into); err != nil {
					t.Fatal(err)
				}
			}
			for name, want := range test.kept {
				if got := gitIn(t, into, "show", Namespace(vm, at)+"/"+name); got != want {
					t.Errorf("%s = %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestDirectoryRefuses(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", filepath.Join(home, "user"))
	writeFile(t, filepath.Join(home, "user/.ssh/id_ed25519"), "secret")
	writeFile(t, filepath.Join(home, "broken/.git"), "gitdir: /nowhere\n")
	for name, want := range map[string]error{"/": banger.ErrRefused, home: banger.ErrRefused, filepath.Join(home, "user"): banger.ErrRefused,
		filepath.Join(home, "user/.ssh/id_ed25519"): banger.ErrInvalid, filepath.Join(home, "missing"): banger.ErrNotFound, filepath.Join(home, "broken"): banger.ErrConflict} {
		if _, err := MakeDirectoryPlan(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("MakeDirectoryPlan(%s) = %v, want %v", name, err, want)
		}
	}
	dir := newRepo(t)
	commit(t, dir, "c")
	if _, err := plan(t, dir, Options{FullHistory: true}).AsFiles(); !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("AsFiles() with a history = %v", err)
	}
}

// A repository's files alone, those of a submodule too, and nothing of its .git; without permission to write if wanted.
func TestFullCopy(t *testing.T) {
	inner, host := newRepo(t), newRepo(t)
	writeFile(t, filepath.Join(inner, "in"), "in\n")
	commit(t, inner, "inner")
	writeFile(t, filepath.Join(host, "a"), "1\n")
	gitIn(t, host, "-c", "protocol.file.allow=always", "submodule", "add", "-q", inner, "mod")
	commit(t, host, "outer")
	writeFile(t, filepath.Join(host, "a"), "edited\n")
	writeFile(t, filepath.Join(host, "untracked"), "u\n")
	p, err := plan(t, host, Options{}).AsFiles()
	if err != nil {
		t.Fatal(err)
	}
	p.Readonly = true
	record := sendDirectory(t, p)
	if got, want := strings.Join(readTree(t, record.GuestPath), " "), ".gitmodules|| a||edited\n|0 mod/in||in\n|0"; strings.Replace(got, gitmodules(t, host), "", 1) != want {
		t.Errorf("files %q, want %q", got, want)
	}
	writable := 0
	filepath.Walk(record.GuestPath, func(_ string, info os.FileInfo, _ error) error {
		if info.Mode()&0o222 != 0 {
			writable++
		}
		return nil
	})
	if writable > 0 {
		t.Errorf("%d files and directories can be written", writable)
	}
	p = plan(t, host, Options{})
	p.Readonly = true
	s, err := p.Prepare(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	clone, err := s.Send(t.Context(), bringing(t), filepath.Join(t.TempDir(), "clone"), forgotten, nil)
	if err != nil || !clone.Readonly {
		t.Fatalf("%+v, %v", clone.Workspace, err)
	}
	for _, name := range []string{"a", ".git/index", ".git/HEAD", "mod/in", "mod/.git/index", "."} {
		if info, err := os.Stat(filepath.Join(clone.GuestPath, name)); err != nil || info.Mode()&0o222 != 0 {
			t.Errorf("%s of a readonly clone: %v, %v", name, info.Mode(), err)
		}
	}
	if got := gitIn(t, clone.GuestPath, "status", "--porcelain", "--ignore-submodules"); got != " M a\n" {
		t.Errorf("git status = %q", got)
	}
}

func gitmodules(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, ".gitmodules"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + "|0"
}
