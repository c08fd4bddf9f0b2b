package tree_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
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
	plain := lines(t, asGNU(withoutSockets(tree.FromDir(dir))))
	xattrs := []string{"--xattrs", "--xattrs-include=*"}
	for _, format := range []struct {
		args []string
		want []string
	}{
		{append([]string{"--format=pax"}, xattrs...), want},
		{append([]string{"--format=pax", "-S"}, xattrs...), want},
		{append([]string{"--format=pax", "-S", "--sparse-version=0.1"}, xattrs...), want},
		{append([]string{"--format=pax", "-S", "--sparse-version=0.0"}, xattrs...), want},
		{[]string{"--format=gnu", "-V", "label"}, plain},
		{[]string{"--format=gnu", "-S"}, plain},
	} {
		t.Run(strings.Join(format.args, " "), func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "x.tar")
			testenv.Run(t, "tar", append(format.args, "--sort=name", "-C", dir, "-cf", file, ".")...)
			got := withoutSockets(tree.FromTar(open(t, file), tree.Limits{}))
			if format.args[0] == "--format=gnu" {
				got = asGNU(got)
			}
			compare(t, format.want, lines(t, got))
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

// asGNU leaves out what GNU tar's own format has no field for.
func asGNU(src tree.Source) tree.Source {
	return tree.Filter(src, func(e *tree.Entry) bool {
		e.ModTime, e.Xattrs = e.ModTime.Truncate(time.Second), nil
		return true
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
		for _, size := range []int64{1 << 20, 0} {
			if err := f.Truncate(size); err != nil {
				t.Fatal(err)
			}
			if _, err := holes.ReadAt(make([]byte, 10), 32<<20); !errors.Is(err, banger.ErrConflict) || !strings.Contains(err.Error(), "sparse") {
				t.Errorf("reading at an offset a file that shrank: %v", err)
			}
			if _, _, err := holes.NextData(32 << 20); !errors.Is(err, banger.ErrConflict) {
				t.Errorf("the holes of a file that shrank: %v", err)
			}
			if _, err := io.Copy(io.Discard, e.Content); !errors.Is(err, banger.ErrConflict) {
				t.Errorf("reading a file that shrank: %v", err)
			}
		}
	}
}

func TestFilesThatGrowAreReadAsFound(t *testing.T) {
	for _, hole := range []int64{0, 1 << 20} {
		dir := t.TempDir()
		f, err := os.Create(filepath.Join(dir, "log"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := writeAt(f, "0123456789", hole); err != nil {
			t.Fatal(err)
		}
		for e, err := range tree.FromDir(dir) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Kind != tree.File {
				continue
			}
			if err := writeAt(f, strings.Repeat("more", 1000), hole+10); err != nil {
				t.Fatal(err)
			}
			at, buffer := e.Content.(tree.HoleReader), make([]byte, 8)
			if start, end, err := at.NextData(hole + 3); start != hole+3 || end != hole+10 || err != nil {
				t.Errorf("data from %d to %d: %v", start, end, err)
			}
			if n, err := at.ReadAt(buffer, hole+6); string(buffer[:n]) != "6789" || err != io.EOF {
				t.Errorf("at the end: %q, %v", buffer[:n], err)
			}
			if n, err := at.ReadAt(buffer, hole+2); string(buffer[:n]) != "23456789" || err != nil && err != io.EOF {
				t.Errorf("just up to the end: %q, %v", buffer[:n], err)
			}
			if b, err := io.ReadAll(e.Content); string(b[hole:]) != "0123456789" || err != nil {
				t.Errorf("all: %q, %v", b[hole:], err)
			}
		}
	}
}

// A name may stand for something else each time it is looked at: nothing outside is read, and nothing waits.
func TestNamesThatChangeMeanwhile(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		name, other := filepath.Join(dir, "name"), filepath.Join(dir, "other")
		for i := 0; ; i++ {
			var err error
			switch i % 4 {
			case 0:
				err = os.WriteFile(other, []byte("file"), 0o600)
			case 1:
				err = os.Symlink(outside, other)
			case 2:
				err = unix.Mkfifo(other, 0o600)
			case 3:
				err = os.WriteFile(other, nil, 0o600)
			}
			if err = errors.Join(err, os.Rename(other, name)); err != nil {
				t.Error(err)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	seen := map[tree.Kind]int{}
	for round := 0; round < 3000 || len(seen) < 3; round++ {
		for e, err := range tree.FromDir(dir) {
			if err != nil {
				if !errors.Is(err, banger.ErrConflict) {
					t.Error(err)
				}
				continue
			}
			if e.Path == "." {
				continue
			}
			seen[e.Kind]++
			if e.Content == nil {
				continue
			}
			if b, err := io.ReadAll(e.Content); string(b) != "file" && err == nil {
				t.Errorf("read %q", b)
			}
		}
	}
	close(stop)
	<-ended
	for _, kind := range []tree.Kind{tree.File, tree.Symlink, tree.FIFO} {
		if seen[kind] == 0 {
			t.Errorf("never saw kind %d: %v", kind, seen)
		}
	}
}

func TestEveryKindKeepsItsAttributes(t *testing.T) {
	if os.Getuid() != 0 {
		testenv.Skip(t, "root")
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.WriteFile(at("victim"), nil, 0o600), os.Symlink("victim", at("symlink")), unix.Mkfifo(at("fifo"), 0o600),
		unix.Mknod(at("socket"), unix.S_IFSOCK|0o600, 0), unix.Mknod(at("device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))), os.Mkdir(at("dir"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"symlink", "fifo", "socket", "device", "dir"} {
		if err := unix.Lsetxattr(at(name), "trusted.name", []byte(name), 0); err != nil {
			t.Fatal(err)
		}
	}
	for e, err := range tree.FromDir(dir) {
		if err != nil {
			t.Fatal(err)
		}
		want := e.Path
		if want == "." || want == "victim" {
			want = ""
		}
		if got := string(e.Xattrs["trusted.name"]); got != want {
			t.Errorf("%s has %q", e.Path, got)
		}
	}
}

// A reader that wants no more ends the walk, and no file stays open.
func TestWalksCloseWhatTheyOpen(t *testing.T) {
	dir := t.TempDir()
	testenv.SampleTree(t, dir)
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := open()
	for stop := range 50 {
		seen := 0
		for range tree.FromDir(dir) {
			if seen++; seen > stop {
				break
			}
		}
	}
	if after := open(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func writeAt(f *os.File, s string, off int64) error {
	_, err := f.WriteAt([]byte(s), off)
	return err
}

func TestLayersTellWhatTheyRemove(t *testing.T) {
	var buffer bytes.Buffer
	err := tree.WriteTar(&buffer, tree.Of(tree.Literal("a/.wh.b", 0, nil), tree.Literal("a/.wh..wh..opq", 0, nil), tree.Literal("a/.wh..wh.aufs", 0, nil), tree.Literal(".wh..wh.plnk/1.2", 0, nil),
		tree.Literal(".wh..wh..opq", 0, nil), tree.Literal("a/c", 0o644, []byte("c"))))
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
	want := []string{fmt.Sprint(tree.Layer, " ."), fmt.Sprint(tree.Delete, " a/b"), fmt.Sprint(tree.Opaque, " a"), fmt.Sprint(tree.Opaque, " ."), fmt.Sprint(tree.File, " a/c")}
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
		{"cut between entries", buffer.Bytes()[:512+10_240], tree.Limits{}, banger.ErrCorrupt},
		{"nothing", nil, tree.Limits{}, banger.ErrCorrupt},
	} {
		err := drain(tree.FromTar(bytes.NewReader(test.stream), test.limits))
		if !errors.Is(err, test.kind) {
			t.Errorf("%s: %v, want %v", test.name, err, test.kind)
		}
	}
	if err := drain(tree.FromTar(bytes.NewReader(buffer.Bytes()[:buffer.Len()-512]), tree.Limits{})); err != nil {
		t.Errorf("with a lone zero block, which GNU tar takes: %v", err)
	}
	fault := errors.New("a fault of the host")
	for _, at := range []int{0, 100, 3000, 512 + 10_240} {
		err := drain(tree.FromTar(io.MultiReader(bytes.NewReader(buffer.Bytes()[:at]), iotest.ErrReader(fault)), tree.Limits{}))
		if !errors.Is(err, fault) || errors.Is(err, banger.ErrCorrupt) {
			t.Errorf("a fault of what is read from, after %d bytes: %v", at, err)
		}
	}
	if got := lines(t, tree.FromTar(&buffer, tree.Limits{})); len(got) != 2 || !strings.HasPrefix(got[1], "two ") {
		t.Errorf("got %q", got)
	}
}

// A cut is seen behind a file that ends in zeros too, which are no end mark.
func TestEveryCutIsSeen(t *testing.T) {
	var buffer bytes.Buffer
	err := tree.WriteTar(&buffer, tree.Of(tree.Literal("zeros", 0o644, make([]byte, 2048)), tree.Literal("padded", 0o644, make([]byte, 700)), tree.Literal("last", 0o644, []byte("x"))))
	if err != nil {
		t.Fatal(err)
	}
	whole := buffer.Len()
	for cut := 0; cut < whole-512; cut++ {
		if err := drain(tree.FromTar(bytes.NewReader(buffer.Bytes()[:cut]), tree.Limits{})); !errors.Is(err, banger.ErrCorrupt) {
			t.Fatalf("cut after %d of %d bytes: %v", cut, whole, err)
		}
	}
}

func TestBadEntriesAreNamed(t *testing.T) {
	long := strings.Repeat("n", 256)
	for _, test := range []struct {
		header tar.Header
		says   string
	}{
		{tar.Header{Name: long}, "256 bytes"},
		{tar.Header{Name: "d/" + long + "/f"}, "256 bytes"},
		{tar.Header{Name: strings.Repeat("d/", 33_000) + "f"}, "66001 bytes"},
		{tar.Header{Name: "../.."}, "root"},
		{tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: long}, "256 bytes"},
		{tar.Header{Name: "s", Typeflag: tar.TypeSymlink}, "symlink"},
		{tar.Header{Name: "s", Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("x", 4096)}, "symlink"},
		{tar.Header{Name: "o", Uid: 1<<32 - 1}, "owner"},
		{tar.Header{Name: "c", Typeflag: tar.TypeChar, Devmajor: 4096}, "device"},
		{tar.Header{Name: "c", Typeflag: tar.TypeBlock, Devminor: 1 << 20}, "device"},
		{tar.Header{Name: "t", Typeflag: 'M'}, "tar type 'M'"},
		{tar.Header{Name: "x", PAXRecords: map[string]string{"SCHILY.xattr.": "v"}}, "attribute"},
		{tar.Header{Name: "x", PAXRecords: map[string]string{"SCHILY.xattr." + long: "v"}}, "attribute"},
		{tar.Header{Name: "d/.wh."}, "white-out"},
		{tar.Header{Name: "d/.wh..."}, "white-out"},
	} {
		var buffer bytes.Buffer
		w := tar.NewWriter(&buffer)
		if err := errors.Join(w.WriteHeader(&test.header), w.Close()); err != nil {
			t.Fatal(err)
		}
		err := drain(tree.FromLayer(&buffer, tree.Limits{}))
		if !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), fmt.Sprintf("entry %.200q", test.header.Name)) || len(err.Error()) > 600 {
			t.Errorf("%.40q: %v, want ErrInvalid with the name and %q", test.header.Name, err, test.says)
		}
	}
}

// A stream of nothing but what is skipped has a limit too.
func TestSkippedHeadersCount(t *testing.T) {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for range 20 {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := drain(tree.FromTar(bytes.NewReader(buffer.Bytes()), tree.Limits{Entries: 10})); !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
	if err := drain(tree.FromTar(&buffer, tree.Limits{Entries: 20})); err != nil {
		t.Error(err)
	}
}

func TestWriteTarIsDeterministic(t *testing.T) {
	dir := t.TempDir()
	testenv.SampleTree(t, dir)
	var first, second bytes.Buffer
	for _, b := range []*bytes.Buffer{&first, &second} {
		// Reading changes the times of access.
		src := tree.Filter(tree.FromDir(dir), func(e *tree.Entry) bool { e.AccessTime = time.Time{}; return true })
		if err := tree.WriteTar(b, src); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two streams of one tree differ")
	}
	for _, kind := range []tree.Kind{tree.Delete, tree.Opaque, tree.Layer} {
		if err := tree.WriteTar(io.Discard, tree.Of(tree.Entry{Path: "x", Kind: kind})); !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("kind %d: %v, want ErrInvalid", kind, err)
		}
	}
}

func TestModeMask(t *testing.T) {
	src := tree.WithModeMask(tree.Of(tree.Directory("d", 0o2775), tree.Literal("f", 0o4666, nil), tree.Entry{Path: "s", Kind: tree.Symlink, Link: "f", Mode: 0o777}), 0o755)
	var got []string
	for e := range src {
		got = append(got, fmt.Sprintf("%s %o", e.Path, e.Mode))
	}
	if diff := cmp.Diff([]string{"d 755", "f 644", "s 777"}, got); diff != "" {
		t.Error(diff)
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
