package guestagent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"banger/internal/transfer"
	"banger/internal/tree"
)

// syncHome is a guest's home, with what the agent remembers of it.
type syncHome struct {
	t          *testing.T
	dir, marks string
}

func newSyncHome(t *testing.T) *syncHome {
	dir := t.TempDir()
	return &syncHome{t, filepath.Join(dir, "home"), filepath.Join(dir, "marks")}
}

// sync brings files up to date as a new start does.
func (h *syncHome) sync(entries ...tree.Entry) transfer.Synced {
	h.t.Helper()
	if err := os.MkdirAll(h.dir, 0o755); err != nil {
		h.t.Fatal(err)
	}
	synced, err := (&syncer{marksFile: h.marks, tops: map[string]top{"~": {h.dir, uint32(os.Getuid()), uint32(os.Getgid())}}}).run(tree.Of(entries...))
	if err != nil {
		h.t.Fatal(err)
	}
	return synced
}

func file(name, content string) tree.Entry { return tree.Literal("~/"+name, 0o600, []byte(content)) }

func (h *syncHome) put(name, content string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.RemoveAll(path), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *syncHome) want(name, content string) {
	h.t.Helper()
	got, err := os.ReadFile(filepath.Join(h.dir, name))
	if err != nil || string(got) != content {
		h.t.Errorf("%s holds %q, %v, want %q", name, got, err, content)
	}
}

func (h *syncHome) names() []string {
	h.t.Helper()
	var names []string
	err := filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, strings.TrimPrefix(path, h.dir+"/"))
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return names
}

func TestSync(t *testing.T) {
	h := newSyncHome(t)
	if got := h.sync(file("a", "1"), file("dir/sub/b", "1")); got.Written != 2 || got.Left != nil || got.Kept != nil {
		t.Errorf("the first sync: %+v", got)
	}
	info, err := os.Stat(filepath.Join(h.dir, "dir/sub"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("a directory on the way: %v, %v", info, err)
	}
	if got := h.sync(file("a", "1"), file("dir/sub/b", "1")); got.Written != 0 {
		t.Errorf("nothing has changed: %+v", got)
	}
	h.put("dir/sub/b", "the guest's")
	if err := os.Remove(filepath.Join(h.dir, "a")); err != nil {
		t.Fatal(err)
	}
	if got := h.sync(file("a", "1"), file("dir/sub/b", "1")); got.Written != 0 {
		t.Errorf("only the guest has changed them: %+v", got)
	}
	h.want("dir/sub/b", "the guest's")
	got := h.sync(file("a", "2"), file("dir/sub/b", "2"))
	if got.Written != 2 || !slices.Equal(got.Kept, []transfer.SyncedFile{{Path: "~/dir/sub/b", Note: "b.banger-old"}}) {
		t.Errorf("both have changed: %+v", got)
	}
	h.want("a", "2")
	h.want("dir/sub/b", "2")
	h.want("dir/sub/b.banger-old", "the guest's")
	if got := h.sync(file("a", "3"), file("dir/sub/b", "3")); got.Written != 2 || got.Kept != nil {
		t.Errorf("only the host has changed them: %+v", got)
	}
	h.put("a", "the guest's")
	h.put("dir/sub/b", "the guest's second")
	h.sync(file("a", "4"), file("dir/sub/b", "4"))
	if got := h.names(); !slices.Equal(got, []string{"a", "a.banger-old", "dir/sub/b", "dir/sub/b.banger-old", "dir/sub/b.banger-old.2"}) {
		t.Errorf("there are %q", got)
	}
	h.want("dir/sub/b.banger-old", "the guest's")
	h.want("dir/sub/b.banger-old.2", "the guest's second")
	if err := os.WriteFile(h.marks, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := h.sync(file("a", "5")); len(got.Kept) != 1 {
		t.Errorf("without marks: %+v", got)
	}
	h.want("a.banger-old.2", "4")
}

// A mode that the guest gives is a change like another.
func TestSyncModes(t *testing.T) {
	h := newSyncHome(t)
	h.sync(file("a", "1"), tree.Directory("~/d", 0o750))
	for name, want := range map[string]fs.FileMode{"a": 0o600, "d": 0o750} {
		if info, err := os.Stat(filepath.Join(h.dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s is %v, %v, want %v", name, info, err, want)
		}
	}
	if err := errors.Join(os.Chmod(filepath.Join(h.dir, "a"), 0o400), os.Chmod(filepath.Join(h.dir, "d"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if got := h.sync(file("a", "1"), tree.Directory("~/d", 0o750)); got.Written != 0 {
		t.Errorf("the guest has changed modes: %+v", got)
	}
	other := file("a", "1")
	other.Mode = 0o644
	if got := h.sync(other); got.Written != 1 || len(got.Kept) != 1 {
		t.Errorf("both have changed the mode: %+v", got)
	}
}

// Links, FIFOs and directories of a guest lead nowhere.
func TestSyncHostile(t *testing.T) {
	h := newSyncHome(t)
	h.sync()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(os.Mkdir(outside, 0o755), os.WriteFile(filepath.Join(outside, "f"), []byte("canary"), 0o600)); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(os.Symlink(outside, filepath.Join(h.dir, "link")), os.Symlink(filepath.Join(outside, "f"), filepath.Join(h.dir, "leaf")),
		os.Symlink("/nowhere", filepath.Join(h.dir, "dangling")), syscall.Mkfifo(filepath.Join(h.dir, "fifo"), 0o600),
		os.Mkdir(filepath.Join(h.dir, "dir"), 0o755), os.WriteFile(filepath.Join(h.dir, "file"), nil, 0o600),
		os.Link(filepath.Join(outside, "f"), filepath.Join(h.dir, "hard")))
	if err != nil {
		t.Fatal(err)
	}
	got := h.sync(file("link/f", "x"), file("leaf", "x"), file("dangling", "x"), file("fifo", "x"), file("dir", "x"), file("file/below", "x"), file("hard", "x"),
		tree.Directory("~/link", 0o700), tree.Directory("~/file", 0o700), tree.Literal("~", 0o600, nil), tree.Literal("etc/passwd", 0o600, nil),
		tree.Entry{Path: "~/new", Kind: tree.Symlink, Link: outside})
	var left []string
	for _, f := range got.Left {
		left = append(left, f.Path)
		if f.Note == "" {
			t.Errorf("%s is left without a reason", f.Path)
		}
	}
	if want := []string{"~/link/f", "~/fifo", "~/dir", "~/file/below", "~/link", "~/file", "~", "etc/passwd", "~/new"}; !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside there are %v, %v", entries, err)
	}
	if text, err := os.ReadFile(filepath.Join(outside, "f")); err != nil || string(text) != "canary" {
		t.Errorf("the canary is %q, %v", text, err)
	}
	h.want("leaf", "x")
	h.want("hard", "x")
	h.want("hard.banger-old", "canary")
	if link, err := os.Readlink(filepath.Join(h.dir, "leaf.banger-old")); err != nil || link != filepath.Join(outside, "f") {
		t.Errorf("the guest's link is now %q, %v", link, err)
	}
}

// While directories and links are swapped below it, nothing is written outside.
func TestSyncSwapped(t *testing.T) {
	h := newSyncHome(t)
	h.sync()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(os.Mkdir(outside, 0o755), os.Symlink(outside, filepath.Join(h.dir, "link")), os.Mkdir(filepath.Join(h.dir, "real"), 0o755)); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for d := filepath.Join(h.dir, "d"); ; {
			for _, other := range []string{"link", "real"} {
				other = filepath.Join(h.dir, other)
				_ = os.Rename(other, d)
				_ = os.Rename(d, other)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	for i := range 50 {
		h.sync(file("d/f", fmt.Sprint(i)))
	}
	close(stop)
	<-stopped
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside there are %v, %v", entries, err)
	}
}

// Whatever host and guest change: what a guest wrote is there after a start, and what the host has changed is in place.
func TestSyncLosesNothing(t *testing.T) {
	for seed := range uint64(25) {
		rng := rand.New(rand.NewPCG(seed, 0))
		h := newSyncHome(t)
		h.sync()
		host, last := "", ""
		var written []string // by the guest, as far as it has not itself replaced or removed it
		for step := range 12 {
			switch rng.IntN(5) {
			case 0, 1:
				host = fmt.Sprint("host ", rng.IntN(4))
			case 2:
				if text := string(h.read("f")); slices.Contains(written, text) {
					written = slices.DeleteFunc(written, func(s string) bool { return s == text })
				}
				text := fmt.Sprint("guest ", step)
				h.put("f", text)
				written = append(written, text)
			case 3:
				text := string(h.read("f"))
				written = slices.DeleteFunc(written, func(s string) bool { return s == text })
				_ = os.RemoveAll(filepath.Join(h.dir, "f"))
			case 4:
				_ = os.Remove(h.marks)
				last = ""
			}
			if host == "" {
				continue
			}
			before := string(h.read("f"))
			h.sync(file("f", host))
			if host != last && string(h.read("f")) != host {
				t.Fatalf("seed %d step %d: the host's change to %q is not there: %q", seed, step, host, h.read("f"))
			}
			if host == last && string(h.read("f")) != before {
				t.Fatalf("seed %d step %d: %q became %q although the host has changed nothing", seed, step, before, h.read("f"))
			}
			last = host
			var all []string
			for _, name := range h.names() {
				all = append(all, string(h.read(name)))
			}
			for _, text := range written {
				if !slices.Contains(all, text) {
					t.Fatalf("seed %d step %d: the guest's %q is lost: there are %q", seed, step, text, all)
				}
			}
		}
	}
}

func (h *syncHome) read(name string) []byte {
	text, err := os.ReadFile(filepath.Join(h.dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.t.Fatal(err)
	}
	return bytes.Clone(text)
}
