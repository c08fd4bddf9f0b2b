package patch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/internal/ext4/check"
	"banger/internal/ext4/read"
	"banger/internal/testenv"
	"banger/internal/tree"
)

var (
	now  = time.Date(2026, 5, 6, 7, 8, 9, 123456789, time.UTC)
	fast = Options{Now: now, NoSync: true}
)

// formats are the kinds of file system that the patcher must keep up.
var formats = []struct {
	name string
	args []string
}{
	{"default", []string{"-t", "ext4", "-b", "4096"}},
	{"1k", []string{"-t", "ext4", "-b", "1024"}},
	{"no checksums", []string{"-t", "ext4", "-b", "4096", "-O", "^metadata_csum,^64bit"}},
	{"uninit_bg", []string{"-t", "ext4", "-b", "1024", "-O", "^metadata_csum,uninit_bg"}},
	{"csum seed", []string{"-t", "ext4", "-b", "2048", "-O", "metadata_csum_seed"}},
	{"orphan file", []string{"-t", "ext4", "-b", "1024", "-O", "orphan_file"}},
	{"small inodes", []string{"-t", "ext4", "-b", "1024", "-I", "128"}},
	{"ext3", []string{"-t", "ext3", "-b", "1024"}},
	{"ext4 without extents", []string{"-t", "ext4", "-b", "1024", "-O", "^extent,^64bit"}},
	{"lazy tables", []string{"-t", "ext4", "-b", "1024", "-E", "lazy_itable_init=1,nodiscard"}},
	{"meta_bg", []string{"-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"}},
}

const smallImage = 24 << 20

// entry is what the model holds of a path. Names of one inode share it.
type entry struct {
	kind     tree.Kind
	mode     uint32
	uid, gid uint32
	text     string
}

// model is a file system in memory, by path; "." is its root.
type model map[string]*entry

// load reads what an image holds.
func load(t testing.TB, r io.ReaderAt, size int64) model {
	t.Helper()
	fsys, err := read.Open(r, size)
	if err != nil {
		t.Fatal(err)
	}
	m := model{}
	for e, err := range fsys.Source(".") {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == tree.HardLink {
			m[e.Path] = m[e.Link]
			continue
		}
		at := &entry{kind: e.Kind, mode: e.Mode, uid: e.UID, gid: e.GID, text: e.Link}
		if e.Content != nil {
			data, err := io.ReadAll(e.Content)
			if err != nil {
				t.Fatal(err)
			}
			at.text = string(data)
		}
		m[e.Path] = at
	}
	return m
}

func (m model) lines() (list []string) {
	names := map[*entry]string{}
	for _, p := range slices.Sorted(maps.Keys(m)) {
		e := m[p]
		if first, ok := names[e]; ok {
			list = append(list, fmt.Sprintf("%q = %q", p, first))
			continue
		}
		names[e] = p
		list = append(list, fmt.Sprintf("%q %d %o %d:%d %d %.40q", p, e.kind, e.mode, e.uid, e.gid, len(e.text), e.text))
	}
	return list
}

func (m model) clone() model {
	copies, out := map[*entry]*entry{}, model{}
	for p, e := range m {
		if copies[e] == nil {
			c := *e
			copies[e] = &c
		}
		out[p] = copies[e]
	}
	return out
}

func (m model) dir(p string) bool { e := m[p]; return e != nil && e.kind == tree.Dir }

func (m model) empty(p string) bool {
	for other := range m {
		if strings.HasPrefix(other, p+"/") {
			return false
		}
	}
	return true
}

func (m model) write(p, text string, a Attr) error {
	e := m[p]
	switch {
	case !m.dir(path.Dir(p)):
		return fs.ErrNotExist
	case e == nil:
		e = &entry{kind: tree.File}
		m[p] = e
	case e.kind != tree.File:
		return fs.ErrExist
	}
	e.mode, e.uid, e.gid, e.text = a.Mode, a.UID, a.GID, text
	return nil
}

func (m model) make(p string, e entry) error {
	if !m.dir(path.Dir(p)) {
		return fs.ErrNotExist
	}
	if m[p] != nil {
		return fs.ErrExist
	}
	m[p] = &e
	return nil
}

func (m model) remove(p string, all bool) error {
	switch {
	case m[p] == nil && all:
		return nil
	case m[p] == nil:
		return fs.ErrNotExist
	case !all && !m.empty(p):
		return fs.ErrExist
	}
	for other := range m {
		if other == p || strings.HasPrefix(other, p+"/") {
			delete(m, other)
		}
	}
	return nil
}

func (m model) rename(from, to string) error {
	e, there := m[from], m[to]
	switch {
	case e == nil || !m.dir(path.Dir(to)):
		return fs.ErrNotExist
	case e == there:
		return nil
	case there != nil && (there.kind == tree.Dir) != (e.kind == tree.Dir), there != nil && !m.empty(to):
		return fs.ErrExist
	case strings.HasPrefix(to, from+"/"):
		return fs.ErrInvalid
	}
	moved := model{}
	for p, e := range m {
		if p == from || strings.HasPrefix(p, from+"/") {
			moved[to+p[len(from):]] = e
			delete(m, p)
		}
	}
	maps.Copy(m, moved)
	return nil
}

// source decides: a generator of random numbers, or the input of a fuzz test.
type source interface{ IntN(n int) int }

// op does one random operation to both, which must agree on whether it can be done.
func op(t testing.TB, tx *Tx, m model, r source) {
	t.Helper()
	name := func() string {
		parts := []string{"a", "b", "a/" + strings.Repeat("c", 1+r.IntN(250)), "b/d", "b/d/e", fmt.Sprint("n", r.IntN(40)), fmt.Sprint("a/n", r.IntN(300)), "none/x"}
		return parts[r.IntN(len(parts))]
	}
	a := Attr{Mode: uint32(r.IntN(0o10000)), UID: uint32(r.IntN(3)) * 40000, GID: uint32(r.IntN(100000)), ModTime: now.Add(time.Duration(r.IntN(1e9)))}
	var got, want error
	var what string
	switch r.IntN(9) {
	case 0, 1, 2:
		p, size := name(), r.IntN(9000)
		if r.IntN(8) == 0 {
			size = r.IntN(600 << 10)
		}
		text := strings.Repeat(fmt.Sprintf("%d of %s;", size, p), size/4+1)[:size]
		what = fmt.Sprint("write ", p, " ", size)
		got, want = tx.WriteFile(p, int64(size), strings.NewReader(text), a), m.write(p, text, a)
	case 3:
		p := name()
		what = "mkdir " + p
		got, want = tx.Mkdir(p, a), m.make(p, entry{tree.Dir, a.Mode, a.UID, a.GID, ""})
	case 4:
		p, text := name(), strings.Repeat("x", 1+r.IntN(200))
		what = "symlink " + p
		got, want = tx.Symlink("?"+text, p, a), m.make(p, entry{tree.Symlink, 0o777, a.UID, a.GID, "?" + text})
	case 5:
		p := name()
		what = "remove " + p
		got, want = tx.Remove(p), m.remove(p, false)
	case 6:
		p := name()
		if r.IntN(4) > 0 {
			p = "a/" + fmt.Sprint("n", r.IntN(300))
		}
		what = "remove all " + p
		if !m.dir(path.Dir(p)) {
			return
		}
		got, want = tx.RemoveAll(p), m.remove(p, true)
	case 7:
		p, q := name(), name()
		what = "rename " + p + " " + q
		got, want = tx.Rename(p, q), m.rename(p, q)
	case 8:
		p := name()
		if e := m[p]; e == nil || e.kind == tree.Symlink {
			return
		}
		what = "chmod, chown " + p
		got = errors.Join(tx.Chmod(p, a.Mode), tx.Chown(p, a.UID, a.GID))
		m[p].mode, m[p].uid, m[p].gid = a.Mode, a.UID, a.GID
	}
	if errors.Is(got, banger.ErrCorrupt) || (got == nil) != (want == nil) {
		t.Fatalf("%s: %v, the model says %v", what, got, want)
	}
}

// judge compares an image with the model and lets the checker look at it.
func judge(t testing.TB, r io.ReaderAt, size int64, m model) {
	t.Helper()
	if diff := cmp.Diff(m.lines(), load(t, r, size).lines()); diff != "" {
		t.Fatalf("-model +image:\n%s", diff)
	}
	faults, err := check.Check(r, size, check.Options{})
	if err != nil || len(faults) > 0 {
		t.Fatalf("check: %v %v", faults, err)
	}
}

func judgeFile(t testing.TB, image string, m model) {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	judge(t, f, info.Size(), m)
	testenv.CheckExt4(t, image)
}

func loadFile(t testing.TB, image string) model {
	t.Helper()
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	return load(t, bytes.NewReader(data), int64(len(data)))
}

// A few random operations in each transaction, e2fsck and the model after each.
func TestRandomOperations(t *testing.T) {
	for i, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			image := testenv.Mke2fs(t, smallImage, f.args...)
			m := loadFile(t, image)
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 12 {
				opt := fast
				opt.NoSync = r.IntN(2) == 0
				if err := Apply(image, opt, func(tx *Tx) error {
					for range 1 + r.IntN(60) {
						op(t, tx, m, r)
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				judgeFile(t, image, m)
			}
		})
	}
}

func apply1(t testing.TB, image string, edit func(*Tx) error) {
	t.Helper()
	if err := Apply(image, fast, edit); err != nil {
		t.Fatal(err)
	}
}

// seeded makes an image with this script's tree.
func seeded(t testing.TB, size int64, script string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	testenv.Run(t, "sh", "-c", "cd '"+dir+"' && "+script)
	return testenv.Mke2fs(t, size, append(args, "-d", dir)...)
}

// Names go into the right block of a kernel-made index; blocks split, and past the index's end it is given up.
func TestHashedDirectory(t *testing.T) {
	for _, f := range []struct {
		name string
		args []string
	}{
		{"csum", []string{"-t", "ext4", "-b", "1024", "-N", "9000", "-J", "size=16"}},
		{"plain", []string{"-t", "ext4", "-b", "1024", "-N", "9000", "-J", "size=16", "-O", "^metadata_csum"}},
	} {
		t.Run(f.name, func(t *testing.T) {
			image := testenv.Mke2fs(t, 96<<20, f.args...)
			dir, unmount := testenv.Mount(t, image)
			testenv.Run(t, "sh", "-c", "cd "+dir+" && mkdir big && cd big && seq -f 'a_name_that_takes_some_room_%05g' 300 | xargs touch && mkdir sub")
			unmount()
			m := loadFile(t, image)
			for round := range 5 {
				apply1(t, image, func(tx *Tx) error {
					for i := range 1000 {
						p := fmt.Sprintf("big/patched_name_that_takes_more_room_than_others_%d_%d", round, i)
						if err := errors.Join(tx.WriteFile(p, 1, strings.NewReader("x"), Attr{Mode: 0o600}), m.write(p, "x", Attr{Mode: 0o600})); err != nil {
							return err
						}
					}
					return errors.Join(tx.Rename("big/sub", fmt.Sprint("sub", round)), tx.Rename(fmt.Sprint("sub", round), "big/sub"))
				})
				judgeFile(t, image, m)
			}
			_, unmount = testenv.Mount(t, image)
			unmount()
			apply1(t, image, func(tx *Tx) error { return errors.Join(tx.RemoveAll("big"), m.remove("big", true)) })
			judgeFile(t, image, m)
		})
	}
}

func TestHardLinksAndAttributes(t *testing.T) {
	image := seeded(t, smallImage, "echo one > a && ln a b && ln a c && truncate -s 5M hole && echo x >> hole && mkfifo p",
		"-t", "ext4", "-b", "1024")
	testenv.Run(t, "debugfs", "-w", "-R", "ea_set /a user.x y", image)
	m := loadFile(t, image)
	apply1(t, image, func(tx *Tx) error {
		a := Attr{Mode: 0o640, UID: 7}
		return errors.Join(tx.Remove("a"), m.remove("a", false), tx.WriteFile("b", 3, strings.NewReader("new"), a), m.write("b", "new", a),
			tx.WriteFile("hole", 0, nil, a), m.write("hole", "", a), tx.Rename("c", "p"), m.rename("c", "p"))
	})
	judgeFile(t, image, m)
	if m["b"] != m["p"] {
		t.Fatal("the model lost a link")
	}
	if out := testenv.Run(t, "debugfs", "-R", "ea_get /p user.x", image); !strings.Contains(out, `"y"`) {
		t.Errorf("attribute: %s", out)
	}
	apply1(t, image, func(tx *Tx) error {
		return errors.Join(tx.Remove("b"), tx.Remove("p"), m.remove("b", false), m.remove("p", false))
	})
	judgeFile(t, image, m)
}

// debugfs reads what the patcher wrote: content, owner, mode, times with nanoseconds.
func TestDebugfsReadsIt(t *testing.T) {
	image := testenv.Mke2fs(t, smallImage, "-t", "ext4", "-b", "4096")
	content := strings.Repeat("0123456789", 30000)
	apply1(t, image, func(tx *Tx) error {
		return errors.Join(tx.MkdirAll("x/y/z", Attr{Mode: 0o755}), tx.MkdirAll("x/y/z", Attr{}),
			tx.WriteFile("/x/y/z/f", int64(len(content)), strings.NewReader(content), Attr{Mode: 0o4751, UID: 70000, GID: 5, ModTime: time.Date(2100, 1, 2, 3, 4, 5, 99, time.UTC)}),
			tx.Symlink("x/y", "s", Attr{}), tx.WriteFile("s/z/g", 2, strings.NewReader("hi"), Attr{Mode: 0o600}))
	})
	if got := testenv.Run(t, "debugfs", "-R", "cat /x/y/z/f", image); !strings.Contains(got, content) {
		t.Error("content differs")
	}
	stat := testenv.Run(t, "debugfs", "-R", "stat /x/y/z/f", image)
	for _, want := range []string{"Mode:  04751", "User: 70000", "Group:     5", "Size: 300000", "Blockcount: 592"} {
		if !strings.Contains(stat, want) {
			t.Errorf("no %q in:\n%s", want, stat)
		}
	}
	if got := testenv.Run(t, "debugfs", "-R", "cat /x/y/z/g", image); !strings.Contains(got, "hi") {
		t.Error("through a link: ", got)
	}
	testenv.CheckExt4(t, image)
}

// Nothing has changed after an error, and what there is no room for says so.
func TestNoRoom(t *testing.T) {
	image := testenv.Mke2fs(t, smallImage, "-t", "ext4", "-b", "1024", "-N", "64", "-J", "size=1")
	m := loadFile(t, image)
	for name, edit := range map[string]func(*Tx) error{
		"blocks": func(tx *Tx) error { return tx.WriteFile("big", 40<<20, zeros{}, Attr{}) },
		"inodes": func(tx *Tx) error {
			for i := range 100 {
				if err := tx.Mkdir(fmt.Sprint("d", i), Attr{}); err != nil {
					return err
				}
			}
			return nil
		},
		"swallowed": func(tx *Tx) error { _ = tx.WriteFile("big", 40<<20, zeros{}, Attr{}); return nil },
	} {
		if err := Apply(image, fast, edit); !errors.Is(err, banger.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		judgeFile(t, image, m)
	}
	short := func(tx *Tx) error { return tx.WriteFile("short", 10, strings.NewReader("x"), Attr{}) }
	if err := Apply(image, fast, short); !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("short content: %v", err)
	}
	for i := 0; ; i++ { // until the last block is taken
		p := fmt.Sprint("fill", i)
		err := Apply(image, fast, func(tx *Tx) error {
			return tx.WriteFile(p, 2<<20, strings.NewReader(strings.Repeat("f", 2<<20)), Attr{})
		})
		if errors.Is(err, banger.ErrUnavailable) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if err := m.write(p, strings.Repeat("f", 2<<20), Attr{}); err != nil {
			t.Fatal(err)
		}
		judgeFile(t, image, m)
	}
	judgeFile(t, image, m)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A transaction that does not fit the journal is refused before the file system changes.
func TestLargerThanTheJournal(t *testing.T) {
	image := testenv.Mke2fs(t, 64<<20, "-t", "ext4", "-b", "1024", "-J", "size=1", "-N", "20000")
	before, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	err = Apply(image, fast, func(tx *Tx) error {
		for i := range 3000 {
			if err := tx.Mkdir(fmt.Sprint("d", i), Attr{}); err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), "journal") {
		t.Error(err)
	}
	after, err := os.ReadFile(image)
	if err != nil || !bytes.Equal(before, after) {
		t.Error("the image changed", err)
	}
}

func TestRefuses(t *testing.T) {
	nothing := func(*Tx) error { return nil }
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"ext2", []string{"-t", "ext2"}, "journal"},
		{"quota", []string{"-t", "ext4", "-O", "quota"}, "quota"},
		{"inline_data", []string{"-t", "ext4", "-O", "inline_data"}, "inline_data"},
		{"bigalloc", []string{"-t", "ext4", "-O", "bigalloc"}, "bigalloc"},
		{"mmp", []string{"-t", "ext4", "-O", "mmp"}, "mmp"},
		{"fast_commit", []string{"-t", "ext4", "-O", "fast_commit"}, "fast_commit"},
	} {
		err := Apply(testenv.Mke2fs(t, smallImage, c.args...), fast, nothing)
		if !errors.Is(err, banger.ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	image := testenv.Mke2fs(t, smallImage, "-t", "ext4")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(image, link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{link: banger.ErrUnsupported, "/dev/null": banger.ErrUnsupported, image + "x": banger.ErrNotFound, t.TempDir(): nil} {
		if err := Apply(path, fast, nothing); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	m := loadFile(t, image)
	for name, edit := range map[string]func(*Tx) error{
		"long":      func(tx *Tx) error { return tx.Mkdir(strings.Repeat("x", 256), Attr{}) },
		"dot":       func(tx *Tx) error { return tx.Mkdir("x/..", Attr{}) },
		"empty":     func(tx *Tx) error { return tx.Mkdir("", Attr{}) },
		"root":      func(tx *Tx) error { return tx.RemoveAll("/") },
		"nul":       func(tx *Tx) error { return tx.Mkdir("x\x00y", Attr{}) },
		"link":      func(tx *Tx) error { return tx.Symlink(strings.Repeat("x", 4096), "l", Attr{}) },
		"no size":   func(tx *Tx) error { return tx.WriteFile("f", -1, nil, Attr{}) },
		"too large": func(tx *Tx) error { return tx.WriteFile("f", 1<<60, zeros{}, Attr{}) },
	} {
		if err := Apply(image, fast, edit); !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Apply(image, fast, func(tx *Tx) error { return tx.Remove("lost+found") }); !errors.Is(err, banger.ErrConflict) {
		t.Error(err)
	}
	judgeFile(t, image, m)
}

// An image that another process uses is refused: under flock, under QEMU's locks, on a loop device.
func TestInUse(t *testing.T) {
	image := testenv.Mke2fs(t, smallImage, "-t", "ext4")
	refused := func(how string) {
		t.Helper()
		if err := Apply(image, fast, func(tx *Tx) error { return tx.Mkdir("x", Attr{}) }); !errors.Is(err, banger.ErrConflict) {
			t.Errorf("%s: %v", how, err)
		}
	}
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	refused("flock")
	f.Close()
	if f, err = os.Open(image); err != nil {
		t.Fatal(err)
	}
	qemu := unix.Flock_t{Type: unix.F_RDLCK, Start: 101, Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &qemu); err != nil {
		t.Fatal(err)
	}
	refused("QEMU")
	f.Close()
	_, unmount := testenv.Mount(t, image)
	refused("loop")
	unmount()
	apply1(t, image, func(tx *Tx) error { return tx.Mkdir("x", Attr{}) })
}
