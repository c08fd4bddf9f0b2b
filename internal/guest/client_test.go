package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"banger"
	"banger/internal/channel"
	"banger/internal/guest"
	"banger/internal/guestagent"
	"banger/internal/testenv"
)

const proxyEnv = "BANGER_TEST_PROXY" // this test binary is ssh's ProxyCommand to that guest.sock

func TestMain(m *testing.M) {
	if os.Args[0] == "banger-sftp" { // the agent's child
		os.Exit(guestagent.Main(os.Args))
	}
	if sock := os.Getenv(proxyEnv); sock != "" {
		if err := proxy(sock); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) // under nohup the commands could not trap it otherwise
	os.Exit(m.Run())
}

func proxy(sock string) error {
	conn, err := channel.Dial(context.Background(), sock, channel.PortSSH)
	if err != nil {
		return err
	}
	go func() {
		io.Copy(conn, os.Stdin)
		conn.(*net.UnixConn).CloseWrite()
	}()
	_, err = io.Copy(os.Stdout, conn)
	return err
}

// world is an agent in this process, behind a guest.sock as in a VM.
type world struct {
	sock  string
	keys  guest.Keys
	agent *guestagent.Server
	vm    *channel.Session // the guest's end
}

func newWorld(t *testing.T) *world {
	t.Helper()
	keys, err := guest.GenerateKeys("test")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{sock: filepath.Join(t.TempDir(), "guest.sock"), keys: keys, agent: guestagent.NewServer(false)}
	hostEnd, guestEnd := net.Pipe()
	server, err := channel.Serve(hostEnd, w.sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	if w.vm, err = channel.Guest(guestEnd); err != nil {
		t.Fatal(err)
	}
	go w.vm.Serve(func(port uint32) channel.Handler {
		if port == channel.PortSSH {
			return w.agent.ServeSSH
		}
		return nil
	})
	if err := w.agent.SetIdentity(w.identity()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) identity() channel.Identify {
	return channel.Identify{HostName: "devbox", HostKey: string(w.keys.HostPrivate), UserKeys: []string{w.keys.UserPublic},
		Env: map[string]string{"FROM_IDENTIFY": "yes", "BOTH": "identify"}}
}

func (w *world) config(t *testing.T) guest.Config {
	t.Helper()
	user, err := ssh.ParsePrivateKey(w.keys.UserPrivate)
	if err != nil {
		t.Fatal(err)
	}
	host, _, _, _, err := ssh.ParseAuthorizedKey([]byte(w.keys.HostPublic))
	if err != nil {
		t.Fatal(err)
	}
	return guest.Config{UserKey: user, HostKey: host}
}

func (w *world) dial(t *testing.T) *guest.Client {
	t.Helper()
	c, err := guest.Dial(t.Context(), w.sock, w.config(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// run is Exec with strings.
func run(t *testing.T, c *guest.Client, req banger.ExecRequest, stdin string) (result banger.ExecResult, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	result, err := c.Exec(t.Context(), req, guest.Stdio{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs})
	if err != nil {
		t.Fatalf("Exec(%q): %v", req.Argv, err)
	}
	return result, out.String(), errs.String()
}

func TestExec(t *testing.T) {
	c := newWorld(t).dial(t)
	for _, tc := range []struct {
		name   string
		req    banger.ExecRequest
		stdin  string
		result banger.ExecResult
		stdout string
		stderr string
	}{
		{name: "true", req: banger.ExecRequest{Argv: []string{"true"}}},
		{name: "status", req: banger.ExecRequest{Argv: []string{"sh", "-c", "exit 37"}}, result: banger.ExecResult{Status: 37}},
		{name: "status above 127", req: banger.ExecRequest{Argv: []string{"sh", "-c", "exit 200"}}, result: banger.ExecResult{Status: 200}},
		{name: "signal", req: banger.ExecRequest{Argv: []string{"sh", "-c", "kill -SEGV $$"}}, result: banger.ExecResult{Signal: "SEGV"}},
		{name: "argv as given", req: banger.ExecRequest{Argv: []string{"printf", "%s|", "a b", "", "$HOME", "'", "\n"}}, stdout: "a b||$HOME|'|\n|"},
		{name: "three streams", req: banger.ExecRequest{Argv: []string{"sh", "-c", "cat; echo err >&2"}}, stdin: "in\x00\xff", stdout: "in\x00\xff", stderr: "err\n"},
		{name: "half-close", req: banger.ExecRequest{Argv: []string{"sh", "-c", "cat; echo tail"}}, stdin: "in\n", stdout: "in\ntail\n"},
		{name: "environment", req: banger.ExecRequest{Argv: []string{"sh", "-c", "echo $FROM_IDENTIFY $BOTH $MINE $LANG"}, Env: map[string]string{"BOTH": "request", "MINE": "1"}},
			stdout: "yes request 1 C.UTF-8\n"},
		{name: "directory", req: banger.ExecRequest{Argv: []string{"pwd"}, Dir: "/usr"}, stdout: "/usr\n"},
		{name: "no such directory", req: banger.ExecRequest{Argv: []string{"pwd"}, Dir: "/nowhere"},
			result: banger.ExecResult{Error: "working directory /nowhere: no such file or directory"}},
		{name: "not found", req: banger.ExecRequest{Argv: []string{"no-such-program"}},
			result: banger.ExecResult{Error: "no-such-program: no such file or directory", Errno: 2}},
		{name: "not executable", req: banger.ExecRequest{Argv: []string{"/etc/passwd"}},
			result: banger.ExecResult{Error: "/etc/passwd: permission denied", Errno: 13}},
		{name: "empty name", req: banger.ExecRequest{Argv: []string{""}}, result: banger.ExecResult{Error: `"": no such file or directory`, Errno: 2}},
		{name: "unknown user", req: banger.ExecRequest{Argv: []string{"true"}, User: "no-such-user"}, result: banger.ExecResult{Error: `no user "no-such-user" in the guest`}},
		{name: "login shell", req: banger.ExecRequest{}, stdin: "echo $0\nexit 3\n", result: banger.ExecResult{Status: 3}, stdout: "-" + filepath.Base(rootShell(t)) + "\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			result, stdout, stderr := run(t, c, tc.req, tc.stdin)
			if result != tc.result || stdout != tc.stdout || stderr != tc.stderr {
				t.Errorf("Exec = %+v, %q, %q, want %+v, %q, %q", result, stdout, stderr, tc.result, tc.stdout, tc.stderr)
			}
		})
	}
}

func rootShell(t *testing.T) string {
	t.Helper()
	line, err := exec.Command("sh", "-c", "grep ^root: /etc/passwd | cut -d: -f7").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(line))
}

func TestExecAsUser(t *testing.T) {
	if os.Getuid() != 0 {
		testenv.Skip(t, "root")
	}
	c := newWorld(t).dial(t)
	for _, tc := range []struct{ user, want string }{
		{"", "0 0 root /root"},
		{"nobody", "65534 65534 nobody /nonexistent"},
		{"65534", "65534 65534 nobody /nonexistent"},
		{"4242:4343", "4242 4343  /"},
		{"0:7", "0 7 root /root"},
	} {
		result, stdout, stderr := run(t, c, banger.ExecRequest{Argv: []string{"sh", "-c", "echo $(id -u) $(id -g) \"$USER\" $HOME"}, User: tc.user, Dir: "/"}, "")
		if strings.TrimSpace(stdout) != tc.want || result != (banger.ExecResult{}) {
			t.Errorf("user %q: %q %q %+v, want %q", tc.user, stdout, stderr, result, tc.want)
		}
	}
}

func TestExecOnTerminal(t *testing.T) {
	c := newWorld(t).dial(t)
	resize, signals := make(chan banger.PTY), make(chan string)
	out := newAwaited()
	done := make(chan banger.ExecResult, 1)
	go func() {
		script := `stty size; echo $TERM; trap 'stty size' WINCH; trap 'echo got; exit 9' TERM; test -t 0 && test -t 1 && test -t 2 && echo tty; echo begun; while :; do sleep 0.02; done`
		result, err := c.Exec(t.Context(), banger.ExecRequest{Argv: []string{"sh", "-c", script}, PTY: &banger.PTY{Term: "vt100", Rows: 24, Cols: 80}},
			guest.Stdio{Stdout: out, Resize: resize, Signal: signals})
		if err != nil {
			t.Error(err)
		}
		done <- result
	}()
	out.await(t, "24 80\r\nvt100\r\ntty\r\nbegun\r\n")
	resize <- banger.PTY{Rows: 50, Cols: 132}
	out.await(t, "50 132\r\n")
	signals <- "TERM"
	out.await(t, "got\r\n")
	if result := <-done; result != (banger.ExecResult{Status: 9}) {
		t.Errorf("result %+v, want status 9", result)
	}
}

// awaited is a writer whose reader waits for text.
type awaited struct {
	mu   sync.Mutex
	cond sync.Cond
	got  strings.Builder
}

func newAwaited() *awaited {
	a := &awaited{}
	a.cond.L = &a.mu
	return a
}

func (a *awaited) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cond.Broadcast()
	return a.got.Write(p)
}

func (a *awaited) await(t *testing.T, want string) {
	t.Helper()
	late := time.AfterFunc(30*time.Second, a.cond.Broadcast)
	defer late.Stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	for start := time.Now(); !strings.Contains(a.got.String(), want); a.cond.Wait() {
		if time.Since(start) > 30*time.Second {
			t.Fatalf("output %q does not hold %q", a.got.String(), want)
		}
	}
}

func TestExecMany(t *testing.T) {
	c := newWorld(t).dial(t)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			var out bytes.Buffer
			result, err := c.Exec(t.Context(), banger.ExecRequest{Argv: []string{"sh", "-c", fmt.Sprintf("cat; exit %d", i)}},
				guest.Stdio{Stdin: strings.NewReader(fmt.Sprint("in ", i)), Stdout: &out})
			if err != nil || result.Status != i || out.String() != fmt.Sprint("in ", i) {
				t.Errorf("exec %d: %+v, %q, %v", i, result, out.String(), err)
			}
		})
	}
	wg.Wait()
}

func TestExecLargeOutputWithSlowReader(t *testing.T) {
	c := newWorld(t).dial(t)
	r, w := io.Pipe()
	go func() {
		_, err := c.Exec(t.Context(), banger.ExecRequest{Argv: []string{"sh", "-c", "head -c 5000000 /dev/zero; head -c 5000000 /dev/zero >&2"}}, guest.Stdio{Stdout: w})
		w.CloseWithError(err)
	}()
	if n, err := io.Copy(io.Discard, r); n != 5000000 || err != nil {
		t.Errorf("read %d bytes, %v, want 5000000", n, err)
	}
}

// A child in the background holds stdout: the command's end is not held up for longer than the grace.
func TestExecLeavesBackgroundBehind(t *testing.T) {
	c := newWorld(t).dial(t)
	result, stdout, _ := run(t, c, banger.ExecRequest{Argv: []string{"sh", "-c", "sleep 30 & echo $!"}}, "")
	if result != (banger.ExecResult{}) {
		t.Errorf("result %+v", result)
	}
	if err := exec.Command("kill", strings.TrimSpace(stdout)).Run(); err != nil {
		t.Errorf("the background process is gone: %v", err)
	}
}

func TestExecInterrupted(t *testing.T) {
	c := newWorld(t).dial(t)
	ctx, cancel := context.WithCancel(t.Context())
	out := newAwaited()
	trapped := filepath.Join(t.TempDir(), "hup")
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, banger.ExecRequest{Argv: []string{"sh", "-c", "trap 'echo hup > " + trapped + ".new; mv " + trapped + ".new " + trapped + "; exit' HUP; echo begun; while :; do sleep 0.05; done"}}, guest.Stdio{Stdout: out})
		done <- err
	}()
	out.await(t, "begun\n")
	cancel()
	if err := <-done; !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("Exec = %v, want ErrInterrupted", err)
	}
	waitForFile(t, trapped)
}

func waitForFile(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	t.Errorf("%s does not appear", path)
}

func TestExecMachineGone(t *testing.T) {
	w := newWorld(t)
	c := w.dial(t)
	out := newAwaited()
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), banger.ExecRequest{Argv: []string{"sh", "-c", "echo begun; cat"}}, guest.Stdio{Stdin: blocked{}, Stdout: out})
		done <- err
	}()
	out.await(t, "begun\n")
	w.vm.Close()
	if err := <-done; !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), "the machine went away") {
		t.Errorf("Exec = %v, want that the machine went away", err)
	}
	<-c.Done()
	if _, err := c.Exec(t.Context(), banger.ExecRequest{Argv: []string{"true"}}, guest.Stdio{}); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Exec afterwards = %v, want ErrUnavailable", err)
	}
}

type blocked struct{}

func (blocked) Read([]byte) (int, error) { select {} }

func TestExecTooLarge(t *testing.T) {
	c := newWorld(t).dial(t)
	_, err := c.Exec(t.Context(), banger.ExecRequest{Argv: []string{"true", strings.Repeat("x", 1<<20)}}, guest.Stdio{})
	if !errors.Is(err, banger.ErrInvalid) {
		t.Errorf("Exec = %v, want ErrInvalid", err)
	}
}

func TestSignIn(t *testing.T) {
	w := newWorld(t)
	other, err := guest.GenerateKeys("other")
	if err != nil {
		t.Fatal(err)
	}
	wrongHost := w.config(t)
	wrongHost.HostKey, _, _, _, _ = ssh.ParseAuthorizedKey([]byte(other.HostPublic))
	var mismatch *guest.HostKeyError
	if _, err := guest.Dial(t.Context(), w.sock, wrongHost); !errors.As(err, &mismatch) || !errors.Is(err, banger.ErrRefused) {
		t.Errorf("Dial with another host key = %v, want HostKeyError", err)
	}
	wrongUser := w.config(t)
	wrongUser.UserKey, _ = ssh.ParsePrivateKey(other.UserPrivate)
	if _, err := guest.Dial(t.Context(), w.sock, wrongUser); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Dial with an unknown user key = %v, want ErrUnavailable", err)
	}
	id := w.identity()
	id.UserKeys = []string{other.UserPublic}
	if err := w.agent.SetIdentity(id); err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Dial(t.Context(), w.sock, wrongUser); err != nil {
		t.Errorf("Dial with the key of a later identity: %v", err)
	}
	if _, err := guest.Dial(t.Context(), w.sock, w.config(t)); err == nil {
		t.Error("Dial with the key of an earlier identity succeeds")
	}
	if err := w.agent.SetIdentity(channel.Identify{HostKey: "nonsense"}); err == nil {
		t.Error("SetIdentity takes a malformed host key")
	}
}

func TestDialCiphers(t *testing.T) {
	w := newWorld(t)
	for _, chacha := range []bool{false, true} {
		cfg := w.config(t)
		cfg.PreferChaCha = chacha
		c, err := guest.Dial(t.Context(), w.sock, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, out, _ := run(t, c, banger.ExecRequest{Argv: []string{"cat"}}, "x"); out != "x" {
			t.Errorf("chacha %v: cat gives %q", chacha, out)
		}
		c.Close()
	}
}

// Left to itself x/crypto/ssh begins a new key exchange after a gigabyte and stands still for good: see [channel.NeverRekey].
func TestConnectionOutlivesAGigabyte(t *testing.T) {
	testenv.RequireTier(t, "smoke", "soak")
	const gigabyte = 1 << 30
	w := newWorld(t)
	cfg := w.config(t)
	cfg.PreferChaCha = true
	c, err := guest.Dial(t.Context(), w.sock, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	var moved atomic.Int64
	var streams sync.WaitGroup
	for range 64 {
		streams.Go(func() {
			for moved.Load() < gigabyte*9/8 {
				const size = 2 << 20
				result, err := c.Exec(t.Context(), banger.ExecRequest{Argv: []string{"cat"}},
					guest.Stdio{Stdin: io.LimitReader(zeros{}, size), Stdout: io.Discard, Stderr: io.Discard})
				if err != nil || result != (banger.ExecResult{}) {
					t.Errorf("a stream both ways: %+v, %v", result, err)
					return
				}
				moved.Add(size)
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		streams.Wait()
		close(ended)
	}()
	for before := int64(0); ; {
		select {
		case <-ended:
			return
		case <-time.After(30 * time.Second):
			if now := moved.Load(); now == before {
				t.Fatalf("nothing moves any more after %d MB", now>>20)
			} else {
				before = now
			}
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
