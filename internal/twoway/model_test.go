package twoway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"banger/internal/testenv"
)

// trees is a host's and a guest's directory whose every content is unique, and what has become of it.
type trees struct {
	t    *testing.T
	rng  *rand.Rand
	dir  map[string]string // by side
	base string
	n    int
	over map[string]bool // contents that somebody who saw them has written over or removed
	made []string
	log  []string

	touched        map[string]map[string]bool // by side: what an edit may have changed
	calls, crashAt int
	crashed        bool
	edits          float64 // probability of one between two steps
	now            time.Time
}

func newTrees(t *testing.T, seed uint64) *trees {
	w := &trees{t: t, rng: rand.New(rand.NewPCG(seed, 7)), dir: map[string]string{}, over: map[string]bool{}, touched: map[string]map[string]bool{HostSide: {}, GuestSide: {}}, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	root := quickDir(t)
	for _, side := range []string{HostSide, GuestSide} {
		w.dir[side] = filepath.Join(root, side)
		if err := os.Mkdir(w.dir[side], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.base = filepath.Join(root, "base")
	return w
}

// quickDir is a directory in memory if there is one: every step is synced, which takes most of the time on a disk.
func quickDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "twoway-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// contents gives what is in a tree: "x " and the content of an executable file, "f " of another one, "l " and the target of a link.
func (w *trees) contents(side string) map[string]string {
	all := w.everything(side)
	maps.DeleteFunc(all, func(name, _ string) bool { return isStaged(path.Base(name)) })
	return all
}

// everything is contents with what waits to be put in place.
func (w *trees) everything(side string) map[string]string {
	all := map[string]string{}
	err := filepath.WalkDir(w.dir[side], func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(w.dir[side], name)
		if d.Type() == fs.ModeSymlink {
			target, err := os.Readlink(name)
			all[rel] = "l " + target
			return err
		}
		text, err := os.ReadFile(name)
		info, statErr := d.Info()
		kind := "f "
		if statErr == nil && info.Mode()&0o100 != 0 {
			kind = "x "
		}
		all[rel] = kind + string(text)
		return errors.Join(err, statErr)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

func (w *trees) fresh() string {
	w.n++
	text := fmt.Sprintf("content %d%s.", w.n, strings.Repeat("-", w.rng.IntN(200)*w.rng.IntN(15)))
	w.made = append(w.made, text)
	return text
}

// supersede notes that somebody removes or writes over what is at a path and below it.
func (w *trees) supersede(side, at string) {
	for name, content := range w.everything(side) {
		if below(name, at) {
			w.over[content[2:]] = true
		}
	}
}

// edit is one thing that a person does to one side.
func (w *trees) edit() {
	side := []string{HostSide, GuestSide}[w.rng.IntN(2)]
	names := []string{"a", "b", "d", "d/a", "d/b", "d/e", "d/e/a"}
	for name := range w.contents(side) {
		if strings.Contains(name, ".conflict-") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	at := names[w.rng.IntN(len(names))]
	full := filepath.Join(w.dir[side], at)
	what := w.rng.IntN(10)
	w.log = append(w.log, fmt.Sprintf("%s: edit %d of %s as content %d", side, what, at, w.n+1))
	info, err := os.Lstat(full)
	w.touch(side, at)
	switch isDir := err == nil && info.IsDir(); {
	case what < 4 && (err != nil || !isDir): // written at once
		if os.MkdirAll(filepath.Dir(full), 0o755) == nil {
			w.supersede(side, at)
			text := w.fresh()
			w.must(os.WriteFile(full+".tmp", []byte(text), 0o644), os.Rename(full+".tmp", full))
		}
	case what < 6 && err == nil && info.Mode().IsRegular(): // in place
		w.supersede(side, at)
		w.must(os.WriteFile(full, []byte(w.fresh()), 0o644))
	case what < 7 && err == nil:
		w.supersede(side, at)
		w.must(os.RemoveAll(full))
	case what == 7 && err == nil && !isDir:
		if info.Mode().IsRegular() {
			w.must(os.Chmod(full, info.Mode().Perm()^0o111))
		}
	case what == 8 && err == nil:
		other := names[w.rng.IntN(len(names))]
		if _, taken := os.Lstat(filepath.Join(w.dir[side], other)); taken != nil && !below(other, at) && os.MkdirAll(filepath.Dir(filepath.Join(w.dir[side], other)), 0o755) == nil {
			w.must(os.Rename(full, filepath.Join(w.dir[side], other)))
			w.touch(side, other)
		}
	case what == 9 && err != nil:
		if os.MkdirAll(filepath.Dir(full), 0o755) == nil {
			w.must(os.Symlink(w.fresh(), full))
		}
	}
}

// untracked tells nothing: who edits notes what.
type untracked struct{}

func (untracked) add(int, string) error         { return nil }
func (untracked) bell() <-chan struct{}         { return nil }
func (untracked) take() ([]string, bool, error) { return nil, false, nil }
func (untracked) close()                        {}

// touch notes what inotify would tell: a name, and new directories above it.
func (w *trees) touch(side, at string) {
	for ; at != "."; at = path.Dir(at) {
		w.touched[side][at] = true
	}
}

func (w *trees) must(errs ...error) {
	if err := errors.Join(errs...); err != nil {
		w.t.Fatalf("%v\n%s", err, strings.Join(w.log, "\n"))
	}
}

// step happens between any two things that an engine does: a person edits, or the process ends.
func (w *trees) step(name string) error {
	if w.crashed {
		return errCrash
	}
	if w.calls++; w.calls == w.crashAt {
		w.log = append(w.log, "crash at "+name)
		w.crashed = true
		return errCrash
	}
	if w.rng.Float64() < w.edits {
		w.log = append(w.log, "at "+name)
		w.edit()
	}
	return nil
}

// stepped is a side with steps around what it does.
type stepped struct {
	Side
	w    *trees
	name string
}

func (s stepped) Take() ([]string, bool, error) {
	_, _, err := s.Side.Take()
	paths := slices.Sorted(maps.Keys(s.w.touched[s.name]))
	clear(s.w.touched[s.name])
	return paths, false, err
}

func (s stepped) Look(ctx context.Context, paths []string, blobs bool) (found []Found, err error) {
	if found, err = s.Side.Look(ctx, paths, blobs); err == nil {
		err = s.w.step("look")
	}
	return found, err
}

func (s stepped) Read(ctx context.Context, at string) (item Item, content io.ReadCloser, err error) {
	if err = s.w.step("read"); err == nil {
		item, content, err = s.Side.Read(ctx, at)
	}
	return item, content, err
}

func (s stepped) Write(ctx context.Context, put Put, item Item, content io.Reader) (r Result, err error) {
	if r, err = s.Side.Write(ctx, put, item, content); err == nil {
		err = s.w.step("write")
	}
	return r, err
}

func (s stepped) Remove(ctx context.Context, put Put) (r Result, err error) {
	if r, err = s.Side.Remove(ctx, put); err == nil {
		err = s.w.step("remove")
	}
	return r, err
}

// cutConn is cut after a number of bytes.
type cutConn struct {
	net.Conn
	left *atomic.Int64
}

func (c cutConn) pass(n int, err error) (int, error) {
	if c.left.Add(-int64(n)) < 0 {
		c.Conn.Close()
		return 0, io.ErrClosedPipe
	}
	return n, err
}

func (c cutConn) Read(p []byte) (int, error) { return c.pass(c.Conn.Read(p)) }

func (c cutConn) Write(p []byte) (int, error) {
	if left := c.left.Load(); int64(len(p)) > left {
		c.Conn.Write(p[:max(0, left)])
		return c.pass(len(p), nil)
	}
	return c.pass(c.Conn.Write(p))
}

// session is one watch, from its start to its end.
type session struct {
	*Engine
	host  *Local
	guest *Remote
	ended chan struct{}
	told  []Event
}

func (w *trees) begin(cut int64) *session {
	w.t.Helper()
	w.calls, w.crashed = 0, false
	s := &session{ended: make(chan struct{})}
	var err error
	if s.host, err = openLocal(w.dir[HostSide], HostSide, nil, untracked{}); err != nil {
		w.t.Fatal(err)
	}
	guest, err := openLocal(w.dir[GuestSide], GuestSide, nil, untracked{})
	if err != nil {
		w.t.Fatal(err)
	}
	s.host.step, guest.step = w.step, w.step
	near, far := net.Pipe()
	left := &atomic.Int64{}
	left.Store(cut)
	go func() {
		defer close(s.ended)
		defer guest.Close()
		defer far.Close()
		_ = Serve(far, bufio.NewReader(far), guest) // ends when the host does
	}()
	conn := cutConn{near, left}
	s.guest = NewRemote(conn, bufio.NewReader(conn))
	base, err := OpenBase(w.base, w.dir[HostSide], w.dir[GuestSide])
	if err != nil {
		w.t.Fatal(err)
	}
	s.Engine = NewEngine(Config{Host: stepped{s.host, w, HostSide}, Guest: stepped{s.guest, w, GuestSide}, Base: base, Deletions: true, Now: func() time.Time { return w.now },
		Excluded: excludeNone, Tell: func(e Event) { s.told = append(s.told, e); w.log = append(w.log, fmt.Sprint(e)) }})
	return s
}

func excludeNone(_ context.Context, paths []string) (map[string]bool, error) {
	excluded := map[string]bool{}
	for _, at := range paths {
		if base := path.Base(at); base == ".git" || base == "ignored" {
			excluded[at] = true
		}
	}
	return excluded, nil
}

// end ends a session; a crash loses what was not saved, and cuts a line off.
func (w *trees) end(s *session) {
	if w.crashed {
		s.Base.file.WriteString(`{"p":"YQ==","s":{"k":1,"s":7,`)
	}
	w.must(s.Base.Close())
	s.guest.Close()
	<-s.ended
	w.must(s.host.Close())
}

// TestModel edits both sides at random while an engine works, is cut off and crashes; in the end both are alike, and nothing is lost that
// nobody has seen and written over.
func TestModel(t *testing.T) {
	runs := 120
	if testenv.Tier() == "soak" {
		runs = 20_000
	}
	for seed := range uint64(runs) {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, seed) }) {
			return
		}
	}
}

func runModel(t *testing.T, seed uint64) {
	w := newTrees(t, seed)
	for range 6 {
		for range w.rng.IntN(6) {
			w.edit()
		}
		w.edits, w.crashAt = w.rng.Float64()*0.3, 0
		cut := int64(1 << 40)
		switch w.rng.IntN(3) {
		case 0:
			cut = w.rng.Int64N(20_000)
		case 1:
			w.crashAt = 1 + w.rng.IntN(30)
		}
		s := w.begin(cut)
		for range 1 + w.rng.IntN(4) {
			s.all = w.rng.IntN(2) == 0
			_, err := s.Round(t.Context())
			w.log = append(w.log, fmt.Sprint("round: ", err))
			if w.crashed || err != nil {
				break
			}
			w.edit()
		}
		w.end(s)
		w.now = w.now.Add(time.Duration(w.rng.IntN(2)) * time.Second)
	}
	w.edits, w.crashAt = 0, 0
	s := w.begin(1 << 40)
	defer w.end(s)
	for unfinished, rounds := true, 0; unfinished; rounds++ {
		if rounds > 30 {
			t.Fatalf("it does not end\n%s", strings.Join(w.log, "\n"))
		}
		var err error
		s.all = true
		if unfinished, err = s.Round(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, strings.Join(w.log, "\n"))
		}
	}
	w.check()
}

// check compares both sides, and looks for what must not be lost.
func (w *trees) check() {
	w.t.Helper()
	host, guest := w.contents(HostSide), w.contents(GuestSide)
	if !maps.Equal(host, guest) {
		w.t.Errorf("host %.2000q\nguest %.2000q", host, guest)
	}
	there := map[string]bool{}
	for _, content := range host {
		there[content[2:]] = true
	}
	for _, text := range w.made {
		if !there[text] && !w.over[text] {
			w.t.Errorf("%.12q is lost", text)
		}
	}
	if w.t.Failed() {
		w.t.Logf("%s", strings.Join(w.log, "\n"))
	}
}
