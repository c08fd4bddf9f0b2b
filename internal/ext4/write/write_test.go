package write_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/ext4/check"
	"banger/internal/ext4/read"
	"banger/internal/ext4/write"
	"banger/internal/testenv"
	"banger/internal/tree"
)

var (
	epoch = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	uuid  = [16]byte{0xb0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
)

func options(size int64) write.Options {
	return write.Options{SizeBytes: size, UUID: uuid, HashSeed: [16]byte{9, 8, 7}, Label: "test", Time: epoch}
}

// create makes an image that e2fsck and our own checker find no fault in.
func create(t testing.TB, opts write.Options, src tree.Source) (image string, result write.Result) {
	t.Helper()
	image = filepath.Join(t.TempDir(), "image.ext4")
	result, err := write.CreateFile(t.Context(), image, opts, src)
	if err != nil {
		t.Fatal(err)
	}
	judge(t, image)
	return image, result
}

func judge(t testing.TB, image string) {
	t.Helper()
	testenv.CheckExt4(t, image)
	f, size := open(t, image)
	faults, err := check.Check(f, size, check.Options{ZeroedTables: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range faults[:min(len(faults), 10)] {
		t.Error(fault)
	}
}

func open(t testing.TB, image string) (*os.File, int64) {
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
	return f, info.Size()
}

// content is an image's tree as our reader sees it.
func content(t testing.TB, image string) []string {
	t.Helper()
	fsys := openFS(t, image)
	return testenv.TreeLines(t, withoutLost(fsys.Source(".")), true)
}

func openFS(t testing.TB, image string) *read.FS {
	t.Helper()
	f, size := open(t, image)
	fsys, err := read.Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	return fsys
}

// mounted is an image's tree as the kernel sees it.
func mounted(t testing.TB, image string) []string {
	t.Helper()
	dir, unmount := testenv.Mount(t, image, "ro", "noatime")
	defer unmount()
	return testenv.TreeLines(t, withoutLost(tree.FromDir(dir)), true)
}

func withoutLost(src tree.Source) tree.Source {
	return tree.Filter(src, func(e *tree.Entry) bool { return e.Path != "lost+found" })
}

func file(path, content string) tree.Entry {
	e := tree.Entry{Path: path, Kind: tree.File, Mode: 0o644, Size: int64(len(content))}
	if content != "" {
		e.Content = strings.NewReader(content)
	}
	return e
}

// root is what a tree's root is made as unless it says something else.
func root() tree.Entry { return dir(".") }

func dir(path string) tree.Entry { return tree.Entry{Path: path, Kind: tree.Dir, Mode: 0o755} }

func link(path, target string) tree.Entry {
	return tree.Entry{Path: path, Kind: tree.HardLink, Link: target}
}

func symlink(path, text string) tree.Entry {
	return tree.Entry{Path: path, Kind: tree.Symlink, Mode: 0o777, Link: text}
}

// dated gives what has no times those that the writer takes.
func dated(src tree.Source) tree.Source {
	return tree.Filter(src, func(e *tree.Entry) bool {
		if e.ModTime.IsZero() {
			e.ModTime = epoch
		}
		if e.AccessTime.IsZero() {
			e.AccessTime = e.ModTime
		}
		if e.ChangeTime.IsZero() {
			e.ChangeTime = e.ModTime
		}
		return true
	})
}

func allocated(t testing.TB, image string) int64 {
	t.Helper()
	info, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// pattern gives n bytes without a zero.
func pattern(n int) string {
	return string(bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz\n"), n/37+1)[:n])
}

// pieces is content with holes: data of the given length at each offset.
type pieces struct {
	io.Reader
	size    int64
	offsets []int64
	length  int64
}

func newPieces(size, length int64, offsets ...int64) *pieces {
	p := &pieces{size: size, offsets: offsets, length: length}
	p.Reader = io.NewSectionReader(p, 0, size)
	return p
}

func (p *pieces) ReadAt(b []byte, off int64) (int, error) {
	if off >= p.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), p.size-off))
	clear(b[:n])
	for _, at := range p.offsets {
		for i := max(at, off); i < min(at+p.length, off+int64(n)); i++ {
			b[i-off] = byte(i%251) + 1
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (p *pieces) NextData(off int64) (start, end int64, err error) {
	for _, at := range p.offsets {
		if off < at+p.length {
			return max(at, off), at + p.length, nil
		}
	}
	return 0, 0, io.EOF
}
