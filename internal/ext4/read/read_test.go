package read_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/ext4/read"
	"banger/internal/testenv"
	"banger/internal/tree"
)

func open(t testing.TB, image string) *read.FS {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := read.Open(f, info.Size())
	if err != nil {
		t.Fatalf("open %s: %v", image, err)
	}
	return fsys
}

// hostTree is a directory of the host as the reader would describe it.
func hostTree(dir string) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name, _ := filepath.Rel(dir, p)
			if name == "lost+found" {
				return fs.SkipDir
			}
			e, err := hostEntry(p, name)
			if !yield(e, err) {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil {
			yield(tree.Entry{}, err)
		}
	}
}

func hostEntry(p, name string) (e tree.Entry, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return e, err
	}
	e = tree.Entry{Path: name, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid}
	info, err := os.Lstat(p)
	if err != nil {
		return e, err
	}
	e.ModTime = info.ModTime()
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Kind, e.Size = tree.File, st.Size
		if e.Size > 0 {
			e.Content = &lazyFile{path: p}
		}
	case unix.S_IFDIR:
		e.Kind = tree.Dir
	case unix.S_IFLNK:
		e.Kind = tree.Symlink
		e.Link, err = os.Readlink(p)
	case unix.S_IFCHR:
		e.Kind, e.Major, e.Minor = tree.CharDevice, unix.Major(st.Rdev), unix.Minor(st.Rdev)
	case unix.S_IFBLK:
		e.Kind, e.Major, e.Minor = tree.BlockDevice, unix.Major(st.Rdev), unix.Minor(st.Rdev)
	case unix.S_IFIFO:
		e.Kind = tree.FIFO
	}
	if err == nil {
		e.Xattrs, err = hostXattrs(p)
	}
	return e, err
}

// lazyFile opens at the first read and closes at the end: an open file would keep its file system mounted.
type lazyFile struct {
	path string
	f    *os.File
}

func (l *lazyFile) Read(p []byte) (n int, err error) {
	if l.f == nil {
		if l.f, err = os.Open(l.path); err != nil {
			return 0, err
		}
	}
	if n, err = l.f.Read(p); err != nil {
		l.f.Close()
	}
	return n, err
}

func hostXattrs(p string) (map[string][]byte, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if err != nil || n == 0 {
		return nil, err
	}
	attrs := map[string][]byte{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(p, name, value)
		if err != nil {
			return nil, err
		}
		attrs[name] = value[:n]
	}
	return attrs, nil
}

// Feature sets of distributions, and corners of the format.
var formats = []struct {
	name string
	args []string
}{
	{"ext2", []string{"-b", "4096", "-t", "ext2"}},
	{"ext2 1k", []string{"-t", "ext2", "-b", "1024"}},
	{"no features", []string{"-t", "ext2", "-O", "none,ext_attr", "-b", "1024"}},
	{"ext3", []string{"-t", "ext3", "-b", "2048"}},
	{"ext4", []string{"-b", "4096", "-t", "ext4"}},
	{"ext4 1k", []string{"-t", "ext4", "-b", "1024"}},
	{"ext4 64k", []string{"-t", "ext4", "-b", "65536", "-J", "size=64"}},
	{"debian 13", []string{"-b", "4096", "-t", "ext4", "-O", "metadata_csum_seed,orphan_file"}},
	{"old kernels", []string{"-b", "4096", "-t", "ext4", "-O", "^metadata_csum,uninit_bg,^64bit"}},
	{"meta_bg", []string{"-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024"}},
	{"sparse_super2", []string{"-b", "4096", "-t", "ext4", "-O", "sparse_super2,^resize_inode"}},
	{"inline_data", []string{"-b", "4096", "-t", "ext4", "-O", "inline_data", "-I", "256"}},
	{"inline_data 1k inodes", []string{"-b", "4096", "-t", "ext4", "-O", "inline_data", "-I", "1024"}},
	{"small inodes", []string{"-b", "4096", "-t", "ext4", "-I", "128", "-O", "^metadata_csum"}},
	{"ea_inode", []string{"-b", "4096", "-t", "ext4", "-O", "ea_inode,large_dir,quota,project"}},
	{"casefold", []string{"-b", "4096", "-t", "ext4", "-O", "casefold", "-E", "encoding=utf8"}},
	{"no journal", []string{"-b", "4096", "-t", "ext4", "-O", "^has_journal,mmp"}},
}

const imageSize = 256 << 20

func TestReadsWhatMke2fsMakes(t *testing.T) {
	seed := t.TempDir()
	testenv.SampleTree(t, seed)
	want := testenv.TreeLines(t, hostTree(seed), false)
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			image := testenv.Mke2fs(t, imageSize, append(slices.Clone(f.args), "-d", seed)...)
			testenv.SameLines(t, testenv.TreeLines(t, open(t, image).Source("."), false), want)
			// Indexed directories, which mke2fs does not make. Its status 1 says that it changed something.
			if err := exec.Command("e2fsck", "-fyD", image).Run(); err != nil && err.Error() != "exit status 1" {
				t.Fatal(err)
			}
			testenv.SameLines(t, testenv.TreeLines(t, open(t, image).Source("."), false), want)
		})
	}
}

func TestReadsWhatTheKernelWrites(t *testing.T) {
	seed := t.TempDir()
	testenv.SampleTree(t, seed)
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			image := testenv.Mke2fs(t, imageSize, f.args...)
			dir, unmount := testenv.Mount(t, image)
			testenv.Run(t, "cp", "-a", "--sparse=always", seed+"/.", dir)
			testenv.Run(t, "sh", "-c", "cd "+dir+" && rm -f sub/many/*7* && truncate -s 20M sparse && (fallocate -l 1M prealloc || :) && touch -d @1000000000 sparse prealloc")
			want := testenv.TreeLines(t, hostTree(dir), false)
			unmount()
			testenv.SameLines(t, testenv.TreeLines(t, open(t, image).Source("."), false), want)
		})
	}
}

// The journal of an image that is copied while it is mounted holds what the file system does not yet.
func TestRecoversInMemory(t *testing.T) {
	for _, f := range []struct {
		name  string
		args  []string
		mount []string
	}{
		{"metadata_csum", nil, nil},
		{"no checksums", []string{"-O", "^metadata_csum,^64bit"}, nil},
		{"journal_checksum", []string{"-O", "^metadata_csum"}, []string{"journal_checksum"}},
		{"data=journal", nil, []string{"data=journal"}},
		{"1k", []string{"-b", "1024"}, nil},
	} {
		t.Run(f.name, func(t *testing.T) {
			image := testenv.Mke2fs(t, 64<<20, append([]string{"-t", "ext4", "-b", "4096"}, f.args...)...)
			dir, unmount := testenv.Mount(t, image, f.mount...)
			script := `cd %s && mkdir -p a/b && for i in $(seq 300); do echo "$i" > a/b/$i; done && sync -f . &&
				rm -rf a/b && mkdir c && for i in $(seq 200); do printf '\300\073\071\230%%s' $i > c/$i; done && mv c/1 a/ && ln c/2 a/two && sync -f .`
			testenv.Run(t, "sh", "-c", fmt.Sprintf(script, dir))
			want := testenv.TreeLines(t, hostTree(dir), false)
			dirty := filepath.Join(t.TempDir(), "dirty.ext4")
			testenv.Run(t, "cp", "--sparse=always", image, dirty)
			unmount()
			fsys := open(t, dirty)
			if !fsys.NeedsRecovery() || len(fsys.Logged()) == 0 {
				t.Fatalf("needs recovery: %v, %d blocks", fsys.NeedsRecovery(), len(fsys.Logged()))
			}
			before := sum(t, dirty)
			got := testenv.TreeLines(t, fsys.Source("."), false)
			testenv.SameLines(t, got, want)
			if sum(t, dirty) != before {
				t.Error("reading changed the image")
			}
			replayed := dirty + ".replayed"
			testenv.Run(t, "cp", "--sparse=always", dirty, replayed)
			_ = exec.Command("e2fsck", "-E", "journal_only", "-y", replayed).Run() // status 1: it was modified
			testenv.SameLines(t, got, testenv.TreeLines(t, open(t, replayed).Source("."), false))
			diffBlocks(t, fsys, replayed)
		})
	}
}

// diffBlocks compares what recovery in memory gives with what e2fsck made of the image.
func diffBlocks(t *testing.T, fsys *read.FS, replayed string) {
	t.Helper()
	other := open(t, replayed)
	for _, block := range fsys.Logged() {
		if block <= uint64(fsys.Super().FirstDataBlock) {
			continue // e2fsck changes the superblock
		}
		got, err := fsys.Block(block)
		if err != nil {
			t.Fatal(err)
		}
		want, err := other.Block(block)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("block %d differs from what e2fsck wrote", block)
		}
	}
}

func sum(t *testing.T, path string) [32]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}

func TestIsAnIOFS(t *testing.T) {
	seed := t.TempDir()
	testenv.Run(t, "sh", "-c", "cd "+seed+` && mkdir -p a/b empty && echo x > a/file && ln -s ../file a/b/link && ln -s /a/b/../file absolute &&
		mkfifo fifo && head -c 100000 /dev/urandom > a/b/random && : > null`)
	fsys := open(t, testenv.Mke2fs(t, 16<<20, "-t", "ext4", "-d", seed))
	if err := fstest.TestFS(fsys, "a/file", "a/b/link", "a/b/random", "absolute", "fifo"); err != nil {
		t.Error(err)
	}
	if text, err := fsys.ReadLink("absolute"); err != nil || text != "/a/b/../file" {
		t.Errorf("ReadLink: %q, %v", text, err)
	}
	for name, want := range map[string]error{"missing": fs.ErrNotExist, "a/file/x": banger.ErrInvalid, "/": fs.ErrInvalid} {
		if _, err := fsys.Stat(name); !errors.Is(err, want) {
			t.Errorf("Stat(%q): %v, want %v", name, err, want)
		}
	}
}

func TestLookup(t *testing.T) {
	seed := t.TempDir()
	testenv.SampleTree(t, seed)
	fsys := open(t, testenv.Mke2fs(t, imageSize, "-t", "ext4", "-b", "4096", "-d", seed))
	for path, want := range map[string]error{
		"/sub/file": nil, "absolute": nil, "../../sub//./file": nil, "sub/..": nil, "bad\xff\xfeutf8": nil, "sub/": nil,
		"loop": banger.ErrInvalid, "sub/file/": banger.ErrInvalid, "sub/none": banger.ErrNotFound,
	} {
		if _, err := fsys.Lookup(path, true); !errors.Is(err, want) {
			t.Errorf("Lookup(%q): %v, want %v", path, err, want)
		}
	}
	n, err := fsys.Lookup("sparse", false)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for off := int64(0); ; {
		start, end, err := n.NextData(off)
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d-%d", start, end))
		off = end
	}
	if want := "[0-8192 1048576-1056768 9437184-9442184]"; fmt.Sprint(got) != want {
		t.Errorf("data lies at %v, want %s", got, want)
	}
}

func TestSaysWhatAnImageIsInstead(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, size int, at map[int]string) string {
		data := make([]byte, size)
		for off, text := range at {
			copy(data[off:], text)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ path, want string }{
		{write("empty", 0, nil), "empty"},
		{write("zeros", 1<<20, nil), "zeros"},
		{write("gpt", 1<<20, map[int]string{510: "\x55\xaa", 512: "EFI PART"}), "GPT"},
		{write("mbr", 1<<20, map[int]string{510: "\x55\xaa"}), "MBR"},
		{write("btrfs", 1<<20, map[int]string{65600: "_BHRfS_M"}), "btrfs"},
		{write("gzip", 100, map[int]string{0: "\x1f\x8b"}), "gzip"},
		{write("qcow2", 1<<20, map[int]string{0: "QFI\xfb"}), "qcow2"},
		{write("text", 3000, map[int]string{0: "hello"}), "unknown"},
	} {
		f, err := os.Open(c.path)
		if err != nil {
			t.Fatal(err)
		}
		info, _ := f.Stat()
		_, err = read.Open(f, info.Size())
		f.Close()
		if !errors.Is(err, banger.ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", filepath.Base(c.path), err, c.want)
		}
	}
}

func TestRefusesByName(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want error
	}{
		"bigalloc": {[]string{"-O", "bigalloc"}, banger.ErrUnsupported},
		"encrypt":  {[]string{"-O", "encrypt"}, banger.ErrUnsupported},
	} {
		image := testenv.Mke2fs(t, 64<<20, append([]string{"-t", "ext4"}, c.args...)...)
		f, err := os.Open(image)
		if err != nil {
			t.Fatal(err)
		}
		_, err = read.Open(f, 64<<20)
		f.Close()
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	image := testenv.Mke2fs(t, 64<<20, "-t", "ext4")
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := read.Open(f, 63<<20); !errors.Is(err, banger.ErrCorrupt) || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("truncated image: %v", err)
	}
	if _, err := f.WriteAt([]byte{0xEE}, 1024+0x80); err != nil {
		t.Fatal(err)
	}
	if _, err := read.Open(f, 64<<20); !errors.Is(err, banger.ErrCorrupt) || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("bad checksum: %v", err)
	}
}
