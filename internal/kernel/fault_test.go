package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/statedir"
	"banger/internal/testenv"
)

// What a child of the tests is told: import this tree, and be killed at this event.
const (
	cutTree  = "BANGER_TEST_CUT_TREE"
	cutState = "BANGER_TEST_CUT_STATE"
	cutEvent = "BANGER_TEST_CUT_EVENT"
)

// importAndDie imports a kernel in a process that is killed on the way. It returns when nothing killed it.
func importAndDie() error {
	last, err := strconv.Atoi(os.Getenv(cutEvent))
	if err != nil {
		return err
	}
	m := New(Config{Dir: statedir.Dir{Root: os.Getenv(cutState)}})
	events := 0
	_, err = m.Import(context.Background(), "mine", banger.KernelSource{Dir: os.Getenv(cutTree)}, func(banger.Progress) {
		if events == last {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err == nil {
				select {}
			}
		}
		events++
	})
	return err
}

// TestImportKilled kills the importing process at each of its events. What is visible afterwards is a whole kernel or none.
func TestImportKilled(t *testing.T) {
	tree := writeTree(t, t.TempDir(), layouts(t)["debian"])
	for event := 0; ; event++ {
		m := emptyManager(t)
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), cutTree+"="+tree, cutState+"="+m.Dir.Root, fmt.Sprintf("%s=%d", cutEvent, event))
		out, err := child.CombinedOutput()
		if err == nil {
			if event < 4 {
				t.Errorf("the import had %d events", event)
			}
			break
		}
		if child.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("event %d: %v\n%s", event, err, out)
		}
		wantWholeOrNone(t, m, fmt.Sprintf("killed at event %d", event))
	}
}

// wantWholeOrNone checks what a daemon that starts now finds, and that an import works then.
func wantWholeOrNone(t *testing.T, m *Manager, what string) {
	t.Helper()
	list, err := m.List()
	if err := errors.Join(err, m.CleanUp()); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	entries, err := os.ReadDir(m.Dir.Kernels())
	if err != nil || len(entries) != len(list) {
		t.Errorf("%s: %d kernels and in their directory %v, %v", what, len(list), entries, err)
	}
	tree := writeTree(t, t.TempDir(), layouts(t)["debian"])
	if kernel, err := m.Import(t.Context(), "mine", banger.KernelSource{Dir: tree}, nil); err != nil || kernel.Version == "" {
		t.Errorf("%s: the next import: %+v, %v", what, kernel, err)
	}
}

// TestImportLeft: a staging directory that only misses its last name is no kernel.
func TestImportLeft(t *testing.T) {
	m := emptyManager(t)
	tree := writeTree(t, t.TempDir(), layouts(t)["debian"])
	if _, err := m.Import(t.Context(), "mine", banger.KernelSource{Dir: tree}, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(m.Dir.Kernel("mine").Path, m.Dir.KernelStaging("mine").Path); err != nil {
		t.Fatal(err)
	}
	if list, err := m.List(); err != nil || len(list) > 0 {
		t.Errorf("List = %v, %v, want none", list, err)
	}
	wantWholeOrNone(t, m, "left before its rename")
}

// TestImportCancelled ends an import at each of its events: nothing is left, without a CleanUp.
func TestImportCancelled(t *testing.T) {
	tree := writeTree(t, t.TempDir(), layouts(t)["debian"])
	for last := 0; ; last++ {
		m := emptyManager(t)
		ctx, cancel := context.WithCancel(t.Context())
		events := 0
		_, err := m.Import(ctx, "mine", banger.KernelSource{Dir: tree}, func(p banger.Progress) {
			if events++; events > last && !p.Done {
				cancel()
			}
		})
		cancelled := ctx.Err() != nil
		cancel()
		if !cancelled {
			if last < 3 || err != nil {
				t.Errorf("the import had %d events and ended with %v", last, err)
			}
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at event %d: %v", last, err)
		}
		wantNothing(t, m)
	}
}

// TestImportRenameFails lets another directory take the name while the kernel is made.
func TestImportRenameFails(t *testing.T) {
	m := emptyManager(t)
	tree := writeTree(t, t.TempDir(), layouts(t)["debian"])
	inTheWay := filepath.Join(m.Dir.Kernel("mine").Path, "x")
	_, err := m.Import(t.Context(), "mine", banger.KernelSource{Dir: tree}, func(p banger.Progress) {
		if p.Detail == "writing modules" {
			if err := os.MkdirAll(inTheWay, 0o700); err != nil {
				t.Error(err)
			}
		}
	})
	if err == nil {
		t.Error("the import replaced another directory")
	}
	entries, err := os.ReadDir(m.Dir.Kernels())
	if err != nil || len(entries) != 1 || entries[0].Name() != "mine" {
		t.Errorf("left in kernels: %v, %v", entries, err)
	}
}

// TestImportWithoutSpace imports onto file systems that get larger until it works: they are full at every step before.
func TestImportWithoutSpace(t *testing.T) {
	if os.Getuid() != 0 {
		testenv.Skip(t, "root, to mount file systems of a few pages")
	}
	tree := writeTree(t, t.TempDir(), layouts(t)["debian"])
	page := os.Getpagesize()
	full := 0
	for pages := 2; ; pages++ {
		m := emptyManager(t)
		if err := unix.Mount("tmpfs", m.Dir.Kernels(), "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", pages*page)); err != nil {
			t.Log(err)
			testenv.Skip(t, "tmpfs")
		}
		kernel, err := m.Import(t.Context(), "mine", banger.KernelSource{Dir: tree}, nil)
		if err == nil {
			_, err = m.Get(kernel.Name)
		} else if wantNothing(t, m); errors.Is(err, banger.ErrUnavailable) && banger.HintOf(err) != "" {
			full, err = full+1, errFull
		}
		if unmountErr := unix.Unmount(m.Dir.Kernels(), 0); unmountErr != nil {
			t.Fatal(unmountErr)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, errFull) {
			t.Fatalf("%d pages: %v (hint %q), want unavailable with a hint", pages, err, banger.HintOf(err))
		}
	}
	if full < 10 {
		t.Errorf("only %d sizes were too small", full)
	}
}

var errFull = errors.New("full")

// TestDeleteOverLeftovers: what an import that was cut off left is not in the way.
func TestDeleteOverLeftovers(t *testing.T) {
	m := emptyManager(t)
	tree := writeTree(t, t.TempDir(), layouts(t)["debian"])
	if _, err := m.Import(t.Context(), "mine", banger.KernelSource{Dir: tree}, nil); err != nil {
		t.Fatal(err)
	}
	staging := m.Dir.KernelStaging("mine").Path
	if err := os.MkdirAll(filepath.Join(staging, "unpacked"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Delete(t.Context(), "mine"); err != nil {
		t.Fatal(err)
	}
	wantNothing(t, m)
}

// Importing one name twice at once makes it once or finds it equal; other names do not wait.
func TestImportTogether(t *testing.T) {
	m := emptyManager(t)
	tree := writeTree(t, t.TempDir(), layouts(t)["debian"])
	errs := make(chan error)
	names := []string{"one", "one", "two", "one"}
	for _, name := range names {
		go func() {
			_, err := m.Import(t.Context(), name, banger.KernelSource{Dir: tree}, nil)
			errs <- err
		}()
	}
	for range names {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	var found []string
	list, err := m.List()
	for _, k := range list {
		found = append(found, k.Name)
	}
	if err != nil || !slices.Equal(found, []string{"one", "two"}) {
		t.Errorf("List = %q, %v", found, err)
	}
}
