package disk

import (
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

func TestGrow(t *testing.T) {
	home := newHome(t)
	const before, after = 64 << 20, 1 << 30
	if err := Grow(home, after); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("Grow of nothing = %v, want corrupt", err)
	}
	if err := Create(t.Context(), home, Options{SizeBytes: before, Time: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	if err := Grow(home, before/2); !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), "64 MiB") || !strings.Contains(err.Error(), "32 MiB") {
		t.Errorf("Grow to less = %v, want invalid with both sizes", err)
	}
	want := func(size int64) {
		t.Helper()
		info, err := os.Stat(home.Disk())
		m, manifestErr := readManifest(home)
		if err != nil || manifestErr != nil || info.Size() != size || m.Chain[0].SizeBytes != size || Check(home) != nil {
			t.Errorf("file %v, %v; manifest %+v, %v; Check %v: want %d bytes", info, err, m, manifestErr, Check(home), size)
		}
	}
	for _, size := range []int64{before, after, after} {
		if err := Grow(home, size); err != nil {
			t.Fatal(err)
		}
		want(size)
	}
	// Cut off between file and manifest; the next growth may go further.
	if err := os.Truncate(home.Disk(), 2*after); err != nil {
		t.Fatal(err)
	}
	if err := Check(home); err != nil {
		t.Errorf("Check of a growth that was cut off = %v", err)
	}
	if err := Grow(home, 3*after); err != nil {
		t.Fatal(err)
	}
	want(3 * after)
	limitFileSize(t, 3*after)
	if err := Grow(home, 4*after); !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), "holds no file") {
		t.Errorf("Grow beyond the host's file system = %v, want unavailable", err)
	}
	want(3 * after)
	if err := errors.Join(os.Remove(home.Disk()), os.Symlink("/dev/null", home.Disk())); err != nil {
		t.Fatal(err)
	}
	if err := Grow(home, 4*after); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("Grow of a link = %v, want corrupt", err)
	}
}

// A manifest that can't be written leaves the disk as it was.
func TestGrowUndone(t *testing.T) {
	home := newHome(t)
	const before = 64 << 20
	if err := Create(t.Context(), home, Options{SizeBytes: before, Time: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(os.Chmod(home.Disk(), 0o666), os.Chmod(home.DiskManifest(), 0o666), os.Chmod(filepath.Dir(home.Path), 0o755), os.Chmod(home.Path, 0o555))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(home.Path, 0o755) })
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never given back: the thread ends with the goroutine
		if _, err := unix.SetfsuidRetUid(65534); err != nil && os.Getuid() == 0 {
			done <- err
			return
		}
		done <- Grow(home, 2*before)
	}()
	if err := <-done; !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("Grow in a directory without rights = %v", err)
	}
	if info, err := os.Stat(home.Disk()); err != nil || info.Size() != before || Check(home) != nil {
		t.Errorf("file %v, %v, Check %v, want %d bytes", info, err, Check(home), before)
	}
}

// limitFileSize makes larger files impossible for the test, as a host's file system does.
func limitFileSize(t *testing.T, bytes uint64) {
	t.Helper()
	signal.Ignore(unix.SIGXFSZ)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_FSIZE, &old) })
}
