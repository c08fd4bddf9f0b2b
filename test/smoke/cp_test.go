package smoke

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/testenv"
	"banger/internal/tree"
)

// nastyProgram is a static program that changes a guest's root in every way.
func nastyProgram(t *testing.T, w *testenv.World) string {
	t.Helper()
	out := filepath.Join(w.User.Dir(t), "nasty")
	build := exec.Command(testenv.RequireTool(t, "go"), "build", "-o", out, ".")
	build.Dir, build.Env = "testdata/nasty", append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return out
}

// mounted is what a running guest has mounted over its root; below it the disk has nothing to compare.
var mounted = regexp.MustCompile(`^(proc|sys|dev|run|(usr/)?lib/modules/[^/]+)(/|$)`)

// describeVM copies a tree out of a machine as a tar and describes it: names, kinds, modes, owners, times, links, attributes and hashes.
func describeVM(t *testing.T, w *testenv.World, from string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root.tar")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := w.Command(ctx, "vm", "cp", from, "-")
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &errs
	start := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	info, _ := out.Stat()
	t.Logf("%d bytes in %s", info.Size(), time.Since(start))
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	return testenv.TreeLines(t, tree.Filter(tree.FromTar(out, tree.Limits{}), func(e *tree.Entry) bool {
		e.AccessTime = time.Time{} // reading changes it
		return !mounted.MatchString(e.Path)
	}), true)
}

// What is read of a stopped machine's disk is what its guest saw: the agent's own view through its kernel is the judge.
func TestFilesOfAStoppedVM(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "create", "--name", "devbox")
	w.Must("vm", "start", "devbox")
	w.Must("vm", "cp", nastyProgram(t, w), "devbox:/usr/local/bin/")
	w.Must("vm", "exec", "devbox", "--", "/usr/local/bin/nasty")
	want := describeVM(t, w, "devbox:/")
	w.Must("vm", "stop", "devbox")
	testenv.SameLines(t, describeVM(t, w, "devbox:/"), want)
	if state := showVM(w, "devbox").State; state != banger.StateStopped {
		t.Errorf("after a copy out of it the machine is %s", state)
	}

	// A second life: more changes on what was changed, and an end without a shutdown. What was synced is there.
	w.Must("vm", "start", "devbox")
	w.Must("vm", "exec", "devbox", "--", "sh", "-c", "mv /service /opt/moved && rm -r /opt/apt && mv /usr/share/renamed/* /new && echo late > /root/late && sync")
	changed := []string{"devbox:/opt", "devbox:/new", "devbox:/root", "devbox:/usr/share/renamed", "devbox:/etc"}
	wants := map[string][]string{}
	for _, from := range changed {
		wants[from] = describeVM(t, w, from)
	}
	w.Must("vm", "kill", "devbox")
	for _, from := range changed {
		testenv.SameLines(t, describeVM(t, w, from), wants[from])
	}
}

// manyFiles makes a tree of 10,000 files with the modes that a user may have.
func manyFiles(t *testing.T, w *testenv.World) string {
	t.Helper()
	dir := filepath.Join(w.User.Dir(t), "many")
	script := `mkdir many && cd many && for d in $(seq 100); do mkdir d$d && for f in $(seq 100); do echo "$d $f" > d$d/f$f; done; done &&
		chmod 500 d7 && chmod 000 d8/f1 && chmod 4755 d9/f1 && ln d1/f1 hard && ln -s d1/f1 soft && ln -s /nowhere dangling && mkfifo fifo &&
		touch -d 2001-02-03T04:05:06.789 d2/f2 d3 && chmod 400 d8/f1`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = filepath.Dir(dir)
	w.User.As(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// copyLines describes a tree as its copies have it.
func copyLines(t *testing.T, dir string) []string {
	t.Helper()
	return testenv.TreeLines(t, tree.Filter(tree.FromDir(dir), func(e *tree.Entry) bool {
		e.Mode, e.AccessTime, e.ChangeTime = e.Mode&0o1777, time.Time{}, time.Time{}
		return e.Kind != tree.FIFO
	}), true)
}

func TestCopyBothWays(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "create", "--name", "devbox", "--disk-size", "4G")
	w.Must("vm", "start", "devbox")
	many := manyFiles(t, w)
	want := copyLines(t, many)
	back := w.User.Dir(t)
	var report struct {
		Entries int      `json:"entries"`
		Bytes   int64    `json:"bytes"`
		Skipped int      `json:"skipped"`
		Left    []string `json:"left_out"`
		Elapsed int64    `json:"elapsed_ns"`
	}
	t.Run("10,000 files into a running one", func(t *testing.T) {
		w.JSON(&report, "vm", "cp", many, "devbox:/srv")
		if report.Entries != 10104 || report.Skipped != 1 || len(report.Left) != 1 || report.Left[0] != "many/fifo" {
			t.Errorf("report %+v", report)
		}
		t.Logf("in: %s", time.Duration(report.Elapsed))
		r := w.Run("vm", "exec", "devbox", "--", "sh", "-c", "cd /srv/many && find . -type f | wc -l && stat -c '%a %u %g' d7 d9/f1 && cat d100/f100 && readlink dangling && test d1/f1 -ef hard && ls -A /srv")
		wantStatus(t, r, 0)
		if want := "10001\n500 0 0\n755 0 0\n100 100\n/nowhere\nmany\n"; r.Stdout != want {
			t.Errorf("in the guest: %q, want %q", r.Stdout, want)
		}
	})
	t.Run("10,000 files out of a running one", func(t *testing.T) {
		w.JSON(&report, "vm", "cp", "devbox:/srv/many", filepath.Join(back, "running"))
		t.Logf("out: %s", time.Duration(report.Elapsed))
		testenv.SameLines(t, copyLines(t, filepath.Join(back, "running")), want)
	})
	sparse := filepath.Join(w.User.Dir(t), "sparse")
	if err := errors.Join(os.WriteFile(sparse, []byte("begin"), 0o644), os.Truncate(sparse, 1<<30)); err != nil {
		t.Fatal(err)
	}
	t.Run("a sparse file of 1 GiB", func(t *testing.T) {
		w.JSON(&report, "vm", "cp", sparse, "devbox:/root/sparse")
		t.Logf("in: %s", time.Duration(report.Elapsed))
		if out := w.Must("vm", "exec", "devbox", "--", "sh", "-c", "stat -c %s /root/sparse; test $(stat -c %b /root/sparse) -lt 1024 && echo sparse"); out != "1073741824\nsparse\n" {
			t.Errorf("in the guest: %q", out)
		}
		w.JSON(&report, "vm", "cp", "devbox:/root/sparse", back)
		t.Logf("out: %s", time.Duration(report.Elapsed))
		checkSparse(t, filepath.Join(back, "sparse"), sparse)
	})
	t.Run("speed beside a pipe through exec", func(t *testing.T) {
		random := filepath.Join(w.User.Dir(t), "random")
		data := make([]byte, 32<<20)
		rand.New(rand.NewSource(1)).Read(data)
		if err := os.WriteFile(random, data, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, way := range []struct {
			name string
			run  func() testenv.Result
		}{
			{"cp in", func() testenv.Result { return w.Run("vm", "cp", random, "devbox:/root/cp") }},
			{"exec in", func() testenv.Result {
				return w.RunInput(string(data), "vm", "exec", "devbox", "--", "sh", "-c", "cat > /root/exec && sync /root/exec")
			}},
			{"cp out", func() testenv.Result { return w.Run("vm", "cp", "devbox:/root/cp", filepath.Join(back, "random")) }},
			{"exec out", func() testenv.Result { return w.Run("vm", "exec", "devbox", "--", "cat", "/root/exec") }},
		} {
			r := way.run()
			wantStatus(t, r, 0)
			t.Logf("%s: %.1f MB/s", way.name, 32*1.048576/r.Elapsed.Seconds())
		}
		if sum(t, filepath.Join(back, "random")) != sum(t, random) {
			t.Error("the copy differs")
		}
	})
	t.Run("errors", func(t *testing.T) {
		for _, tc := range []struct {
			args   []string
			status int
			stderr string
		}{
			{[]string{"devbox:/no/such", back}, 3, "/no/such"},
			{[]string{many, "devbox:/etc/passwd"}, 4, "a directory can't replace a file"},
			{[]string{sparse, "devbox:/no/such/file"}, 3, "there is no directory /no/such"},
			{[]string{"devbox:/dev/null", filepath.Join(back, "null")}, 1, "there is nothing to copy"},
			{[]string{"devbox:/etc", filepath.Join(back, "sparse")}, 4, "a directory can't replace a file"},
			{[]string{"nosuch:/etc", back}, 3, "nosuch"},
			{[]string{sparse, "devbox:/proc/x"}, 3, ""},
			{[]string{filepath.Join(back, "none"), "devbox:/srv"}, 3, "none"},
		} {
			r := w.Run(append([]string{"vm", "cp"}, tc.args...)...)
			if r.Status != tc.status || !strings.Contains(r.Stderr, tc.stderr) {
				t.Errorf("vm cp %q: status %d, want %d and %q\n%s", tc.args, r.Status, tc.status, tc.stderr, r.Stderr)
			}
		}
	})
	t.Run("out of a stopped one", func(t *testing.T) {
		w.Must("vm", "stop", "devbox")
		w.JSON(&report, "vm", "cp", "devbox:/srv/many/.", filepath.Join(back, "stopped"))
		t.Logf("out: %s", time.Duration(report.Elapsed))
		testenv.SameLines(t, copyLines(t, filepath.Join(back, "stopped")), want)
		if err := os.Remove(filepath.Join(back, "sparse")); err != nil {
			t.Fatal(err)
		}
		w.Must("vm", "cp", "devbox:/root/sparse", back)
		checkSparse(t, filepath.Join(back, "sparse"), sparse)
		wantStatus(t, w.Run("vm", "cp", "devbox:/no/such", back), 3, "/no/such")
		if row := showVM(w, "devbox"); row.State != banger.StateStopped {
			t.Errorf("it is %s", row.State)
		}
	})
	t.Run("into a stopped one", func(t *testing.T) {
		r := w.Run("vm", "cp", many, "devbox:/opt/again")
		wantStatus(t, r, 0, "without its own init")
		if row := showVM(w, "devbox"); row.State != banger.StateStopped {
			t.Errorf("it is %s", row.State)
		}
		w.Must("vm", "cp", "devbox:/opt/again", filepath.Join(back, "again"))
		testenv.SameLines(t, copyLines(t, filepath.Join(back, "again")), want)
	})
}

func checkSparse(t *testing.T, got, want string) {
	t.Helper()
	info, err := os.Stat(got)
	if err != nil {
		t.Fatal(err)
	}
	if blocks := info.Sys().(*syscall.Stat_t).Blocks; info.Size() != 1<<30 || blocks > 1024 {
		t.Errorf("%d bytes in %d blocks", info.Size(), blocks)
	}
	if sum(t, got) != sum(t, want) {
		t.Error("the copy differs")
	}
}

func sum(t *testing.T, path string) string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// A copy that is interrupted, or finds no space, leaves nothing of itself on either side.
func TestCopyLeavesNothing(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "create", "--name", "devbox", "--disk-size", "256M")
	w.Must("vm", "start", "devbox")
	dir := w.User.Dir(t)
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, bytes.Repeat([]byte("no hole here"), 30<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	guestHas := func() string { return w.Must("vm", "exec", "devbox", "--", "ls", "-A", "/srv") }
	t.Run("no space in the guest", func(t *testing.T) {
		wantStatus(t, w.Run("vm", "cp", large, "devbox:/srv"), 5, "no space left")
		if got := guestHas(); got != "" {
			t.Errorf("the guest has %q", got)
		}
	})
	t.Run("interrupted on the way in", func(t *testing.T) {
		r := interrupted(t, w, "vm", "cp", "-v", large, "devbox:/srv")
		wantStatus(t, r, 130)
		if got := guestHas(); got != "" {
			t.Errorf("the guest has %q", got)
		}
	})
	t.Run("interrupted on the way out", func(t *testing.T) {
		out := w.User.Dir(t)
		w.Must("vm", "exec", "devbox", "--", "sh", "-c", "head -c 100000000 /dev/urandom > /root/large")
		r := interrupted(t, w, "vm", "cp", "-v", "devbox:/root/large", out)
		wantStatus(t, r, 130)
		if list, err := os.ReadDir(out); err != nil || len(list) > 0 {
			t.Errorf("the host has %v, %v", list, err)
		}
	})
	t.Run("interrupted on the way into a stopped one", func(t *testing.T) {
		w.Must("vm", "stop", "devbox")
		r := interrupted(t, w, "vm", "cp", "-v", large, "devbox:/srv")
		wantStatus(t, r, 130)
		if row := showVM(w, "devbox"); row.State != banger.StateStopped {
			t.Errorf("it is %s", row.State)
		}
		out := w.User.Dir(t)
		w.Must("vm", "cp", "devbox:/srv/.", out)
		if list, err := os.ReadDir(out); err != nil || len(list) > 0 {
			t.Errorf("its disk has %v, %v", list, err)
		}
	})
}

// interrupted runs banger with -v until it tells of bytes that were copied, and interrupts it.
func interrupted(t *testing.T, w *testenv.World, args ...string) testenv.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := w.Command(ctx, args...)
	watch := &untilText{text: "/s (", found: func() { signalTree(t, cmd.Process.Pid) }}
	cmd.Stderr = watch
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return testenv.Result{Stderr: watch.got.String(), Status: cmd.ProcessState.ExitCode()}
}

// untilText calls found once when text was written.
type untilText struct {
	text  string
	found func()
	got   strings.Builder
	done  bool
}

func (u *untilText) Write(p []byte) (int, error) {
	u.got.Write(p)
	if !u.done && strings.Contains(u.got.String(), u.text) {
		u.done = true
		u.found()
	}
	return len(p), nil
}

// TestCopyFiles copies a small tree each way, while the machine runs and while it does not.
func TestCopyFiles(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	w.Must("vm", "create", "--name", "devbox")
	w.Must("vm", "start", "devbox")
	dir := filepath.Join(w.User.Dir(t), "tree")
	userFile(t, w, filepath.Join(dir, "a/b"), "content")
	if err := os.Symlink("a/b", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"running", "stopped"} {
		r := w.Run("vm", "cp", dir, "devbox:/srv/"+state)
		wantStatus(t, r, 0)
		if state == "stopped" != strings.Contains(r.Stderr, "started without its own init") {
			t.Errorf("%s: %s", state, r.Stderr)
		}
		back := filepath.Join(w.User.Dir(t), state)
		w.Must("vm", "cp", "devbox:/srv/"+state, back)
		if content, err := os.ReadFile(filepath.Join(back, "link")); err != nil || string(content) != "content" {
			t.Errorf("%s: it came back as %q, %v", state, content, err)
		}
		if got := showVM(w, "devbox").State; string(got) != state {
			t.Errorf("after the copy it is %s, want %s", got, state)
		}
		w.Must("vm", "stop", "devbox")
	}
}
