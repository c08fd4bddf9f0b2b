package write_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/ext4/write"
	"banger/internal/testenv"
)

// tmpfs mounts a file system of so many KiB until the test ends. Needs root.
func tmpfs(t *testing.T, kib int) string {
	t.Helper()
	if os.Getuid() != 0 {
		testenv.Skip(t, "root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dk", kib)); err != nil {
		testenv.Skip(t, "mounts of tmpfs")
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// A host file system that is too small for the image, by much or by little.
func TestHostIsFull(t *testing.T) {
	tmpfs(t, 4) // or skip all
	made := false
	for kib := 4; kib < 16<<10 && !made; kib += max(4, kib/3) {
		t.Run(fmt.Sprint(kib, " KiB"), func(t *testing.T) {
			dir := tmpfs(t, kib)
			image := filepath.Join(dir, "image")
			opts := options(64 << 20)
			opts.Sync, opts.ReservedGDT = true, 64
			_, err := write.CreateFile(t.Context(), image, opts, faulted())
			if err == nil {
				made = true
				judge(t, image)
				testenv.SameLines(t, content(t, image), wantFaulted(t))
				if kib < 1<<10 {
					t.Error("it cannot have had room")
				}
				return
			}
			var full *banger.Error
			if !errors.As(err, &full) || full.Kind != banger.ErrUnavailable || !errors.Is(err, unix.ENOSPC) || full.Subject != image || !strings.Contains(full.Hint, dir) {
				t.Errorf("%#v", err)
			}
			wantGone(t, image)
		})
	}
	if !made {
		t.Error("no size is enough")
	}
}

func TestHostIsReadOnly(t *testing.T) {
	dir := tmpfs(t, 64)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "image")
	if _, err := write.CreateFile(t.Context(), image, options(16<<20), few()); !errors.Is(err, banger.ErrUnavailable) || !errors.Is(err, unix.EROFS) {
		t.Errorf("%v", err)
	}
	wantGone(t, image)
}

// A process that may write small files only gets an error, not the signal that goes with it.
func TestFileSizeLimit(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, limit := range []string{"0", "1", "1000"} {
		image := filepath.Join(t.TempDir(), "image")
		cmd := exec.Command("sh", "-c", "ulimit -f "+limit+` && exec "$0"`, self)
		cmd.Env = append(os.Environ(), childEnv+"="+image)
		out, err := cmd.Output()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.HasPrefix(string(out), banger.KindName(banger.ErrUnavailable)+" ") {
			t.Errorf("at most %s: %v, %s", limit, err, out)
		}
		wantGone(t, image)
	}
}
