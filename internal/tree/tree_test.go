package tree_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/testenv"
	"banger/internal/tree"
)

// lines describes a source, one line for an entry, without times of access and change.
func lines(t testing.TB, src tree.Source) (list []string) {
	t.Helper()
	for e, err := range src {
		if err != nil {
			t.Fatal(err)
		}
		content := ""
		if e.Content != nil {
			b, err := io.ReadAll(e.Content)
			if err != nil || int64(len(b)) != e.Size {
				t.Fatalf("%s: %d of %d bytes: %v", e.Path, len(b), e.Size, err)
			}
			content = fmt.Sprintf(" %d:%x", len(b), b[:min(len(b), 64)])
		}
		attrs := ""
		for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
			attrs += fmt.Sprintf(" %s=%x", name, e.Xattrs[name])
		}
		list = append(list, fmt.Sprintf("%s kind=%d %o %d:%d %d %q %d/%d%s%s", e.Path, e.Kind, e.Mode, e.UID, e.GID, e.ModTime.UnixNano(), e.Link, e.Major, e.Minor, attrs, content))
	}
	return list
}

func TestDirectoryIsWhatTheKernelSays(t *testing.T) {
	dir := t.TempDir()
	testenv.SampleTree(t, dir)
	var want, got []string
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		want = append(want, fmt.Sprintf("%s %o %d:%d %d", name, st.Mode&0o7777, st.Uid, st.Gid, st.Mtim.Nano()))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range tree.FromDir(dir) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == tree.HardLink {
			var a, b unix.Stat_t
			if err := errors.Join(unix.Lstat(filepath.Join(dir, e.Path), &a), unix.Lstat(filepath.Join(dir, e.Link), &b)); err != nil || a.Ino != b.Ino {
				t.Errorf("%s is no link to %s: %v", e.Path, e.Link, err)
			}
			e.Mode, e.UID, e.GID, e.ModTime = a.Mode&0o7777, a.Uid, a.Gid, time.Unix(a.Mtim.Unix())
		}
		got = append(got, fmt.Sprintf("%s %o %d:%d %d", e.Path, e.Mode, e.UID, e.GID, e.ModTime.UnixNano()))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What GNU tar packs is what the directory holds, whatever its format; and what WriteTar writes, GNU tar and FromTar read.
func TestTarIsWhatTheDirectoryHolds(t *testing.T) {
	testenv.RequireTool(t, "tar")
	dir := t.TempDir()
	testenv.SampleTree(t, dir)
	want := lines(t, withoutSockets(tree.FromDir(dir)))
	for _, format := range [][]string{{"--format=pax", "--xattrs", "--xattrs-include=*"}, {"--format=pax", "--xattrs", "--xattrs-include=*", "-S"}} {
		t.Run(strings.Join(format, " "), func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "x.tar")
			testenv.Run(t, "tar", append(format, "--sort=name", "-C", dir, "-cf", file, ".")...)
			compare(t, want, lines(t, withoutSockets(tree.FromTar(open(t, file), tree.Limits{}))))
		})
	}
	t.Run("own", func(t *testing.T) {
		var buffer bytes.Buffer
		if err := tree.WriteTar(&buffer, tree.FromDir(dir)); err != nil {
			t.Fatal(err)
		}
		compare(t, want, lines(t, withoutSockets(tree.FromTar(bytes.NewReader(buffer.Bytes()), tree.Limits{}))))
		list := exec.Command("tar", "-tf", "-")
		list.Stdin = &buffer
		if out, err := list.CombinedOutput(); err != nil {
			t.Errorf("GNU tar: %v\n%s", err, out)
		}
	})
}

// compare ignores the order, and what tar has no field for.
func compare(t *testing.T, want, got []string) {
	t.Helper()
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// withoutSockets also levels what differs between a link and its target, and the mode of symlinks.
func withoutSockets(src tree.Source) tree.Source {
	return tree.Filter(src, func(e *tree.Entry) bool {
		if e.Kind == tree.Symlink {
			e.Mode = 0o777
		}
		if e.Kind == tree.HardLink {
			*e = tree.Entry{Path: e.Path, Kind: e.Kind, Link: e.Link}
		}
		delete(e.Xattrs, "system.posix_acl_access")
		delete(e.Xattrs, "system.posix_acl_default")
		return e.Kind != tree.Socket
	})
}

func open(t testing.TB, name string) io.Reader {
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestDeepTreesHaveNoLimit(t *testing.T) {
	base := t.TempDir()
	name := strings.Repeat("d", 200)
	fd, err := unix.Open(base, unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	const depth = 50 // 10 KB: more than a path may have
	for range depth {
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY, 0)
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		fd = next
	}
	unix.Close(fd)
	if got := lines(t, tree.FromDir(base)); len(got) != depth+1 {
		t.Errorf("%d directories, want %d", len(got), depth+1)
	}
	testenv.Run(t, "rm", "-rf", filepath.Join(base, name))
}

func TestHolesAreKnown(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Truncate(64<<20), writeAt(f, "x", 32<<20)); err != nil {
		t.Fatal(err)
	}
	for e, err := range tree.FromDir(dir) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind != tree.File {
			continue
		}
		holes := e.Content.(tree.HoleReader)
		start, end, err := holes.NextData(0)
		if err != nil || start > 32<<20 || start == 0 || end <= 32<<20 || end == 64<<20 {
			t.Errorf("data from %d to %d: %v", start, end, err)
		}
		if _, _, err := holes.NextData(end); err != io.EOF {
			t.Errorf("after the last data: %v, want EOF", err)
		}
		if err := f.Truncate(1 << 20); err != nil {
			t.Fatal(err)
		}
		if _, err := holes.ReadAt(make([]byte, 10), 32<<20); !errors.Is(err, banger.ErrConflict) {
			t.Errorf("a file that shrank: %v", err)
		}
	}
}

func writeAt(f *os.File, s string, off int64) error {
	_, err := f.WriteAt([]byte(s), off)
	return err
}

func TestLayersTellWhatTheyRemove(t *testing.T) {
	var buffer bytes.Buffer
	err := tree.WriteTar(&buffer, tree.Of(tree.Literal("a/.wh.b", 0, nil), tree.Literal("a/.wh..wh..opq", 0, nil), tree.Literal("a/.wh..wh.plnk", 0, nil), tree.Literal("a/c", 0o644, []byte("c"))))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for e, err := range tree.FromLayer(&buffer, tree.Limits{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(e.Kind, " ", e.Path))
	}
	want := []string{fmt.Sprint(tree.Layer, " ."), fmt.Sprint(tree.Delete, " a/b"), fmt.Sprint(tree.Opaque, " a"), fmt.Sprint(tree.File, " a/c")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTarFaultsAreNamed(t *testing.T) {
	var buffer bytes.Buffer
	content := bytes.Repeat([]byte("x"), 10_000)
	if err := tree.WriteTar(&buffer, tree.Of(tree.Literal("one", 0o644, content), tree.Literal("../../two", 0o644, content))); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		stream []byte
		limits tree.Limits
		kind   error
	}{
		{"truncated in content", buffer.Bytes()[:3000], tree.Limits{}, banger.ErrCorrupt},
		{"truncated in a header", buffer.Bytes()[:100], tree.Limits{}, banger.ErrCorrupt},
		{"no tar", bytes.Repeat([]byte("no tar "), 1000), tree.Limits{}, banger.ErrCorrupt},
		{"too many", buffer.Bytes(), tree.Limits{Entries: 1}, banger.ErrInvalid},
		{"too much", buffer.Bytes(), tree.Limits{Bytes: 15_000}, banger.ErrInvalid},
	} {
		err := drain(tree.FromTar(bytes.NewReader(test.stream), test.limits))
		if !errors.Is(err, test.kind) {
			t.Errorf("%s: %v, want %v", test.name, err, test.kind)
		}
	}
	if got := lines(t, tree.FromTar(&buffer, tree.Limits{})); len(got) != 2 || !strings.HasPrefix(got[1], "two ") {
		t.Errorf("got %q", got)
	}
}

func drain(src tree.Source) error {
	for e, err := range src {
		if err != nil {
			return err
		}
		if e.Content != nil {
			if _, err := io.Copy(io.Discard, e.Content); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestCombining(t *testing.T) {
	src := tree.Concat(
		tree.Of(tree.Directory("a", 0o755)),
		tree.Under("a/b", tree.WithOwner(tree.Of(tree.Directory(".", 0o700), tree.Literal("f", 0o600, nil), tree.Entry{Path: "l", Kind: tree.HardLink, Link: "f"}), 7, 8)))
	var skipped []string
	src = tree.SkipSpecial(tree.Concat(src, tree.Of(tree.Entry{Path: "pipe", Kind: tree.FIFO})), func(p string) { skipped = append(skipped, p) })
	var got []string
	for e := range src {
		got = append(got, fmt.Sprint(e.Path, " ", e.UID, ":", e.GID, " ", e.Link))
	}
	if diff := cmp.Diff([]string{"a 0:0 ", "a/b 7:8 ", "a/b/f 7:8 ", "a/b/l 7:8 a/b/f"}, got); diff != "" {
		t.Error(diff)
	}
	if !slices.Equal(skipped, []string{"pipe"}) {
		t.Errorf("skipped %q", skipped)
	}
	fault := errors.New("fault")
	err := drain(tree.Concat(func(yield func(tree.Entry, error) bool) { yield(tree.Entry{}, fault) }, func(func(tree.Entry, error) bool) { t.Error("a source after the fault was read") }))
	if err != fault {
		t.Errorf("got %v", err)
	}
}

// Whatever a stream says, paths are clean and inside, and limits hold.
func FuzzFromTar(f *testing.F) {
	var buffer bytes.Buffer
	_ = tree.WriteTar(&buffer, tree.Of(tree.Directory("d", 0o755), tree.Literal("d/.wh.f", 0o644, []byte("content")), tree.Entry{Path: "l", Kind: tree.Symlink, Link: "/etc"},
		tree.Entry{Path: "x", Kind: tree.File, Xattrs: map[string][]byte{"user.a": {1}}}))
	f.Add(buffer.Bytes())
	f.Fuzz(func(t *testing.T, stream []byte) {
		limits := tree.Limits{Entries: 10, Bytes: 1 << 20}
		for _, src := range []tree.Source{tree.FromTar(bytes.NewReader(stream), limits), tree.FromLayer(bytes.NewReader(stream), limits)} {
			count, total := 0, int64(0)
			for e, err := range src {
				if err != nil {
					break
				}
				for _, p := range []string{e.Path, e.Link} {
					if p != "" && (p == e.Path || e.Kind == tree.HardLink) && (p != path.Clean(p) || path.IsAbs(p) || p == ".." || strings.HasPrefix(p, "../")) {
						t.Errorf("path %q", p)
					}
				}
				if e.Kind == tree.Layer {
					continue
				}
				if count, total = count+1, total+e.Size; count > limits.Entries || total > limits.Bytes || e.Size < 0 {
					t.Errorf("%d entries, %d bytes", count, total)
				}
			}
		}
	})
}
