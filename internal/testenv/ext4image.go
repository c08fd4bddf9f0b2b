package testenv

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Run runs a program that must succeed and gives what it printed.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(RequireTool(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Mke2fs makes a file system of the given size in a new sparse file; args are those of mke2fs.
func Mke2fs(t testing.TB, size int64, args ...string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image.ext4")
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	Run(t, "mke2fs", append(append([]string{"-q", "-F"}, args...), image)...)
	return image
}

// Mount mounts an image through a loop device until the test ends or the returned function is called. Needs root.
func Mount(t testing.TB, image string, options ...string) (dir string, unmount func()) {
	t.Helper()
	if os.Getuid() != 0 {
		Skip(t, "root")
	}
	dir = t.TempDir()
	if out, err := exec.Command("mount", "-o", strings.Join(append(options, "loop"), ","), image, dir).CombinedOutput(); err != nil {
		t.Skipf("needs loop mounts: %v: %s", err, out)
	}
	mounted := true
	unmount = func() {
		if mounted {
			mounted = false
			// A mount namespace that was made meanwhile (mmdebstrap, systemd-nspawn) has the mount too, and keeps the file system
			// from being written whole by umount alone.
			_ = exec.Command("mount", "-o", "remount,ro", dir).Run() // what can't be read-only is busy: umount tells
			Run(t, "umount", dir)
		}
	}
	t.Cleanup(unmount)
	return dir, unmount
}

// SampleTree fills dir with one of everything that file systems know. Devices and attributes of trusted name spaces are
// there for root only.
func SampleTree(t testing.TB, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	pattern := []byte(strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz\n", 150_000))
	for _, size := range []int{0, 1, 59, 60, 61, 155, 160, 1023, 1024, 4095, 4096, 4097, 70_000, 5 << 20} {
		must(os.WriteFile(path(fmt.Sprintf("size-%d", size)), pattern[:size], 0o644))
	}
	for _, n := range []int{1, 58, 59, 60, 61, 255, 1000} {
		must(os.Symlink(strings.Repeat("x", n), path(fmt.Sprintf("link-%d", n))))
	}
	must(os.Symlink("/sub/../sub/file", path("absolute")))
	must(os.Symlink("loop", path("loop")))
	must(os.MkdirAll(path("sub/many"), 0o755))
	must(os.WriteFile(path("sub/file"), []byte("content"), 0o4751))
	must(os.Chmod(path("sub/file"), os.ModeSetuid|0o751))
	must(os.Link(path("sub/file"), path("hard")))
	for i := range 1500 {
		must(os.WriteFile(path(fmt.Sprintf("sub/many/a name that is long enough to fill blocks %d", i)), nil, 0o600))
	}
	for _, name := range []string{"space and\ttab", "new\nline", "quote\"'\\", "-dash", "#hash", "<2>", "bad\xff\xfeutf8", strings.Repeat("n", 255), "ünï"} {
		must(os.WriteFile(path(name), []byte(name), 0o644))
	}
	must(os.MkdirAll(path(strings.Repeat("d/", 60)), 0o711))
	must(syscall.Mkfifo(path("fifo"), 0o620))
	sparseFile(t, path("sparse"), pattern[:5000])
	fragmented(t, path("fragmented"))
	must(unix.Lsetxattr(path("size-1"), "user.short", []byte("v"), 0))
	must(unix.Lsetxattr(path("size-1"), "user.empty", nil, 0))
	must(unix.Lsetxattr(path("size-60"), "user.long", bytes.Repeat([]byte("y"), 700), 0))
	must(unix.Lsetxattr(path("sub"), "user.dir", []byte("on a directory"), 0))
	if os.Getuid() == 0 {
		privileged(t, dir)
	}
	old := time.Unix(1_000_000_000, 0)
	must(filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		if err != nil || info.Mode()&os.ModeSymlink != 0 {
			return err
		}
		return os.Chtimes(p, old, old)
	}))
}

func privileged(t testing.TB, dir string) {
	t.Helper()
	acl := []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff")
	for _, err := range []error{
		unix.Mknod(filepath.Join(dir, "char"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Mknod(filepath.Join(dir, "block"), unix.S_IFBLK|0o600, int(unix.Mkdev(300, 70_000))),
		os.Lchown(filepath.Join(dir, "size-59"), 100_000, 4_000_000_000),
		unix.Lsetxattr(filepath.Join(dir, "size-61"), "system.posix_acl_access", acl, 0),
		unix.Lsetxattr(filepath.Join(dir, "size-61"), "trusted.overlay.opaque", []byte("y"), 0),
		unix.Lsetxattr(filepath.Join(dir, "size-61"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func sparseFile(t testing.TB, path string, data []byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range []int64{0, 1 << 20, 9 << 20} {
		if _, err := f.WriteAt(data, off); err != nil {
			t.Fatal(err)
		}
	}
}

// fragmented has a hole of 12 KiB after every 4 KiB: too many extents for an inode.
func fragmented(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range int64(600) {
		if _, err := f.WriteAt(bytes.Repeat([]byte{byte(i), 'x'}, 2048), i*16<<10); err != nil {
			t.Fatal(err)
		}
	}
}
