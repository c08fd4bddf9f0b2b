package transfer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/tree"
)

// before makes a directory that changes are tried on, with a file beside it.
func before(t *testing.T) string {
	t.Helper()
	parent := t.TempDir()
	dir := filepath.Join(parent, "repo")
	for name, text := range map[string]string{"kept": "kept", "old": "old", "sub/gone": "gone", "sub/deep/gone": "gone", "becomes-dir": "file", "becomes-file/a": "a", "../beside": "beside"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "becomes-file/empty/deep"), 0o755), os.Mkdir(filepath.Join(dir, "aside"), 0o700)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// look gives the step of a path as it is now.
func look(t *testing.T, dir, name string, remove bool) Step {
	t.Helper()
	d, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	node, err := nodeAt(d.root, name)
	if err != nil {
		t.Fatal(err)
	}
	return Step{Path: []byte(name), Was: node, Remove: remove}
}

// change is one that has every kind of step.
func change(t *testing.T, dir string) ([]Step, tree.Source) {
	t.Helper()
	var steps []Step
	for name, remove := range map[string]bool{"old": false, "sub/gone": true, "sub/deep/gone": true, "becomes-dir": true, "becomes-dir/x": false, "becomes-file/a": true,
		"becomes-file": false, "new/deep/file": false, "new/link": false, "missing": true} {
		steps = append(steps, look(t, dir, name, remove))
	}
	dirMode := tree.Directory("new", 0o750)
	return steps, tree.Of(tree.Literal("old", 0o755, []byte("new")), tree.Directory("becomes-dir", 0o755), tree.Literal("becomes-dir/x", 0o644, []byte("x")),
		tree.Literal("becomes-file", 0o644, []byte("file")), dirMode, tree.Literal("unsaid", 0o644, []byte("u")), tree.Directory("hollow/deep", 0o755), tree.Directory("sub", 0o700), tree.Directory("new/deep", 0o755), tree.Literal("new/deep/file", 0o644, []byte(strings.Repeat("text", 1000))),
		tree.Entry{Path: "new/link", Kind: tree.Symlink, Mode: 0o777, Link: "deep/file"})
}

func TestChange(t *testing.T) {
	for _, aside := range []string{"", "aside"} {
		dir := before(t)
		steps, src := change(t, dir)
		if err := os.MkdirAll(filepath.Join(dir, aside, ChangeStaging, "left", "over"), 0o700); err != nil { // by a machine that ended
			t.Fatal(err)
		}
		if _, err := AskChange(t.Context(), guest(t)(), Change{Path: []byte(dir), Aside: []byte(aside)}, steps, src); err != nil {
			t.Fatal(err)
		}
		want := []string{"d .", "d aside", "d becomes-dir", "- becomes-dir/x x", "- becomes-file file", "d hollow", "d hollow/deep", "- kept kept", "d new", "d new/deep",
			"- new/deep/file " + strings.Repeat("text", 1000), "l new/link deep/file", "x old new", "d sub", "- unsaid u"}
		if got := shape(t, dir); !slices.Equal(got, want) {
			t.Errorf("aside %q:\n%q\nwant\n%q", aside, got, want)
		}
		if info, err := os.Stat(filepath.Join(dir, "new")); err != nil || info.Mode().Perm() != 0o750 {
			t.Errorf("mode of a new directory: %v, %v", info.Mode(), err)
		}
	}
}

// shape lists what is in a directory: kind, path, content.
func shape(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, entry os.DirEntry, err error) error {
		at, _ := filepath.Rel(dir, name)
		info, infoErr := entry.Info()
		switch {
		case err != nil || infoErr != nil:
			return errors.Join(err, infoErr)
		case entry.IsDir():
			list = append(list, "d "+at)
		case entry.Type() == os.ModeSymlink:
			text, _ := os.Readlink(name)
			list = append(list, "l "+at+" "+text)
		case !info.Mode().IsRegular():
			list = append(list, "? "+at)
		case info.Mode()&0o100 != 0:
			text, _ := os.ReadFile(name)
			list = append(list, "x "+at+" "+string(text))
		default:
			text, _ := os.ReadFile(name)
			list = append(list, "- "+at+" "+string(text))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// What is not as it was, or in the way, keeps all of a change out.
func TestChangeRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(dir string) error
		want error
	}{
		{"edited", func(dir string) error { return os.WriteFile(filepath.Join(dir, "old"), []byte("edited"), 0o644) }, banger.ErrConflict},
		{"mode", func(dir string) error { return os.Chmod(filepath.Join(dir, "old"), 0o600) }, banger.ErrConflict},
		{"touched", func(dir string) error {
			return os.Chtimes(filepath.Join(dir, "sub/gone"), time.Time{}, time.Unix(9, 9))
		}, banger.ErrConflict},
		{"gone already", func(dir string) error { return os.Remove(filepath.Join(dir, "sub/gone")) }, banger.ErrConflict},
		{"there by now", func(dir string) error { return os.WriteFile(filepath.Join(dir, "new"), nil, 0o644) }, banger.ErrConflict},
		{"there without a step", func(dir string) error { return os.WriteFile(filepath.Join(dir, "unsaid"), nil, 0o644) }, banger.ErrConflict},
		{"a link above", func(dir string) error { return os.Symlink("..", filepath.Join(dir, "new")) }, banger.ErrConflict},
		{"a file in a directory that is to become one", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "becomes-file/empty/deep/mine"), nil, 0o644)
		}, banger.ErrConflict},
		{"a FIFO", func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "new"), 0o755), unix.Mkfifo(filepath.Join(dir, "new/link"), 0o644))
		}, banger.ErrConflict},
	} {
		dir := before(t)
		steps, src := change(t, dir)
		if err := c.do(dir); err != nil {
			t.Fatal(err)
		}
		was := shape(t, filepath.Dir(dir))
		if _, err := AskChange(t.Context(), guest(t)(), Change{Path: []byte(dir)}, steps, src); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if now := shape(t, filepath.Dir(dir)); !slices.Equal(now, was) {
			t.Errorf("%s: it changed to\n%q", c.name, now)
		}
	}
}

func TestChangeRefusesBadSteps(t *testing.T) {
	dir := before(t)
	file := tree.Of(tree.Literal("kept", 0o644, nil))
	was := shape(t, filepath.Dir(dir))
	for name, steps := range map[string][]Step{
		"up":          {{Path: []byte("../beside"), Remove: true}},
		"root":        {{Path: []byte(".")}},
		"twice":       {look(t, dir, "kept", false), look(t, dir, "kept", true)},
		"a directory": {look(t, dir, "sub", true), look(t, dir, "kept", false)},
	} {
		if _, err := AskChange(t.Context(), guest(t)(), Change{Path: []byte(dir)}, steps, file); !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if now := shape(t, filepath.Dir(dir)); !slices.Equal(now, was) {
		t.Errorf("it changed to\n%q", now)
	}
}

// TestChangeOneAtATime begins a change while another has not ended.
func TestChangeOneAtATime(t *testing.T) {
	dir := before(t)
	dial := guest(t)
	first, begun, goOn := make(chan error), make(chan bool), make(chan bool)
	go func() {
		_, err := AskChange(context.Background(), dial(), Change{Path: []byte(dir)}, []Step{{Path: []byte("a")}}, func(yield func(tree.Entry, error) bool) {
			if yield( // more than the connection holds: the other side has begun
				tree.Entry{Path: "a", Kind: tree.File, Mode: 0o644, Size: 2 << 20, Content: io.LimitReader(noisy{}, 2<<20)}, nil) {
				begun <- true
				<-goOn
			}
		})
		first <- err
	}()
	<-begun
	if _, err := AskChange(t.Context(), dial(), Change{Path: []byte(dir)}, nil, tree.Of()); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("the second one: %v, want ErrConflict", err)
	}
	goOn <- true
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// noisy gives bytes that are not zero.
type noisy struct{}

func (noisy) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i) | 1
	}
	return len(p), nil
}

// TestChangeCutOff cuts the connection after each number of bytes: all of the change is there, or nothing of it.
func TestChangeCutOff(t *testing.T) {
	var whole bytes.Buffer
	record := func(dir string) {
		steps, src := change(t, dir)
		whole.Reset()
		if err := errors.Join(writeLine(&whole, Request{Change: &Change{Path: []byte(dir)}}), sendSteps(&whole, steps), send(&whole, src, nil)); err != nil {
			t.Fatal(err)
		}
	}
	dir := before(t)
	record(dir)
	was := shape(t, filepath.Dir(dir))
	step := max(1, whole.Len()/400)
	for cut := 0; ; cut = min(cut+step, whole.Len()) {
		host, agent := net.Pipe()
		done := make(chan bool)
		server := Server{Owner: func() (Owner, error) { return Owner{uint32(os.Getuid()), uint32(os.Getgid())}, nil }}
		go func() { server.Serve(agent); close(done) }()
		go io.Copy(io.Discard, host)
		host.Write(whole.Bytes()[:cut])
		if cut == whole.Len() {
			<-done
			break
		}
		host.Close()
		<-done
		if now := shape(t, filepath.Dir(dir)); !slices.Equal(now, was) {
			t.Fatalf("cut after %d of %d bytes:\n%q\nwant\n%q", cut, whole.Len(), now, was)
		}
	}
	if now := shape(t, dir); slices.Equal(now, was) || !slices.Contains(now, "x old new") {
		t.Errorf("whole, it left\n%q", now)
	}
}

// Whatever is sent as a change, nothing outside of the directory is touched.
func FuzzChange(f *testing.F) {
	var good bytes.Buffer
	steps := []Step{{Path: []byte("a")}, {Path: []byte("old"), Remove: true}, {Path: []byte("x/b")}}
	src := tree.Of(tree.Literal("a", 0o644, []byte("text")), tree.Directory("x", 0o755), tree.Entry{Path: "x/b", Kind: tree.Symlink, Link: "../.."})
	if err := errors.Join(sendSteps(&good, steps), send(&good, src, nil)); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes(), uint32(0), byte(0), uint32(0), byte(0))
	f.Add(good.Bytes(), uint32(16), byte('/'), uint32(300), byte('.'))
	f.Fuzz(func(t *testing.T, stream []byte, at1 uint32, b1 byte, at2 uint32, b2 byte) {
		if stream = bytes.Clone(stream); len(stream) > 0 {
			stream[int(at1)%len(stream)] ^= b1
			stream[int(at2)%len(stream)] ^= b2
		}
		parent := t.TempDir()
		dir := filepath.Join(parent, "dir")
		if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(parent, "beside"), []byte("beside"), 0o600), os.Symlink("..", filepath.Join(dir, "up"))); err != nil {
			t.Fatal(err)
		}
		server := Server{Owner: func() (Owner, error) { return Owner{uint32(os.Getuid()), uint32(os.Getgid())}, nil }}
		err := server.change(io.Discard, bufio.NewReader(bytes.NewReader(stream)), Change{Path: []byte(dir)})
		list, listErr := os.ReadDir(dir)
		if listErr != nil || err != nil && len(list) != 1 {
			t.Errorf("after %v: %v, %v", err, list, listErr)
		}
		if list, err := os.ReadDir(parent); err != nil || len(list) != 2 {
			t.Errorf("beside: %v, %v", list, err)
		}
		if text, err := os.ReadFile(filepath.Join(parent, "beside")); err != nil || string(text) != "beside" {
			t.Errorf("beside: %q, %v", text, err)
		}
	})
}
