package twoway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/testenv"
)

// live is an engine that runs, told by inotify on both sides.
type live struct {
	*trees
	events chan Event
	guest  *Local
	ended  chan error
}

func startLive(t *testing.T) *live {
	l := &live{trees: newTrees(t, 1), events: make(chan Event, 10_000), ended: make(chan error, 1)}
	host, err := OpenLocal(l.dir[HostSide], HostSide, nil)
	if err != nil {
		t.Fatal(err)
	}
	if l.guest, err = OpenLocal(l.dir[GuestSide], GuestSide, nil); err != nil {
		t.Fatal(err)
	}
	base, err := OpenBase(l.base, "/host", "/guest")
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(far, bufio.NewReader(far), l.guest) }()
	remote := NewRemote(near, bufio.NewReader(near))
	engine := NewEngine(Config{Host: host, Guest: remote, Base: base, Excluded: excludeNone, Tell: func(e Event) { l.events <- e }, Deletions: true})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { l.ended <- engine.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		remote.Close()
		<-served
		far.Close()
		l.guest.Close()
		host.Close()
		base.Close()
	})
	l.await(Ready, "")
	return l
}

func (l *live) await(event, at string) {
	l.t.Helper()
	for patience := time.After(time.Minute); ; {
		select {
		case e := <-l.events:
			if e.Event == event && e.Path == at {
				return
			}
		case err := <-l.ended:
			l.t.Fatalf("it ended before %s %s: %v", event, at, err)
		case <-patience:
			l.t.Fatalf("no %s %s", event, at)
		}
	}
}

func TestRunIsToldOfChanges(t *testing.T) {
	l := startLive(t)
	put := func(side, at string) {
		full := filepath.Join(l.dir[side], at)
		l.must(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(side+at), 0o644))
	}
	put(HostSide, "a/b/c/d") // directories and what is in them at once
	l.await(Written, "a/b/c/d")
	put(GuestSide, "a/b/c/e") // in one that came
	l.await(Written, "a/b/c/e")
	l.must(os.Rename(filepath.Join(l.dir[GuestSide], "a/b"), filepath.Join(l.dir[GuestSide], "moved")))
	l.await(Written, "moved/c/e")
	put(GuestSide, "moved/c/f") // in one that has moved
	l.await(Written, "moved/c/f")
	l.must(os.Mkdir(filepath.Join(l.dir[HostSide], "n"), 0o755), os.Rename(filepath.Join(l.dir[HostSide], "moved"), filepath.Join(l.dir[HostSide], "n/m")))
	l.await(Written, "n/m/c/f")
	put(HostSide, "n/m/c/g")
	l.await(Written, "n/m/c/g")
	l.must(os.RemoveAll(filepath.Join(l.dir[HostSide], "n")))
	l.await(Removed, "n/m/c/d")
	put(HostSide, "n/m/c/g") // in one that came back
	l.await(Written, "n/m/c/g")

	// What gets lost on the way is found when the kernel says that something did.
	w := l.guest.watch.(*watcher)
	w.mu.Lock()
	for wd := range w.dirs {
		_, _ = unix.InotifyRmWatch(w.fd, uint32(wd))
		delete(w.dirs, wd)
	}
	put(GuestSide, "unseen")
	w.event(-1, unix.IN_Q_OVERFLOW, "")
	w.mu.Unlock()
	l.await(Written, "unseen")
	put(GuestSide, "seen")
	l.await(Written, "seen")

	l.must(os.Rename(l.dir[HostSide], l.dir[HostSide]+".away"))
	if err := <-l.ended; !errors.Is(err, banger.ErrConflict) {
		t.Errorf("after the directory has moved away Run = %v, want ErrConflict", err)
	}
}

// A directory that goes while it is listed is empty.
func TestListOfWhatGoes(t *testing.T) {
	p := newPair(t)
	for range 20 {
		p.put(HostSide, "d/e/f", "text")
		removed := make(chan error, 1)
		go func() { removed <- os.RemoveAll(filepath.Join(p.dir[HostSide], "d")) }()
		for done := false; !done; {
			if _, err := p.host.List(t.Context(), []string{".", "d", "d/e"}); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-removed:
				p.must(err)
				done = true
			default:
			}
		}
	}
}

// A file that a program has open for writing is not removed: it stays until that is over.
func TestOpenFilesAreNotRemoved(t *testing.T) {
	p := newPair(t)
	p.put(HostSide, "log", "one\n")
	p.sync()
	f, err := os.OpenFile(filepath.Join(p.dir[GuestSide], "log"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	p.drop(HostSide, "log")
	p.wantTold(p.sync())
	p.want(GuestSide, "log f one\n")
	p.must(f.Close())
	p.wantTold(p.sync(), "removed log host")
}

func TestManyChangesAreARescan(t *testing.T) {
	c := newChanges()
	for i := range maxDirty + 1 {
		c.mark(fmt.Sprint(i))
	}
	if paths, all, err := c.take(); len(paths) != 0 || !all || err != nil {
		t.Errorf("take = %d paths, %v, %v", len(paths), all, err)
	}
	c.mark("a")
	if paths, all, _ := c.take(); len(paths) != 1 || all {
		t.Errorf("take = %q, %v", paths, all)
	}
}

const limitedDir = "TWOWAY_LIMITED_DIR"

// The limits are those of a user namespace, in which this test runs again.
func TestInotifyLimits(t *testing.T) {
	if dir := os.Getenv(limitedDir); dir != "" {
		var texts []string
		for name, value := range map[string]string{"max_inotify_watches": "2", "max_inotify_instances": "0"} {
			if err := os.WriteFile("/proc/sys/user/"+name, []byte(value), 0); err != nil {
				fmt.Println("no limits here:", err)
				return
			}
			l, err := OpenLocal(dir, GuestSide, nil)
			if err == nil {
				_, err = l.List(t.Context(), []string{".", "a", "b"})
			}
			texts = append(texts, fmt.Sprint(err, banger.HintOf(err), errors.Is(err, banger.ErrUnavailable)))
			if err := os.WriteFile("/proc/sys/user/"+name, []byte("1000"), 0); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Println(strings.Join(texts, "\n"))
		return
	}
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestInotifyLimits$", "-test.v")
	cmd.Env = append(os.Environ(), limitedDir+"="+dir)
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "no limits here") {
		t.Logf("%v %s", err, out)
		testenv.Skip(t, "user namespaces")
	}
	for _, want := range []string{"fs.inotify.max_user_watches=", "fs.inotify.max_user_instances=", "the guest's kernel is reached"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
}

// TestSwappedDirectories has a directory and a file change places with symbolic links to what is outside, all the time, on each side in turn:
// nothing outside is written, removed, or read.
func TestSwappedDirectories(t *testing.T) {
	for _, side := range []string{HostSide, GuestSide} {
		t.Run(side, func(t *testing.T) {
			p := newPair(t)
			outside := filepath.Join(filepath.Dir(p.dir[side]), "outside")
			p.must(os.Mkdir(outside, 0o755), os.WriteFile(filepath.Join(outside, "f"), []byte("secret"), 0o600))
			stop, stopped := atomic.Bool{}, make(chan struct{})
			go func() {
				defer close(stopped)
				at := func(name string) string { return filepath.Join(p.dir[side], name) }
				for n := 0; !stop.Load(); n++ { // what has the name "ignored" is not kept alike; what the other side has removed is made again
					_ = os.Symlink(outside, at("ignored"))
					_ = os.Symlink(filepath.Join(outside, "f"), at("e/ignored"))
					for _, dir := range []string{"d", "e"} {
						if os.Mkdir(at(dir), 0o755) == nil {
							_ = os.WriteFile(at(dir+"/f"), fmt.Append(nil, "made ", n), 0o644)
						}
					}
					_ = unix.Renameat2(unix.AT_FDCWD, at("d"), unix.AT_FDCWD, at("ignored"), unix.RENAME_EXCHANGE)
					_ = unix.Renameat2(unix.AT_FDCWD, at("e/f"), unix.AT_FDCWD, at("e/ignored"), unix.RENAME_EXCHANGE)
				}
			}()
			other := otherSide(side)
			for i := range 120 {
				for _, at := range []string{"d/f", "e/f"} {
					full := filepath.Join(p.dir[other], at)
					if dir, err := os.Lstat(filepath.Dir(full)); err == nil && !dir.IsDir() {
						p.must(os.Remove(filepath.Dir(full))) // the link has come: what is below it would be outside
					}
					if _, err := os.Lstat(full); err == nil {
						p.must(os.Remove(full))
					}
					if i%3 > 0 {
						p.put(other, at, fmt.Sprint("edit ", i))
					}
				}
				p.all = true
				if _, err := p.Round(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			stop.Store(true)
			<-stopped
			list, err := os.ReadDir(outside)
			text, readErr := os.ReadFile(filepath.Join(outside, "f"))
			if err != nil || readErr != nil || len(list) != 1 || string(text) != "secret" {
				t.Errorf("outside: %v, %q, %v %v", list, text, err, readErr)
			}
			for at, content := range p.contents(other) {
				if strings.Contains(content, "secret") {
					t.Errorf("%s has %q", at, content)
				}
			}
		})
	}
}

const killedDir = "TWOWAY_KILLED_DIR"

// What a process that was killed had begun to write is removed at the next listing, and what a living one writes stays.
func TestKilledWriter(t *testing.T) {
	put := Put{Path: "f", Keep: "kept"}
	if dir := os.Getenv(killedDir); dir != "" {
		l, err := OpenLocal(dir, HostSide, nil)
		if err == nil {
			_, err = l.Write(t.Context(), put, Item{Kind: File, Mode: 0o644}, os.Stdin)
		}
		t.Fatal("not killed: ", err)
	}
	dir := t.TempDir()
	l, err := OpenLocal(dir, HostSide, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	names := func() (names []string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledWriter$")
	cmd.Env = append(os.Environ(), killedDir+"="+dir)
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	testenv.WaitFor(t, time.Minute, "the file that is written", func() bool { return len(names()) == 1 })
	list := func() {
		t.Helper()
		if children, err := l.List(t.Context(), []string{"."}); err != nil || len(children) != 0 {
			t.Errorf("List = %v, %v", children, err)
		}
	}
	list()
	if got := names(); len(got) != 1 || !strings.HasPrefix(got[0], stagingNew) {
		t.Errorf("beside one who writes: %q", got)
	}
	err = errors.Join(cmd.Process.Kill(), os.Symlink("target", filepath.Join(dir, stagingNew+"LINK")), os.Mkdir(filepath.Join(dir, stagingNew+"dir"), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	list()
	if got := names(); len(got) != 1 || got[0] != stagingNew+"dir" {
		t.Errorf("after its end: %q", got)
	}
}
