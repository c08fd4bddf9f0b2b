package filesync

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
)

// newHome gives a home with a few files, below a directory with a file that is not in it.
func newHome(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	home := filepath.Join(dir, "me")
	for name, content := range map[string]string{"../secret": "canary", "netrc": "n", "tree/a": "a", "tree/sub/b": "b", "dots/rc": "rc"} {
		path := filepath.Join(home, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, []byte(content), 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	return home
}

// describe gives a file of a guest in a line.
func describe(files []File) (lines []string) {
	for _, f := range files {
		kind := "file"
		if f.Dir {
			kind = "dir"
		}
		lines = append(lines, strings.TrimSpace(kind+" "+f.Guest+" "+octal(f.Mode)+" "+string(f.Content)))
	}
	return lines
}

func octal(mode uint32) string { return Mark(mode, nil)[:4] }

func TestCollect(t *testing.T) {
	home := newHome(t)
	links := map[string]string{"rc": "dots/rc", "absolute": filepath.Join(home, "dots/rc"), "tree/leaf": filepath.Join(home, "../secret"), "tree/inside": "a", "tree/dir": "/etc"}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join(home, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(home, "tree/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := Collect(home, []banger.FileSync{{Host: "~/netrc", Guest: "~/.config/x/netrc"}, {Host: "~/rc", Mode: "0400"}, {Host: filepath.Join(home, "absolute")},
		{Host: "~/tree", Guest: "/root/t"}, {Host: "~/missing"}, {Host: "~/netrc", Guest: "/root/t/a", Mode: "0444"}}, false)
	want := []string{"dir /root/t 0750", "file /root/t/a 0444 n", "dir /root/t/sub 0750", "file /root/t/sub/b 0640 b", "dir ~/.config 0700", "dir ~/.config/x 0700", "file ~/.config/x/netrc 0600 n",
		"file ~/absolute 0600 rc", "file ~/rc 0400 rc"}
	if lines := describe(got.Files); !slices.Equal(lines, want) {
		t.Errorf("collected\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	wantWarnings := []string{"~/tree/dir is left out: it is a symbolic link in a directory", "~/tree/fifo is left out: it is neither a file nor a directory",
		"~/tree/inside is left out: it is a symbolic link in a directory", "~/tree/leaf is left out: it is a symbolic link in a directory", "~/missing is not there: the VM gets none"}
	if !slices.Equal(got.Warnings, wantWarnings) || got.Failed != nil {
		t.Errorf("warnings %q, failed %v", got.Warnings, got.Failed)
	}
	entries, marks := OfRoot(got.Files)
	if len(entries) != 4 || len(marks) != 2 || marks["/root/t/a"] != Mark(0o444, []byte("n")) {
		t.Errorf("of root: %v, %v", entries, marks)
	}
	if got := Collect(home, []banger.FileSync{{Host: "~/netrc"}, {Host: "~/rc", Guest: "/root/netrc"}}, true); len(got.Files) != 1 || string(got.Files[0].Content) != "rc" || got.Files[0].Guest != "/root/netrc" {
		t.Errorf("as root: %+v", got)
	}
	var paths []string
	for e, err := range Source(got.Files) {
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, e.Path)
	}
	if paths[0] != "root/t" || paths[len(paths)-1] != "~/rc" {
		t.Errorf("paths to the agent: %q", paths)
	}
}

// Nothing that is not in the home, that is too much or that can't be read gets into a VM, and that is told by the entry's name.
func TestCollectRefuses(t *testing.T) {
	home := newHome(t)
	large, many := filepath.Join(home, "large"), filepath.Join(home, "many")
	err := errors.Join(os.WriteFile(large, nil, 0o600), os.Truncate(large, MaxFile+1), os.Mkdir(many, 0o700), os.Symlink("../secret", filepath.Join(home, "out")),
		os.Symlink("..", filepath.Join(home, "up")), os.Symlink(home, filepath.Join(home, "self")), syscall.Mkfifo(filepath.Join(home, "fifo"), 0o600), os.Mkdir(filepath.Join(home, "heavy"), 0o700))
	for i := range MaxFiles + 1 {
		err = errors.Join(err, os.WriteFile(filepath.Join(many, octal(uint32(i))), nil, 0o600))
	}
	for _, name := range []string{"1", "2", "3", "4", "5"} {
		name = filepath.Join(home, "heavy", name)
		err = errors.Join(err, os.WriteFile(name, nil, 0o600), os.Truncate(name, MaxFile))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		entry banger.FileSync
		kind  error
		say   string
	}{
		{banger.FileSync{Host: "~/out"}, banger.ErrRefused, "not in your home"},
		{banger.FileSync{Host: "~/up/secret"}, banger.ErrRefused, "not in your home"},
		{banger.FileSync{Host: "~/self"}, banger.ErrRefused, "not in your home"},
		{banger.FileSync{Host: "~/../secret"}, banger.ErrInvalid, "clean"},
		{banger.FileSync{Host: "~/large"}, banger.ErrInvalid, "more than 8 MiB"},
		{banger.FileSync{Host: "~/many"}, banger.ErrInvalid, "more than 2000 files"},
		{banger.FileSync{Host: "~/heavy"}, banger.ErrInvalid, "more than 32 MiB"},
		{banger.FileSync{Host: "~/fifo"}, banger.ErrInvalid, "no file and no directory"},
		{banger.FileSync{Host: "~/netrc", Guest: "~/first/x"}, banger.ErrInvalid, "a file and a directory"},
	} {
		got := Collect(home, []banger.FileSync{{Host: "~/netrc", Guest: "~/first"}, tc.entry, {Host: "~/tree/a", Guest: "~/last"}}, false)
		if len(got.Failed) != 1 || !errors.Is(got.Failed[0], tc.kind) || !strings.Contains(got.Failed[0].Error(), tc.say) || !strings.Contains(got.Failed[0].Error(), tc.entry.Host) {
			t.Errorf("%s: %v, want one %v with %q", tc.entry.Host, got.Failed, tc.kind, tc.say)
		}
		if lines := describe(got.Files); len(lines) != 2 {
			t.Errorf("%s: the others are %q", tc.entry.Host, lines)
		}
	}
	if got := Collect(filepath.Join(home, "nowhere"), []banger.FileSync{{Host: "~/x"}}, false); len(got.Failed) != 1 {
		t.Errorf("without a home: %+v", got)
	}
	if got := Collect(filepath.Join(home, "nowhere"), nil, false); got.Failed != nil {
		t.Errorf("without entries: %+v", got)
	}
}

// A home that is named by way of a symbolic link is the same home.
func TestCollectLinkedHome(t *testing.T) {
	home := newHome(t)
	link := filepath.Join(t.TempDir(), "home")
	if err := os.Symlink(home, link); err != nil {
		t.Fatal(err)
	}
	if got := Collect(link, []banger.FileSync{{Host: filepath.Join(link, "netrc")}}, false); len(got.Files) != 1 || got.Failed != nil {
		t.Errorf("%+v", got)
	}
}

// A link that takes a file's place, or a directory's, between the look at it and its opening is not followed.
func TestNoLinkIsOpened(t *testing.T) {
	home := newHome(t)
	if err := errors.Join(os.Symlink("../../secret", filepath.Join(home, "tree/leaf")), os.Symlink("dots", filepath.Join(home, "dir"))); err != nil {
		t.Fatal(err)
	}
	c := &collector{files: map[string]File{}}
	if err := c.open(home); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c.home)
	for _, rel := range []string{"tree/leaf", "dir", "dir/rc", "../secret", "/etc/hostname"} {
		w := &walk{collector: c, found: map[string]File{}}
		if err := w.at(rel, "~/x", 0); err == nil || len(w.found) > 0 {
			t.Errorf("%s was read: %v", rel, w.found)
		}
	}
}
