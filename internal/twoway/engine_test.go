package twoway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// pair is a session of which every round looks at everything.
type pair struct {
	*trees
	*session
}

func newPair(t *testing.T) *pair {
	w := newTrees(t, 1)
	p := &pair{w, w.begin(1 << 40)}
	t.Cleanup(func() { w.end(p.session) })
	return p
}

func (p *pair) put(side, at, text string) {
	p.t.Helper()
	full := filepath.Join(p.dir[side], at)
	p.must(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(text), 0o644))
}

func (p *pair) drop(side, at string) { p.must(os.RemoveAll(filepath.Join(p.dir[side], at))) }

// sync does rounds until nothing is left to do, and gives what was told: "event path from".
func (p *pair) sync() []string {
	p.t.Helper()
	p.told = nil
	for range 10 {
		p.all = true
		unfinished, err := p.Round(p.t.Context())
		if err != nil {
			p.t.Fatal(err)
		}
		if !unfinished {
			break
		}
	}
	var told []string
	for _, e := range p.told {
		told = append(told, strings.TrimSpace(fmt.Sprint(e.Event, " ", e.Path, " ", e.From)))
	}
	return told
}

func (p *pair) want(side string, files ...string) {
	p.t.Helper()
	var got []string
	for at, content := range p.contents(side) {
		got = append(got, at+" "+content)
	}
	slices.Sort(got)
	if !slices.Equal(got, files) {
		p.t.Errorf("%s has %.1000q\nwant %.1000q", side, got, files)
	}
}

func (p *pair) wantBoth(files ...string) {
	p.t.Helper()
	p.want(HostSide, files...)
	p.want(GuestSide, files...)
}

func (p *pair) wantTold(got []string, want ...string) {
	p.t.Helper()
	if !slices.Equal(got, want) {
		p.t.Errorf("told %q, want %q", got, want)
	}
}

func TestChangesTravel(t *testing.T) {
	p := newPair(t)
	p.put(HostSide, "src/a", "one")
	p.put(GuestSide, "b", "two")
	p.must(os.Symlink("../outside", filepath.Join(p.dir[GuestSide], "link")))
	p.wantTold(p.sync(), "written b guest", "written link guest", "written src/a host")
	p.wantBoth("b f two", "link l ../outside", "src/a f one")

	p.put(GuestSide, "src/a", "edited there")
	p.must(os.Chmod(filepath.Join(p.dir[HostSide], "b"), 0o755))
	p.drop(HostSide, "link")
	p.wantTold(p.sync(), "removed link host", "written b host", "written src/a guest")
	p.wantBoth("b x two", "src/a f edited there")

	p.drop(GuestSide, "src")
	p.put(GuestSide, "src", "a file now")
	p.drop(HostSide, "b")
	p.put(HostSide, "b/in/it", "a directory now")
	p.sync()
	p.wantBoth("b/in/it f a directory now", "src f a file now")
	p.drop(GuestSide, "b")
	p.sync()
	if _, err := os.Lstat(filepath.Join(p.dir[HostSide], "b")); err == nil {
		t.Error("an empty directory is left")
	}
}

func TestBothChanged(t *testing.T) {
	p := newPair(t)
	for _, at := range []string{"a", "b", "c", "d", "same"} {
		p.put(HostSide, at, "first")
	}
	p.sync()
	p.put(HostSide, "a", "here")
	p.put(GuestSide, "a", "there")
	p.put(HostSide, "b", "edited")
	p.drop(GuestSide, "b")
	p.drop(HostSide, "c")
	p.put(GuestSide, "c", "edited")
	p.put(HostSide, "d", "a file")
	p.drop(GuestSide, "d")
	p.put(GuestSide, "d/x", "in a directory")
	p.put(HostSide, "same", "alike")
	p.put(GuestSide, "same", "alike")
	const at = ".conflict-guest-20260102T030405Z"
	const here = ".conflict-host-20260102T030405Z"
	got := p.sync()
	p.wantBoth("a f here", "a"+at+" f there", "b f edited", "c f edited", "d"+here+" f a file", "d/x f in a directory", "same f alike")
	for _, want := range []string{"conflict a host", "revived b host", "revived c guest", "conflict d guest"} {
		if !slices.Contains(got, want) {
			t.Errorf("nobody was told %q: %q", want, got)
		}
	}
	p.put(HostSide, "a", "here again")
	p.put(GuestSide, "a", "there again")
	p.sync()
	p.wantBoth("a f here again", "a"+at+" f there", "a"+at+"-2 f there again", "b f edited", "c f edited", "d"+here+" f a file", "d/x f in a directory", "same f alike")
}

func TestSentFilesAreTheFirstBase(t *testing.T) {
	p := newPair(t)
	const sent = "5626abf0f72e58d7a153368ba57db4c673c0e171" // git hash-object of "one\n"
	p.Sent = map[string]Sent{}
	for _, at := range []string{"here", "there", "both", "gone-here", "gone-there", "same"} {
		p.Sent[at] = Sent{Blob: sent}
		if at != "gone-here" {
			p.put(HostSide, at, "one\n")
		}
		if at != "gone-there" {
			p.put(GuestSide, at, "one\n")
		}
	}
	p.put(HostSide, "here", "edited\n")
	p.put(GuestSide, "there", "edited\n")
	p.put(HostSide, "both", "edited here\n")
	p.put(GuestSide, "both", "edited there\n")
	p.put(HostSide, "new", "new\n")
	p.wantTold(p.sync(), "removed gone-there guest", "removed gone-here host", "conflict both host", "written here host", "written new host", "written there guest", "written both.conflict-guest-20260102T030405Z guest")
	p.put(HostSide, "gone-here", "one\n") // it is new now, although that was sent once
	p.wantTold(p.sync(), "written gone-here host")
}

func TestHeldBack(t *testing.T) {
	for at, want := range map[string]bool{".envrc": true, "sub/.envrc": true, ".vscode/tasks.json": true, "a/.VSCode": true, ".gitignore": true, "x.code-workspace": true, ".github/workflows/ci.yml": false,
		"Makefile": false, "envrc": false, ".envrc.conflict-guest-20260102T030405Z": false} {
		if got := Held(at); got != want {
			t.Errorf("Held(%s) = %v", at, got)
		}
	}
	p := newPair(t)
	p.put(HostSide, ".gitignore", "ignored\n")
	p.put(HostSide, "ignored", "secret")
	p.put(GuestSide, ".envrc", "evil")
	p.put(GuestSide, "a", "a")
	p.wantTold(p.sync(), "held .envrc guest", "written .gitignore host", "written a guest")
	p.want(HostSide, ".gitignore f ignored\n", "a f a", "ignored f secret")
	p.put(GuestSide, ".gitignore", "")
	p.wantTold(p.sync(), "held .gitignore guest")
	p.drop(GuestSide, ".gitignore")
	p.put(GuestSide, ".gitignore/x", "a directory")
	p.wantTold(p.sync(), "held .gitignore guest", "held .gitignore/x guest")
	p.put(HostSide, ".gitignore", "ignored\nmore\n") // an edit here does not let the guest push the file aside
	p.wantTold(p.sync(), "left_out .gitignore")
	p.want(HostSide, ".gitignore f ignored\nmore\n", "a f a", "ignored f secret")
	p.want(GuestSide, ".envrc f evil", ".gitignore/x f a directory", "a f a")

	seen, err := p.host.Look(t.Context(), []string{"a"}, false)
	if err != nil {
		t.Fatal(err)
	}
	p.Accept(".envrc", seen[0].State) // as it is not
	p.wantTold(p.sync())
	seen, err = p.guest.Look(t.Context(), []string{".envrc"}, false)
	if err != nil {
		t.Fatal(err)
	}
	p.Accept(".envrc", seen[0].State)
	p.wantTold(p.sync(), "written .envrc guest")
	p.put(GuestSide, ".envrc", "more evil")
	p.wantTold(p.sync(), "held .envrc guest")
	p.Config.Accept = []string{".envrc"}
	p.wantTold(p.sync(), "written .envrc guest")
	p.put(GuestSide, ".envrc", "theirs")
	p.put(HostSide, ".envrc", "ours")
	p.Config.Accept = nil
	p.sync()
	p.want(HostSide, ".envrc f ours", ".envrc.conflict-guest-20260102T030405Z f theirs", ".gitignore f ignored\nmore\n", "a f a", "ignored f secret")
}

func TestLeftAlone(t *testing.T) {
	p := newPair(t)
	p.put(HostSide, "ignored", "here")
	p.put(GuestSide, "ignored", "there")
	p.put(GuestSide, ".git/hooks/post-commit", "evil")
	p.put(GuestSide, "nested/.git/config", "evil")
	p.put(GuestSide, "nested/file", "file")
	p.put(HostSide, "nested/mine", "mine")
	p.must(unix.Mkfifo(filepath.Join(p.dir[GuestSide], "fifo"), 0o644))
	p.must(os.Truncate(p.dir[GuestSide]+"/"+func() string { p.put(GuestSide, "large", ""); return "large" }(), MaxSize+1))
	p.put(HostSide, "big-here", "")
	p.must(os.Truncate(filepath.Join(p.dir[HostSide], "big-here"), MaxSize+1))
	p.put(GuestSide, ".banger-watch-out-x", "not ours")
	p.wantTold(p.sync(), "left_out nested", "left_out big-here", "left_out fifo", "left_out large")
	if err := os.Remove(filepath.Join(p.dir[HostSide], "big-here")); err != nil {
		t.Fatal(err)
	}
	p.want(HostSide, "ignored f here", "nested/mine f mine")
	p.wantTold(p.sync())
}

func TestMostFilesDoNotGo(t *testing.T) {
	p := newPair(t)
	p.Deletions = false
	for i := range 30 {
		p.put(HostSide, fmt.Sprintf("d%d/f%d", i%3, i), "text")
	}
	p.sync()
	lose := func(from, to int) {
		for i := from; i < to; i++ {
			p.drop(GuestSide, fmt.Sprintf("d%d/f%d", i%3, i))
		}
	}
	lose(0, 12)
	p.sync()
	if n := len(p.contents(HostSide)); n != 18 {
		t.Errorf("%d files, want 18", n)
	}
	lose(12, 20) // together they are most, although one after the other
	p.all = true
	if _, err := p.Round(t.Context()); !errors.Is(err, banger.ErrRefused) || banger.HintOf(err) == "" {
		t.Errorf("Round = %v, want ErrRefused", err)
	}
	if n := len(p.contents(HostSide)); n != 18 {
		t.Errorf("%d files, want 18", n)
	}
	p.now = p.now.Add(time.Minute)
	p.sync()
	if n := len(p.contents(HostSide)); n != 10 {
		t.Errorf("%d files, want 10", n)
	}
	p.drop(HostSide, "d0")
	p.drop(HostSide, "d1")
	p.drop(HostSide, "d2")
	p.sync() // few may always go
	p.wantBoth()
}

// What is in a file that somebody still writes is not thrown away: what comes later is in it.
func TestOpenFilesAreKept(t *testing.T) {
	p := newPair(t)
	p.put(HostSide, "log", "one\n")
	p.sync()
	f, err := os.OpenFile(filepath.Join(p.dir[GuestSide], "log"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p.put(HostSide, "log", "edited\n")
	p.sync()
	if _, err := f.WriteString("late\n"); err != nil {
		t.Fatal(err)
	}
	p.sync()
	p.wantBoth("log f edited\n", "log.conflict-guest-20260102T030405Z f one\nlate\n")
}

func TestModes(t *testing.T) {
	p := newPair(t)
	mode := func(side, at string) os.FileMode {
		info, err := os.Lstat(filepath.Join(p.dir[side], at))
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode()
	}
	for at, m := range map[string]os.FileMode{"private": 0o600, "open": 0o666, "run": 0o775, "suid": 0o755 | os.ModeSetuid} {
		p.put(GuestSide, at, "text")
		p.must(os.Chmod(filepath.Join(p.dir[GuestSide], at), m))
	}
	p.sync()
	for at, want := range map[string]os.FileMode{"private": 0o600, "open": 0o644, "run": 0o755, "suid": 0o755} {
		if got := mode(HostSide, at); got != want {
			t.Errorf("%s has mode %v here, want %v", at, got, want)
		}
	}
	p.must(os.Chmod(filepath.Join(p.dir[HostSide], "open"), 0o660), os.Chmod(filepath.Join(p.dir[GuestSide], "open"), 0o777))
	p.put(GuestSide, "private", "edited")
	p.sync()
	if got := mode(HostSide, "open"); got != 0o770 {
		t.Errorf("open has mode %v here, want its own with x", got)
	}
	if got := mode(HostSide, "private"); got != 0o600 {
		t.Errorf("private has mode %v here", got)
	}
}

// A file that can't be written is told, and the rest goes on.
func TestPathErrors(t *testing.T) {
	p := newPair(t)
	p.put(GuestSide, "a", "a")
	p.put(GuestSide, "b", "b")
	p.Host = refusing{p.Host}
	p.wantTold(p.sync(), "left_out a", "written b guest")
	p.wantTold(p.sync())
}

type refusing struct{ Side }

func (r refusing) Write(ctx context.Context, put Put, item Item, content io.Reader) (Result, error) {
	if put.Path == "a" {
		return Result{}, pathError(unix.EACCES)
	}
	return r.Side.Write(ctx, put, item, content)
}

func TestLongNames(t *testing.T) {
	p := newPair(t)
	long := strings.Repeat("é", 127)
	p.put(HostSide, long, "one")
	p.sync()
	p.put(HostSide, long, "here")
	p.put(GuestSide, long, "there")
	p.sync()
	host := p.contents(HostSide)
	if len(host) != 2 || host[long] != "f here" {
		t.Errorf("host has %q", host)
	}
	p.check()
}

func TestBase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "base")
	open := func(host string) *Base {
		t.Helper()
		b, err := OpenBase(path, host, "/guest")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := open("/host")
	if !b.New() {
		t.Error("it is not new")
	}
	if _, err := OpenBase(path, "/host", "/guest"); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("a second OpenBase = %v, want ErrConflict", err)
	}
	want := State{Kind: File, Exec: true, Size: 7, Sum: Sum{1, 2, 3}}
	b.agree("a\xff\n", want)
	b.agree("gone", State{Kind: Link})
	b.agree("gone", State{})
	if err := b.save(); err != nil {
		t.Fatal(err)
	}
	b.agree("unsaved", want)
	b.Close()
	for _, torn := range []string{`{"p":"Yg==","s":{"k":1`, "{}\x00\n", "\n"} {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			_, err = f.WriteString(torn)
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		b = open("/host")
		if len(b.states) != 2 || b.states["a\xff\n"] != want || b.complete {
			t.Errorf("after %q: %v, %v", torn, b.states, b.complete)
		}
		b.Close()
	}
	b = open("/host")
	b.completed()
	if err := b.save(); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if b = open("/host"); len(b.states) != 1 || !b.complete {
		t.Errorf("%v, %v", b.states, b.complete)
	}
	b.Close()
	if b = open("/elsewhere"); len(b.states) != 0 || b.complete {
		t.Errorf("of another directory: %v, %v", b.states, b.complete)
	}
	b.Close()
	for text, want := range map[string]error{"x\n": banger.ErrCorrupt, `{"version":9}` + "\n": banger.ErrUnsupported} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenBase(path, "/host", "/guest"); !errors.Is(err, want) {
			t.Errorf("OpenBase of %q = %v, want %v", text, err, want)
		}
	}
}
