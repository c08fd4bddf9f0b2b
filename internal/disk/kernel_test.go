package disk

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/ext4/write"
	"banger/internal/statedir"
	"banger/internal/testenv"
	"banger/internal/transfer"
	"banger/internal/tree"
)

// guestView is a base and a disk, mounted as guests do it by this host's kernel.
type guestView struct {
	t    *testing.T
	base string
	home statedir.VMDir
	root string // the guest's root directory
	end  []func()
}

// overlayOptions are those that the guest agent mounts its root with.
const overlayOptions = "redirect_dir=on,xino=on,metacopy=off,index=off"

func newGuestView(t *testing.T, base string) *guestView {
	t.Helper()
	v := &guestView{t: t, base: base, home: newHome(t), root: t.TempDir()}
	if err := Create(t.Context(), v.home, Options{SizeBytes: 256 << 20, Time: time.Unix(1e9, 0)}); err != nil {
		t.Fatal(err)
	}
	v.mount()
	return v
}

// mount does what the guest agent does at boot.
func (v *guestView) mount() {
	v.t.Helper()
	lower, endLower := testenv.Mount(v.t, v.base, "ro")
	disk, endDisk := testenv.Mount(v.t, v.home.Disk(), "noatime")
	v.end = append(v.end, endLower, endDisk)
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,%s", lower, filepath.Join(disk, banger.DiskUpperDir), filepath.Join(disk, banger.DiskWorkDir), overlayOptions)
	v.must(unix.Mount("overlay", v.root, "overlay", unix.MS_NOATIME, options))
	v.end = append(v.end, func() { v.must(unix.Unmount(v.root, unix.MNT_DETACH)) }) // and what is bound, wherever it was moved to
	v.must(os.WriteFile(filepath.Join(disk, filledMark), nil, 0o600))
	for _, bind := range banger.DiskBinds {
		at := filepath.Join(v.root, bind.Target)
		v.must(os.MkdirAll(at, 0o755))
		v.must(unix.Mount(filepath.Join(disk, bind.Dir), at, "", unix.MS_BIND, ""))
	}
	v.t.Cleanup(v.unmount)
}

func (v *guestView) unmount() {
	for i := len(v.end) - 1; i >= 0; i-- {
		v.end[i]()
	}
	v.end = nil
}

func (v *guestView) must(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

func (v *guestView) path(name string) string { return filepath.Join(v.root, name) }

func openView(t testing.TB, base, disk string) *FS {
	t.Helper()
	f, err := tryView(t, base, disk)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// tryView is openView for disks that may be refused.
func tryView(t testing.TB, base, disk string) (*FS, error) {
	t.Helper()
	var files [2]*os.File
	var sizes [2]int64
	for i, name := range []string{base, disk} {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		info, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		files[i], sizes[i] = file, info.Size()
	}
	return OpenFS(files[0], sizes[0], files[1], sizes[1])
}

func rootOf(t testing.TB, f *FS) *Node {
	t.Helper()
	n, err := f.Lookup("/", true)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A disk that was copied under a running guest looks as its journal makes it: everything that was synced is there.
func TestFSOfAnUncleanDisk(t *testing.T) {
	base := sampleBase(t, false)
	v := newGuestView(t, base)
	v.must(os.Rename(v.path("usr/share/doc"), v.path("usr/share/documents")))
	v.must(os.RemoveAll(v.path("srv/one")))
	for i := range 200 {
		v.must(os.WriteFile(v.path(fmt.Sprintf("root/file%d", i)), fmt.Appendf(nil, "content %d", i), 0o600))
	}
	want := testenv.TreeLines(t, tree.FromDir(v.root), true)
	unix.Sync()
	copied := filepath.Join(t.TempDir(), "disk.ext4")
	testenv.Run(t, "cp", "--sparse=always", v.home.Disk(), copied)
	f := openView(t, base, copied)
	if !f.disk.NeedsRecovery() {
		t.Error("the copy has an empty journal: nothing was tested")
	}
	testenv.SameLines(t, testenv.TreeLines(t, rootOf(t, f).Source("."), true), want)
}

// check compares what the kernel shows with what an FS shows: names, kinds, modes, owners, times, links, attributes, content.
func (v *guestView) check() {
	v.t.Helper()
	want := testenv.TreeLines(v.t, tree.FromDir(v.root), true)
	dir, err := transfer.OpenDir(v.root)
	v.must(err)
	parts := partLines(v.t, dir)
	v.must(dir.Close())
	v.unmount()
	testenv.CheckExt4(v.t, v.home.Disk())
	f := openView(v.t, v.base, v.home.Disk())
	testenv.SameLines(v.t, testenv.TreeLines(v.t, rootOf(v.t, f).Source("."), true), want)
	of, err := f.Parts("/")
	v.must(err)
	testenv.SameLines(v.t, partLines(v.t, of), parts)
}

// partLines tells all of a directory that is asked for by name. The numbers of inodes count where no overlay makes them up.
func partLines(t *testing.T, parts transfer.Parts) (lines []string) {
	t.Helper()
	skip := func(name string) bool { return name == "opt/why" }
	err := parts.Walk(t.Context(), skip, func(uint64) bool { return true }, func(n transfer.Node) error {
		if !strings.HasPrefix(string(n.Path), "root/") {
			n.Ino = 0
		}
		if n.Kind == tree.Dir {
			n.Size = 0
		}
		content := ""
		e, open, err := parts.Entry(string(n.Path))
		switch {
		case err == nil && e.Kind == tree.File:
			var b []byte
			if e.Content != nil {
				if b, err = io.ReadAll(e.Content); err != nil {
					return err
				}
			}
			content = fmt.Sprintf("%x", sha256.Sum256(b))
		case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, banger.ErrNotFound):
			return err
		}
		if open != nil {
			open.Close()
		}
		lines = append(lines, fmt.Sprintf("%q %v %s %q", n.Path, n, content, e.Link))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func baseImage(t *testing.T, dir string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "base.ext4")
	if _, err := write.CreateFile(t.Context(), image, write.Options{SizeBytes: 256 << 20, Time: time.Unix(1e9, 0)}, tree.FromDir(dir)); err != nil {
		t.Fatal(err)
	}
	return image
}

// sampleBase is a base with directories to rename, and with one of everything if samples is set.
func sampleBase(t *testing.T, samples bool) string {
	t.Helper()
	dir := t.TempDir()
	if samples {
		testenv.SampleTree(t, dir)
	}
	for _, name := range []string{"usr/share/doc/a", "usr/share/doc/b", "usr/lib/x/y/z", "etc/conf.d", "opt", "home/user", "root", "var/lib/docker", "srv/one/two/three"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if err := os.WriteFile(filepath.Join(dir, name, fmt.Sprint("file", i)), []byte(name), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return baseImage(t, dir)
}

func TestFSAgainstTheKernel(t *testing.T) {
	base := sampleBase(t, true)
	for name, change := range map[string]func(v *guestView){
		"nothing": func(*guestView) {},
		"renamed directories": func(v *guestView) {
			v.must(os.Rename(v.path("usr/share/doc"), v.path("usr/share/documents"))) // relative
			v.must(os.Rename(v.path("usr/lib/x/y"), v.path("opt/why")))               // absolute
			v.must(os.Rename(v.path("opt/why/z"), v.path("srv/zed")))                 // out of one that has moved
			v.must(os.Rename(v.path("srv/one"), v.path("srv/eins")))                  // a parent of what moves next
			v.must(os.Rename(v.path("srv/eins/two/three"), v.path("srv/eins/drei")))  // below it
			v.must(os.Rename(v.path("etc"), v.path(strings.Repeat("n", 250)+"-etc"))) // a long name
			v.must(os.Mkdir(v.path("etc"), 0o700))                                    // in its old place
			v.must(os.WriteFile(v.path("etc/new"), []byte("new"), 0o600))
			v.must(os.Rename(v.path("sub/many"), v.path("many")))
			v.must(os.Remove(v.path("many/a name that is long enough to fill blocks 7")))
		},
		"deleted and made again": func(v *guestView) {
			v.must(os.RemoveAll(v.path("usr/share/doc")))
			v.must(os.MkdirAll(v.path("usr/share/doc/b"), 0o711))
			v.must(os.WriteFile(v.path("usr/share/doc/b/other"), []byte("other"), 0o644))
			v.must(os.Remove(v.path("size-1")))
			v.must(os.Mkdir(v.path("size-1"), 0o755))
			v.must(os.RemoveAll(v.path("srv")))
			v.must(os.Symlink("opt", v.path("srv")))
			v.must(os.Remove(v.path("hard")))
			v.must(os.Remove(v.path("char")))
		},
		"changed": func(v *guestView) {
			v.must(os.WriteFile(v.path("size-4096"), []byte("changed"), 0o644))
			v.must(os.Chmod(v.path("usr/lib"), 0o750))
			v.must(os.Lchown(v.path("opt"), 1000, 1001))
			v.must(os.Link(v.path("size-59"), v.path("another")))
			v.must(os.Link(v.path("size-59"), v.path("opt/another")))
			v.must(os.WriteFile(v.path("hard"), []byte("no longer what sub/file is"), 0o644))
			v.must(unix.Mknod(v.path("tty"), unix.S_IFCHR|0o620, int(unix.Mkdev(5, 0))))
			v.must(unix.Mkfifo(v.path("opt/fifo"), 0o600))
			v.must(unix.Lsetxattr(v.path("opt"), "user.mine", []byte("mine"), 0))
			v.must(unix.Lsetxattr(v.path("size-0"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
		},
		"in the binds": func(v *guestView) {
			for _, bind := range banger.DiskBinds {
				v.must(os.WriteFile(v.path(bind.Target+"/file"), []byte(bind.Target), 0o600))
				v.must(os.Mkdir(v.path(bind.Target+"/dir"), 0o700))
			}
			// An engine's own overlay has whiteouts and marks that are none of ours.
			v.must(unix.Mknod(v.path("var/lib/docker/gone"), unix.S_IFCHR|0o600, 0))
			v.must(unix.Lsetxattr(v.path("var/lib/docker/dir"), "trusted.overlay.opaque", []byte("y"), 0))
			v.must(unix.Lsetxattr(v.path("var/lib/docker/dir"), "trusted.overlay.redirect", []byte("/../.."), 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newGuestView(t, base)
			change(v)
			v.check()
		})
	}
}

// Random changes, also across remounts, look to an FS as they look to the kernel.
func TestFSAgainstTheKernelAtRandom(t *testing.T) {
	base := sampleBase(t, false)
	for seed := range int64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			v, r := newGuestView(t, base), rand.New(rand.NewSource(seed))
			for range 3 {
				for range 60 {
					v.step(r)
				}
				v.unmount()
				v.mount()
			}
			v.check()
		})
	}
}

// step makes one change; what the kernel refuses is no change.
func (v *guestView) step(r *rand.Rand) {
	v.t.Helper()
	dirs, all := []string{v.root}, []string{}
	v.must(filepath.WalkDir(v.root, func(path string, d fs.DirEntry, err error) error {
		if path == v.root || err != nil {
			return err
		}
		if all = append(all, path); d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	}))
	pick := func(list []string) string { return list[r.Intn(len(list))] }
	fresh := func() string { return filepath.Join(pick(dirs), fmt.Sprint("n", r.Intn(30))) }
	var err error
	switch r.Intn(9) {
	case 0, 1:
		err = os.Rename(pick(dirs[1:]), fresh())
	case 2:
		err = os.Rename(pick(all), fresh())
	case 3:
		if victim := pick(all); !strings.HasPrefix(victim, v.path("var")) || r.Intn(20) == 0 {
			err = os.RemoveAll(victim)
		}
	case 4:
		err = os.Mkdir(fresh(), 0o755)
	case 5:
		err = os.WriteFile(fresh(), []byte(fmt.Sprint(r.Int())), 0o644)
	case 6:
		err = os.Link(pick(all), fresh())
	case 7:
		err = os.Symlink(pick(all)[len(v.root):], fresh())
	case 8:
		err = os.Chmod(pick(dirs), os.FileMode(0o700|r.Intn(0o77)))
	}
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.ESTALE) {
		v.t.Fatal(err)
	}
}
