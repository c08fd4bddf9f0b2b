package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
)

func TestRun(t *testing.T) {
	var out, errs bytes.Buffer
	err := Run(t.Context(), Command{Path: "sh", Args: []string{"-c", `cat; echo "$V" >&2; pwd`}, Dir: "/",
		Env: []string{"V=from us"}, Stdin: strings.NewReader("in\x00put\n"), Stdout: &out, Stderr: &errs})
	if err != nil || out.String() != "in\x00put\n/\n" || errs.String() != "from us\n" {
		t.Errorf("Run = %v, stdout %q, stderr %q", err, out.String(), errs.String())
	}
}

func TestRunFailures(t *testing.T) {
	tests := []struct {
		name, script string
		want         ExitError
		text         string
	}{
		{"status", "echo one >&2; echo two >&2; exit 7", ExitError{Program: "sh", Status: 7, Stderr: "one\ntwo\n"}, "sh: exit status 7: two"},
		{"silent", "exit 1", ExitError{Program: "sh", Status: 1}, "sh: exit status 1"},
		{"signal", "kill -SEGV $$", ExitError{Program: "sh", Status: -1, Signal: syscall.SIGSEGV},
			"sh: ended by signal 11 (segmentation fault)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := Run(t.Context(), Command{Path: "sh", Args: []string{"-c", test.script}})
			var exit *ExitError
			if !errors.As(err, &exit) || *exit != test.want || err.Error() != test.text {
				t.Errorf("Run = %#v (%v), want %#v (%s)", exit, err, test.want, test.text)
			}
		})
	}
}

func TestRunRemembersLastLines(t *testing.T) {
	err := Run(t.Context(), Command{Path: "sh", Args: []string{"-c", "seq 1 100000 >&2; exit 1"}})
	var exit *ExitError
	if !errors.As(err, &exit) || len(exit.Stderr) > tailSize || !strings.HasSuffix(exit.Stderr, "\n99999\n100000\n") {
		t.Fatalf("Run = %v", err)
	}
	if first, _, _ := strings.Cut(exit.Stderr, "\n"); len(first) != 5 {
		t.Errorf("first line kept is %q, want a whole one", first)
	}
}

func TestMissingProgram(t *testing.T) {
	for name, err := range map[string]error{
		"Run":    Run(t.Context(), Command{Path: "no-such-program"}),
		"Start":  second(Start(Spec{Path: "no-such-program"})),
		"Detach": second(Detach(Spec{Path: "/nowhere/no-such-program"})),
	} {
		if !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(banger.HintOf(err), "install") {
			t.Errorf("%s = %v, hint %q, want ErrUnavailable with an install hint", name, err, banger.HintOf(err))
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestInstallHint(t *testing.T) {
	tests := []struct{ release, program, want string }{
		{"ID=debian\n", "qemu-system-x86_64", "install it: sudo apt-get install --no-install-recommends qemu-system-x86"},
		{"ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "newuidmap", "install it: sudo apt-get install --no-install-recommends uidmap"},
		{"NAME=x\nID='fedora'\n", "ssh", "install it: sudo dnf install openssh-clients"},
		{"ID=arch\n", "git", "install it: sudo pacman -S git"},
		{"ID=plan9\n", "git", "install the package that has git"},
		{"", "git", "install the package that has git"},
	}
	for _, test := range tests {
		if got := installHint(test.program, []byte(test.release)); got != test.want {
			t.Errorf("installHint(%s, %q) = %q, want %q", test.program, test.release, got, test.want)
		}
	}
}

func TestRunEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	done := make(chan error, 1)
	go func() {
		// The background sleep is of the group: it must end too, or it holds the pipe open.
		done <- Run(ctx, Command{Path: "sh", Args: []string{"-c", "sleep 1000 & echo $!; wait"}, Stdout: w})
	}()
	var child int
	if _, err := fmt.Fscan(r, &child); err != nil {
		t.Fatal(err)
	}
	handle, err := HandleOf(child)
	if err != nil {
		t.Fatal(err)
	}
	cancel(cause)
	if err := <-done; !errors.Is(err, banger.ErrInterrupted) || !errors.Is(err, cause) {
		t.Errorf("Run = %v, want ErrInterrupted because of %v", err, cause)
	}
	if err := handle.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if err := Run(ctx, Command{Path: "true"}); !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("Run with a dead context = %v, want ErrInterrupted", err)
	}
}

func TestHandle(t *testing.T) {
	p, err := Start(Spec{Path: "sleep", Args: []string{"1000"}})
	if err != nil {
		t.Fatal(err)
	}
	h := p.Handle
	defer h.Kill(context.Background())
	if again, err := HandleOf(h.PID); err != nil || again != h {
		t.Errorf("HandleOf = %v, %v, want %v", again, err, h)
	}
	if !h.Alive() {
		t.Error("Alive = false for a sleeping process")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := h.Wait(ctx); !errors.Is(err, banger.ErrInterrupted) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait = %v, want ErrInterrupted", err)
	}
	for name, other := range map[string]Handle{
		"another start time": {h.PID, h.StartTime + 1, h.BootID},
		"another boot":       {h.PID, h.StartTime, "b"},
		"zero":               {},
	} {
		if other.Alive() || other.Wait(t.Context()) != nil || !errors.Is(other.Signal(syscall.SIGKILL), banger.ErrNotFound) || other.Kill(t.Context()) != nil {
			t.Errorf("%s: taken for the process", name)
		}
	}
	if !h.Alive() {
		t.Error("the signal for another process killed this one")
	}
	if err := h.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	var exit *ExitError
	if err := p.Exit(); !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL {
		t.Errorf("Exit = %v, want SIGKILL", err)
	}
	if h.Alive() || h.Wait(t.Context()) != nil || h.Kill(t.Context()) != nil {
		t.Error("a dead process counts as alive")
	}
}

func TestZombieIsGone(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	h, err := HandleOf(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h.Alive() {
		t.Error("Alive = true for a zombie")
	}
}

func TestSelf(t *testing.T) {
	h, err := Self()
	if err != nil || h.PID != os.Getpid() || !h.Alive() {
		t.Errorf("Self = %v, %v", h, err)
	}
}

func TestStartInheritsNothing(t *testing.T) {
	// A descriptor that our parent left open: not marked by Go.
	leak, err := syscall.Dup(1)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(leak)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	extra, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	p, err := Start(Spec{Path: "sh", Args: []string{"-c", `readlink /proc/$$/fd/*; ps -o sid= -p $$ | tr -d ' '; echo $$`}, Log: log,
		ExtraFiles: []*os.File{extra}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Exit(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(log.Name())
	want := fmt.Sprintf("/dev/null\n%[1]s\n%[1]s\n/etc/passwd\n%[2]d\n%[2]d\n", log.Name(), p.Handle.PID)
	if err != nil || string(got) != want {
		t.Errorf("descriptors and session:\n%swant:\n%s", got, want)
	}
}

func TestDetachLeavesNoZombie(t *testing.T) {
	h, err := Detach(Spec{Path: "true"})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := HandleOf(h.PID); errors.Is(err, banger.ErrNotFound) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the child was never reaped")
		}
	}
}

func TestCreds(t *testing.T) {
	cred := ordinary(t)
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	got, err := Creds(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	uid, gid := os.Getuid(), os.Getgid()
	if cred != nil {
		uid, gid = int(cred.Uid), int(cred.Gid)
	}
	if got.UIDs != [4]int{uid, uid, uid, uid} || got.GIDs != [4]int{gid, gid, gid, gid} || got.Effective|got.Permitted|got.Ambient != 0 {
		t.Errorf("Creds = %+v, want user %d, group %d, no capability", got, uid, gid)
	}
	if os.Getuid() == 0 {
		if own, err := Creds(os.Getpid()); err != nil || own.UIDs[1] != 0 || own.Effective == 0 {
			t.Errorf("Creds of root = %+v, %v: want uid 0 and capabilities", own, err)
		}
	}
}
