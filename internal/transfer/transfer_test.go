package transfer

import (
	"archive/tar"
	"bufio"
	"bytes"
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
	"banger/internal/testenv"
	"banger/internal/tree"
)

// guest serves as an agent does and gives connections to it.
func guest(t *testing.T) func() Conn {
	t.Helper()
	server := Server{
		Owner: func() (Owner, error) { return Owner{uint32(os.Getuid()), uint32(os.Getgid())}, nil },
		Enter: func(uint64) bool { return false },
		BringUpToDate: func(src tree.Source) (Synced, error) {
			synced := Synced{}
			for e, err := range src {
				if err != nil {
					return synced, err
				}
				synced.Written++
				synced.Add(&synced.Left, e.Path, "because")
			}
			return synced, nil
		},
	}
	return func() Conn {
		ours, theirs := testenv.SocketPair(t)
		go server.Serve(theirs)
		return ours
	}
}

// bring copies into the guest, fetch out of it.
func bring(t *testing.T, conn Conn, from, to string, archive bool) (Report, error) {
	t.Helper()
	o, src, err := Local(from, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return Bring(t.Context(), conn, Put{Path: []byte(to), Origin: o, Archive: archive}, src)
}

func fetch(t *testing.T, conn Conn, from, to string, opts Options) (Report, error) {
	t.Helper()
	in, err := Ask(conn, Get{Path: []byte(from)})
	if err != nil {
		return Report{}, err
	}
	place, err := Resolve(to, in.Origin)
	if err != nil {
		return Report{}, err
	}
	return Write(t.Context(), place, in.Origin, in.Source(), opts)
}

// lines describes a tree as a copy has it.
func lines(t *testing.T, dir string, archive bool) []string {
	t.Helper()
	src := tree.SkipSpecial(tree.FromDir(dir), func(string) {})
	return testenv.TreeLines(t, tree.Filter(src, func(e *tree.Entry) bool {
		if !archive {
			e.UID, e.GID, e.Xattrs, e.Mode = 0, 0, nil, e.Mode&keptModes
		}
		e.AccessTime, e.ChangeTime = time.Time{}, time.Time{}
		return true
	}), true)
}

// Holes are neither read nor written, wherever they lie.
func TestHoles(t *testing.T) {
	for name, data := range map[string][]int64{"none": {}, "at the end": {0}, "at the start": {256 << 20}, "between": {0, 100 << 20, 256 << 20}} {
		dir := t.TempDir()
		file, err := os.Create(filepath.Join(dir, "file"))
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range data {
			if _, err := file.WriteAt([]byte("data"), off); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(file.Truncate(300<<20), file.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := fetch(t, guest(t)(), filepath.Join(dir, "file"), filepath.Join(dir, "copy"), Options{}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := onDisk(t, filepath.Join(dir, "copy")); n > 1<<20 {
			t.Errorf("%s: the copy takes %d bytes", name, n)
		}
		testenv.Run(t, "cmp", filepath.Join(dir, "file"), filepath.Join(dir, "copy"))
	}
}

// state describes a directory that nothing is to be changed in; a time of a directory changes when something comes and goes.
func state(t *testing.T, dir string) []string {
	t.Helper()
	return testenv.TreeLines(t, tree.FromDir(dir), false)
}

func TestBothWays(t *testing.T) {
	from := t.TempDir()
	testenv.SampleTree(t, from)
	for _, archive := range []bool{false, true} {
		dial, there, back := guest(t), t.TempDir(), t.TempDir()
		brought, err := bring(t, dial(), from, filepath.Join(there, "copy"), archive)
		if err != nil {
			t.Fatal(err)
		}
		testenv.SameLines(t, lines(t, filepath.Join(there, "copy"), archive), lines(t, from, archive))
		fetched, err := fetch(t, dial(), filepath.Join(there, "copy"), back, Options{Archive: archive})
		if err != nil {
			t.Fatal(err)
		}
		testenv.SameLines(t, lines(t, filepath.Join(back, "copy"), archive), lines(t, from, archive))
		if brought.Skipped != 3 || !slices.Contains(brought.Left, filepath.Base(from)+"/fifo") || fetched.Skipped != 0 || fetched.Entries != brought.Entries || fetched.Bytes != brought.Bytes {
			t.Errorf("reports %+v and %+v", brought, fetched)
		}
		if n := onDisk(t, filepath.Join(back, "copy/sparse")); n > 1<<20 {
			t.Errorf("a sparse file of 9 MiB takes %d bytes", n)
		}
	}
}

func onDisk(t *testing.T, name string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// world is a directory with things to copy from and onto.
func world(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"file": "new", "tree/a": "new a", "tree/sub/b": "new b", "old/file": "old", "old/tree/a": "old a", "old/tree/kept": "kept",
		"block/tree": "a file", "block2/tree/a/x": "a directory"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"link": "file", "dangling": "nowhere", "dirlink": "old", "old/linked": "file", "block3/tree": "../old", "through": "old/file"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Where a copy goes is decided as cp decides it.
func TestPlaces(t *testing.T) {
	for _, tc := range []struct {
		from, to string
		want     string // path and content after it, or "PATH -> LINK"
		err      error
	}{
		{"file", "copy", "copy=new", nil},
		{"file", "old", "old/file=new", nil},
		{"file", "old/", "old/file=new", nil},
		{"file", "dirlink", "old/file=new", nil},
		{"file", "old/other", "old/other=new", nil},
		{"file", "through", "old/file=new", nil}, // a link that the user names is followed
		{"file", "through", "through -> old/file", nil},
		{"file", "new/", "", banger.ErrNotFound},
		{"file", "new/file", "", banger.ErrNotFound},
		{"file", "dangling", "", banger.ErrConflict},
		{"file", "fifo", "", banger.ErrConflict},
		{"file", "file/x", "", banger.ErrConflict},
		{"file", "old/..", "file=new", nil},
		{"link", "copy", "copy -> file", nil},
		{"link", "old", "old/link -> file", nil},
		{"dangling", "copy", "copy -> nowhere", nil},
		{"tree", "copy", "copy/sub/b=new b", nil},
		{"tree/", "copy", "copy/sub/b=new b", nil},
		{"tree", "copy/", "copy/sub/b=new b", nil},
		{"tree/.", "copy", "copy/sub/b=new b", nil},
		{"tree", "old", "old/tree/sub/b=new b", nil},
		{"tree", "old", "old/tree/a=new a", nil},
		{"tree", "old", "old/tree/kept=kept", nil},
		{"tree/.", "old", "old/sub/b=new b", nil},
		{"tree/.", "old", "old/file=old", nil},
		{"dirlink/.", "copy", "copy/file=old", nil},
		{"dirlink", "copy", "copy -> old", nil},
		{"tree", "file", "", banger.ErrConflict},
		{"tree", "block", "", banger.ErrConflict},
		{"tree", "block2", "", banger.ErrConflict},
		{"tree", "block3", "", banger.ErrConflict}, // a link that the tree names is not followed
		{"fifo", "copy", "", banger.ErrUnsupported},
		{"nothing", "copy", "", banger.ErrNotFound},
	} {
		t.Run(tc.from+" to "+tc.to, func(t *testing.T) {
			dir := world(t)
			before := state(t, dir)
			_, err := fetch(t, guest(t)(), join(dir, tc.from), join(dir, tc.to), Options{})
			if !errors.Is(err, tc.err) {
				t.Fatalf("%v, want %v", err, tc.err)
			}
			if tc.err != nil {
				testenv.SameLines(t, state(t, dir), before)
				return
			}
			noStaging(t, dir)
			if name, link, ok := strings.Cut(tc.want, " -> "); ok {
				if got, err := os.Readlink(filepath.Join(dir, name)); err != nil || got != link {
					t.Errorf("%s -> %q, %v, want %q", name, got, err, link)
				}
				return
			}
			name, text, _ := strings.Cut(tc.want, "=")
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != text {
				t.Errorf("%s = %q, %v, want %q", name, got, err, text)
			}
		})
	}
}

// join keeps what filepath.Join takes away: "/." and a slash at the end.
func join(dir, name string) string { return dir + "/" + name }

func noStaging(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if strings.Contains(path, stagingPrefix) {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A conflict deep in a tree shows before anything of it has moved.
func TestConflictChangesNothing(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for _, name := range []string{"a", "b", "z/deep"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(from, name), 0o755), os.WriteFile(filepath.Join(from, name, "f"), []byte("new"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(to, "z/deep/f"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := state(t, to)
	if _, err := fetch(t, guest(t)(), from+"/.", to, Options{}); !errors.Is(err, banger.ErrConflict) || !strings.Contains(err.Error(), `z/deep/f`) {
		t.Errorf("%v, want a conflict that names the file", err)
	}
	testenv.SameLines(t, state(t, to), before)
}

// A directory that another file system is mounted on gets its part by a copy.
func TestAcrossMounts(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	mounted, _ := testenv.Mount(t, testenv.Mke2fs(t, 64<<20))
	if err := os.Mkdir(filepath.Join(to, "mnt"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(mounted, filepath.Join(to, "mnt"), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(filepath.Join(to, "mnt"), 0) })
	testenv.SampleTree(t, filepath.Join(from))
	if err := os.Rename(from, from+"x"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(from, 0o755), os.Rename(from+"x", from+"/mnt"), os.WriteFile(from+"/beside", nil, 0o644), os.RemoveAll(from+"/mnt/sub/many")); err != nil {
		t.Fatal(err)
	}
	if _, err := bring(t, guest(t)(), from+"/.", to, true); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(to, "mnt/lost+found")); err != nil {
		t.Fatal(err)
	}
	noStaging(t, to)
	// The directory itself keeps its own mode and time.
	self := func(line string) bool { return strings.HasPrefix(line, ". ") }
	testenv.SameLines(t, slices.DeleteFunc(lines(t, to+"/mnt", true), self), slices.DeleteFunc(lines(t, from+"/mnt", true), self))
}

// A full disk is told as one, and nothing is left on it.
func TestNoSpace(t *testing.T) {
	to, _ := testenv.Mount(t, testenv.Mke2fs(t, 4<<20, "-O", "^has_journal"))
	from := t.TempDir()
	if err := os.WriteFile(filepath.Join(from, "small"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "large"), bytes.Repeat([]byte("x"), 8<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	before := state(t, to)
	dial := guest(t)
	_, brought := bring(t, dial(), from, to, false)
	_, fetched := fetch(t, dial(), from, to, Options{})
	for what, err := range map[string]error{"bring": brought, "fetch": fetched} {
		if !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), "no space") || banger.HintOf(err) == "" {
			t.Errorf("%s: %v (hint %q), want that there is no space", what, err, banger.HintOf(err))
		}
	}
	testenv.SameLines(t, state(t, to), before)
}

// An end of the context leaves nothing, wherever it comes.
func TestInterrupted(t *testing.T) {
	from := t.TempDir()
	testenv.SampleTree(t, from)
	for _, after := range []int64{1, 1 << 20, 4 << 20} {
		to := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		in, err := Ask(guest(t)(), Get{Path: []byte(from)})
		if err != nil {
			t.Fatal(err)
		}
		var n int64
		_, err = Write(ctx, Place{to, "x"}, in.Origin, in.Source(), Options{Progress: func(more int64) {
			if n += more; n >= after {
				cancel()
			}
		}})
		if list, _ := os.ReadDir(to); !errors.Is(err, banger.ErrInterrupted) || len(list) > 0 {
			t.Errorf("after %d bytes: %v, left %v", after, err, list)
		}
	}
}

// An interruption of a sender returns when the guest has cleaned up.
func TestBringInterrupted(t *testing.T) {
	to := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	src := func(yield func(tree.Entry, error) bool) {
		for i := 0; yield(tree.Literal(fmt.Sprint("file", i), 0o644, bytes.Repeat([]byte("x"), 100_000)), nil); i++ {
			if i == 20 {
				cancel()
			}
		}
	}
	_, err := Bring(ctx, guest(t)(), Put{Path: []byte(to), Origin: Origin{Dir: true}}, src)
	if list, _ := os.ReadDir(to); !errors.Is(err, banger.ErrInterrupted) || len(list) > 0 {
		t.Errorf("%v, left %v", err, list)
	}
}

// A sender that goes away in the middle leaves nothing in the guest.
func TestClientGone(t *testing.T) {
	to := t.TempDir()
	conn := guest(t)()
	if err := writeLine(conn, Request{Put: &Put{Path: []byte(to), Origin: Origin{Name: []byte("x"), Dir: true}}}); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	if _, err := readAnswer(r); err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	if err := tree.WriteTar(newStreamWriter(&stream), tree.Of(tree.Directory("x", 0o755), tree.Literal("x/a", 0o644, bytes.Repeat([]byte("a"), 200<<10)))); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(stream.Bytes()); err != nil {
		t.Fatal(err)
	}
	conn.CloseWrite()
	if _, err := readAnswer(r); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("the guest answers %v", err)
	}
	if list, err := os.ReadDir(to); err != nil || len(list) > 0 {
		t.Errorf("left %v, %v", list, err)
	}
}

// The sender's own trouble is told as it is, not as the guest's.
func TestUnreadableSource(t *testing.T) {
	to := t.TempDir()
	fault := &banger.Error{Kind: banger.ErrConflict, Err: errors.New("it became shorter")}
	src := func(yield func(tree.Entry, error) bool) {
		_ = yield(tree.Literal("x", 0o644, []byte("content")), nil) && yield(tree.Entry{}, fault)
	}
	_, err := Bring(t.Context(), guest(t)(), Put{Path: []byte(to), Origin: Origin{Name: []byte("x")}}, src)
	if !errors.Is(err, fault) {
		t.Errorf("%v, want %v", err, fault)
	}
	if list, err := os.ReadDir(to); err != nil || len(list) > 0 {
		t.Errorf("left %v, %v", list, err)
	}
}

func TestOtherDevicesAreLeftOut(t *testing.T) {
	mounted, _ := testenv.Mount(t, testenv.Mke2fs(t, 8<<20))
	to := t.TempDir()
	report, err := fetch(t, guest(t)(), filepath.Dir(mounted), to, Options{})
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(filepath.Base(filepath.Dir(mounted)), filepath.Base(mounted))
	if list, err := os.ReadDir(filepath.Join(to, at)); err != nil || len(list) > 0 {
		t.Errorf("of the other device came %v, %v", list, err)
	}
	if report, err = fetch(t, guest(t)(), mounted, to+"/asked-for", Options{}); err != nil || report.Entries != 2 {
		t.Errorf("what is asked for by name: %+v, %v", report, err)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	for line, want := range map[string]error{
		"{}":                               banger.ErrInvalid,
		"no JSON":                          banger.ErrInvalid,
		`{"get":{}}`:                       banger.ErrInvalid,
		`{"get":{"path":"ZXRj"}}`:          banger.ErrInvalid, // etc
		`{"get":{"path":"LwAv"}}`:          banger.ErrInvalid, // a zero byte
		`{"get":{"path":"L25v"},"put":{}}`: banger.ErrInvalid,
		`{"get":{"path":"L25vL3N1Y2g="}}`:  banger.ErrNotFound,
		`{"put":{"path":"L3RtcA==","origin":{"name":"Li4=","dir":true}}}`: banger.ErrCorrupt, // ..
		`{"put":{"path":"L3RtcA==","origin":{"name":"YS9i"}}}`:            banger.ErrCorrupt, // a/b
		`{"put":{"path":"L3RtcA==","origin":{}}}`:                         banger.ErrCorrupt,
		`{"put":{"path":"dG1w","origin":{"name":"YQ=="}}}`:                banger.ErrInvalid,
		`"` + strings.Repeat("x", maxLine) + `"`:                          banger.ErrInvalid,
	} {
		conn := guest(t)()
		go fmt.Fprintf(conn, "%s\n", line)
		if _, err := readAnswer(bufio.NewReader(conn)); !errors.Is(err, want) {
			t.Errorf("%.60s: %v, want %v", line, err, want)
		}
	}
}

// hostile is a stream with a tar of these headers.
func hostile(t testing.TB, o Origin, headers ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	if err := writeLine(&b, Answer{Origin: &o}); err != nil {
		t.Fatal(err)
	}
	out := newStreamWriter(&b)
	w := tar.NewWriter(out)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		h.Mode |= 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			io.WriteString(w, "evil")
		}
	}
	if err := errors.Join(w.Close(), out.finish(end{})); err != nil {
		t.Fatal(err)
	}
	return &b
}

// Whatever a guest says, nothing is written outside of the place, and nothing is left when it lies.
func TestHostileGuest(t *testing.T) {
	reg := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	dir := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }
	link := func(kind byte, name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: kind, Linkname: to}
	}
	x := Origin{Name: []byte("x"), Dir: true}
	for _, tc := range []struct {
		name    string
		origin  Origin
		headers []tar.Header
	}{
		{"dot dot", x, []tar.Header{dir("x"), reg("x/../../outside")}},
		{"absolute", x, []tar.Header{dir("x"), reg("/tmp/outside")}},
		{"beside the origin", x, []tar.Header{dir("x"), reg("outside")}},
		{"the name as a beginning", x, []tar.Header{dir("x"), reg("xy/z")}},
		{"the root", x, []tar.Header{dir("./"), dir("x")}},
		{"through a link of its own", x, []tar.Header{dir("x"), link(tar.TypeSymlink, "x/l", "../.."), reg("x/l/outside")}},
		{"through an absolute link", x, []tar.Header{dir("x"), link(tar.TypeSymlink, "x/l", "/tmp"), reg("x/l/outside")}},
		{"a directory through a link", x, []tar.Header{dir("x"), link(tar.TypeSymlink, "x/l", ".."), dir("x/l/outside")}},
		{"hard link out", x, []tar.Header{dir("x"), link(tar.TypeLink, "x/l", "../outside")}},
		{"hard link to an absolute path", x, []tar.Header{dir("x"), link(tar.TypeLink, "x/l", "/etc/passwd")}},
		{"hard link through a link", x, []tar.Header{dir("x"), link(tar.TypeSymlink, "x/l", "../.."), link(tar.TypeLink, "x/h", "x/l/secret")}},
		{"hard link to nothing", x, []tar.Header{dir("x"), link(tar.TypeLink, "x/l", "x/none")}},
		{"hard link to a directory", x, []tar.Header{dir("x"), dir("x/d"), link(tar.TypeLink, "x/l", "x/d")}},
		{"a file that is a directory", Origin{Name: []byte("x")}, []tar.Header{dir("x")}},
		{"a directory that is a file", x, []tar.Header{reg("x")}},
		{"below a file", Origin{Name: []byte("x")}, []tar.Header{reg("x"), reg("x/y")}},
		{"a name that is none", Origin{Name: []byte(".."), Dir: true}, []tar.Header{dir("x")}},
		{"a name with a slash", Origin{Name: []byte("a/b"), Dir: true}, []tar.Header{dir("a/b")}},
		{"no name", Origin{}, []tar.Header{reg("x")}},
		{"a name that is too long", x, []tar.Header{dir("x"), reg("x/" + strings.Repeat("n", 256))}},
		{"too deep", x, []tar.Header{reg("x/" + strings.Repeat("d/", maxDepth) + "f")}},
		{"nothing at all", x, nil},
		{"only a device", Origin{Name: []byte("x")}, []tar.Header{{Name: "x", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			parent := t.TempDir()
			to := filepath.Join(parent, "to")
			if err := errors.Join(os.Mkdir(to, 0o755), os.WriteFile(filepath.Join(parent, "secret"), []byte("secret"), 0o600)); err != nil {
				t.Fatal(err)
			}
			before := state(t, parent)
			in, err := Receive(hostile(t, tc.origin, tc.headers...))
			if err == nil {
				var place Place
				if place, err = Resolve(to, in.Origin); err == nil {
					_, err = Write(t.Context(), place, in.Origin, in.Source(), Options{})
				}
			}
			if err == nil || banger.KindName(err) == "internal" {
				t.Errorf("err = %v, want one with a kind", err)
			}
			testenv.SameLines(t, state(t, parent), before)
		})
	}
}

func TestSetIDAndSpecials(t *testing.T) {
	stream := func() io.Reader {
		return hostile(t, Origin{Name: []byte("x"), Dir: true}, tar.Header{Name: "x", Typeflag: tar.TypeDir, Mode: 0o3777}, tar.Header{Name: "x/suid", Typeflag: tar.TypeReg, Mode: 0o6755},
			tar.Header{Name: "x/dev", Typeflag: tar.TypeBlock, Devmajor: 8}, tar.Header{Name: "x/fifo", Typeflag: tar.TypeFifo})
	}
	for archive, want := range map[bool][2]os.FileMode{false: {0o777 | os.ModeSticky, 0o755}, true: {0o777 | os.ModeSticky | os.ModeSetgid, 0o755 | os.ModeSetuid | os.ModeSetgid}} {
		to := t.TempDir()
		in, err := Receive(stream())
		if err != nil {
			t.Fatal(err)
		}
		report, err := Write(t.Context(), Place{to, "x"}, in.Origin, in.Source(), Options{Archive: archive})
		if err != nil || report.Skipped != 2 || report.Entries != 2 || !slices.Equal(report.Left, []string{"x/dev", "x/fifo"}) {
			t.Errorf("Write = %+v, %v", report, err)
		}
		for i, name := range []string{"x", "x/suid"} {
			info, err := os.Lstat(filepath.Join(to, name))
			if err != nil || info.Mode()&^os.ModeDir != want[i] {
				t.Errorf("archive %v: %s has mode %v, %v, want %v", archive, name, info.Mode(), err, want[i])
			}
		}
	}
}
