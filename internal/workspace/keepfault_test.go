package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/testenv"
	"banger/internal/transfer"
)

// keepEnv makes this program save the work of a guest, as the daemon does. Its value is a directory with what keepJob writes.
const keepEnv = "BANGER_TEST_KEEP"

func TestMain(m *testing.M) {
	dir := os.Getenv(keepEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // strace counts the calls of each thread
	record, err := ReadRecord(filepath.Join(dir, "record"))
	if err == nil {
		_, err = Saves{Dir: filepath.Join(dir, "saves")}.Keep(context.Background(), local(nil), keepVM, record, time.Now())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
}

var keepVM = banger.VM{ID: "0123456789ab", Spec: banger.VMSpec{Name: "devbox"}}

// keepJob makes a guest with work and gives what has to come out of it.
func keepJob(t *testing.T) (dir string, record Record) {
	t.Helper()
	host := newRepo(t)
	writeFile(t, filepath.Join(host, "a"), "1")
	commit(t, host, "c")
	guest, record := sent(t, host, Options{})
	writeFile(t, filepath.Join(guest, "a"), "2")
	commit(t, guest, "work")
	writeFile(t, filepath.Join(guest, "new"), "new")
	dir = t.TempDir()
	if err := record.Write(filepath.Join(dir, "record")); err != nil {
		t.Fatal(err)
	}
	return dir, record
}

// checkKept holds the directory of saves against what the keeper said: no half of a save is left by the daemon's next start, and
// what is there can be restored.
func checkKept(t *testing.T, what, dir string, record Record, least int) {
	t.Helper()
	saves := Saves{Dir: filepath.Join(dir, "saves")}
	// Programs of a daemon that was killed may still write for a moment.
	testenv.WaitFor(t, 20*time.Second, "the last programs to end", func() bool { return saves.CleanUp() == nil })
	list, err := saves.List()
	if err != nil || len(list) < least {
		t.Fatalf("%s: %d saves, %v, want %d", what, len(list), err, least)
	}
	for _, save := range list {
		into := filepath.Join(t.TempDir(), "clone")
		gitIn(t, "/", "clone", "-q", record.HostPath, into)
		if err := Restore(t.Context(), save, into); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		save.HostPath = into
		if at(t, save, "head", "a") != "2" || at(t, save, "untracked", "new") != "new" {
			t.Errorf("%s: what was restored is not what was saved", what)
		}
	}
	entries, _ := os.ReadDir(saves.Dir)
	if len(entries) != 2*len(list) {
		t.Errorf("%s: %d saves and these files: %v", what, len(list), entries)
	}
	if err := os.RemoveAll(saves.Dir); err != nil {
		t.Fatal(err)
	}
}

// TestEachStepOfASaveFails has each system call that makes a save durable fail once, with an error and by the end of the daemon.
func TestEachStepOfASaveFails(t *testing.T) {
	strace := testenv.RequireTool(t, "strace")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, record := keepJob(t)
	type faults struct {
		calls, what string
		least       int // how often they are made
	}
	list := []faults{{"fsync,renameat", "signal=SIGKILL", 4}}
	if testenv.Tier() != "test" {
		list = append(list, faults{"fsync", "error=EIO", 3}, faults{"renameat,rename", "error=EIO", 2}, faults{"mkdirat", "error=ENOSPC", 2})
	}
	for _, fault := range list {
		n := 1
		for ; ; n++ {
			cmd := exec.Command(strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+fault.calls, "-e", fmt.Sprintf("inject=%s:%s:when=%d", fault.calls, fault.what, n), self)
			cmd.Env = append(os.Environ(), keepEnv+"="+dir)
			out, err := cmd.CombinedOutput()
			what := fmt.Sprintf("%s %s number %d (%v %s)", fault.calls, fault.what, n, err, out)
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) || n > 60 {
				t.Fatal(what)
			}
			if err == nil {
				checkKept(t, what, dir, record, 1)
				break
			}
			checkKept(t, what, dir, record, 0)
		}
		if n <= fault.least {
			t.Errorf("%s are made %d times, want %d at least", fault.calls, n-1, fault.least)
		}
	}
}

// stride is how many steps are passed over: in tier test not each is tried.
func stride() int {
	if testenv.Tier() == "test" {
		return 7
	}
	return 1
}

// TestEachProgramOfASaveFails has git fail, or the daemon die, at each of its calls.
func TestEachProgramOfASaveFails(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	git := testenv.RequireTool(t, "git")
	dir, record := keepJob(t)
	for _, fault := range []string{"exit 1", "kill -9 $PPID; exit 1"} {
		bin := t.TempDir()
		script := "#!/bin/sh\necho x >> " + bin + "/calls\nn=0; while read -r _; do n=$((n+1)); done < " + bin + "/calls\nif [ $n = \"$FAIL_AT\" ]; then cat >/dev/null; " + fault + "; fi\nexec " + git + " \"$@\"\n"
		if err := os.WriteFile(filepath.Join(bin, "git"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		for n := 1; ; n += stride() {
			if err := os.WriteFile(filepath.Join(bin, "calls"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), keepEnv+"="+dir, fmt.Sprintf("FAIL_AT=%d", n), "PATH="+bin+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			calls, _ := os.ReadFile(filepath.Join(bin, "calls"))
			what := fmt.Sprintf("call %d of git: %s (%v %s)", n, fault, err, out)
			if strings.Count(string(calls), "\n") < n {
				checkKept(t, what, dir, record, 1)
				if n < 10 {
					t.Errorf("git is called %d times", n-1)
				}
				break
			}
			least := 0
			if err == nil { // git's "no" was an answer
				least = 1
			}
			checkKept(t, what, dir, record, least)
		}
	}
}

// TestReadingTheGuestFails cuts each of the conversations with a guest off at its begin and after some bytes.
func TestReadingTheGuestFails(t *testing.T) {
	dir, record := keepJob(t)
	saves := Saves{Dir: filepath.Join(dir, "saves")}
	cuts := []int64{40, -1, 0, 400}
	if testenv.Tier() == "test" {
		cuts = cuts[:1]
	}
	for _, bytes := range cuts {
		for n := 0; ; n++ {
			whole, asked := local(nil), 0
			guest := Guest{Ask: func(ctx context.Context, req transfer.Request, names []string) (io.ReadCloser, error) {
				asked++
				if asked != n+1 {
					return whole.Ask(ctx, req, names)
				}
				if bytes < 0 {
					return nil, &banger.Error{Kind: banger.ErrUnavailable, Err: errors.New("no answer")}
				}
				answer, err := whole.Ask(ctx, req, names)
				return cut{io.LimitReader(answer, bytes), answer}, err
			}}
			kept, err := saves.Keep(t.Context(), guest, keepVM, record, time.Now())
			what := fmt.Sprintf("conversation %d cut off after %d bytes: %v", n, bytes, err)
			if asked <= n {
				checkKept(t, what, dir, record, 1)
				break
			}
			if err == nil && bytes < 400 || err != nil && len(kept) > 0 {
				t.Errorf("%s: kept %v", what, kept)
			}
			entries, _ := os.ReadDir(saves.Dir)
			if err != nil && len(entries) > 0 {
				t.Errorf("%s: left %v", what, entries)
			}
			os.RemoveAll(saves.Dir)
		}
	}
}

type cut struct {
	io.Reader
	io.Closer
}

// TestNoSpaceForASave fills the file system of the saves.
func TestNoSpaceForASave(t *testing.T) {
	dir, record := keepJob(t)
	random := make([]byte, 512<<10) // bytes that do not compress
	rand.NewChaCha8([32]byte{}).Read(random)
	writeFile(t, filepath.Join(record.GuestPath, "large"), string(random))
	saves := Saves{Dir: filepath.Join(dir, "saves")}
	if err := os.Mkdir(saves.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, size := range []string{"16k", "64k", "256k", "700k", "1100k"} {
		if err := syscall.Mount("tmpfs", saves.Dir, "tmpfs", 0, "size="+size); err != nil {
			testenv.Skip(t, "a mount of tmpfs: "+err.Error())
		}
		kept, err := saves.Keep(t.Context(), local(nil), keepVM, record, time.Now())
		entries, _ := os.ReadDir(saves.Dir)
		if err := syscall.Unmount(saves.Dir, 0); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(banger.HintOf(err), saves.Dir) || len(entries) > 0 {
			t.Errorf("%s: kept %v, %v (hint %q), left %v", size, kept, err, banger.HintOf(err), entries)
		}
	}
}

// Two VMs of one name, one after the other, with the same work: both saves are there, beside each other in the repository.
func TestTwoVMsOfOneName(t *testing.T) {
	dir, record := keepJob(t)
	saves := Saves{Dir: filepath.Join(dir, "saves")}
	now := time.Now()
	for _, id := range []banger.VMID{"0123456789ab", "ba9876543210"} {
		if kept, err := saves.Keep(t.Context(), local(nil), banger.VM{ID: id, Spec: banger.VMSpec{Name: "devbox"}}, record, now); err != nil || len(kept) != 1 {
			t.Fatalf("Keep() = %v, %v", kept, err)
		}
	}
	list, err := saves.List()
	if err != nil || len(list) != 2 {
		t.Fatalf("List() = %v, %v", list, err)
	}
	for _, save := range list {
		if err := Restore(t.Context(), save, record.HostPath); err != nil {
			t.Error(err)
		}
	}
	for _, save := range list {
		if at(t, save, "untracked", "new") != "new" {
			t.Errorf("the work of %s is not there", save.VMID)
		}
	}
}
