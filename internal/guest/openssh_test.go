package guest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/guest"
	"banger/internal/testenv"
)

// openSSH is OpenSSH's own programs, with a configuration that leads them to a world as a ProxyCommand leads to a VM.
type openSSH struct {
	t      *testing.T
	config string
	env    []string
}

func newOpenSSH(t *testing.T, w *world) openSSH {
	t.Helper()
	for _, program := range []string{"ssh", "scp", "sftp"} {
		testenv.RequireTool(t, program)
	}
	dir := t.TempDir()
	identity, known, config := filepath.Join(dir, "key"), filepath.Join(dir, "known"), filepath.Join(dir, "config")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`Host vm
  User root
  IdentityFile %s
  IdentitiesOnly yes
  UserKnownHostsFile %s
  StrictHostKeyChecking yes
  BatchMode yes
  LogLevel ERROR
  ProxyCommand env %s=%s %s
`, identity, known, proxyEnv, w.sock, self)
	if err := errors.Join(os.WriteFile(identity, w.keys.UserPrivate, 0o600), os.WriteFile(known, []byte("vm "+w.keys.HostPublic+"\n"), 0o600),
		os.WriteFile(config, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return openSSH{t: t, config: config}
}

func (o openSSH) command(program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(o.t.Context(), program, append([]string{"-F", o.config}, args...)...)
	cmd.Env = append(os.Environ(), o.env...)
	return cmd
}

// run gives standard output and exit status.
func (o openSSH) run(stdin, program string, args ...string) (string, int) {
	o.t.Helper()
	cmd := o.command(program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		o.t.Logf("%s %q: %v: %s", program, args, err, errs.String())
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestOpenSSH(t *testing.T) {
	o := newOpenSSH(t, newWorld(t))
	for _, tc := range []struct {
		name   string
		args   []string
		stdin  string
		stdout string
		status int
	}{
		{"command", []string{"vm", "echo one two; echo err >&2; exit 4"}, "", "one two\n", 4},
		{"stdin", []string{"vm", "cat"}, "hello", "hello", 0},
		{"shell", []string{"-T", "vm"}, "echo from a shell; exit 5\n", "from a shell\n", 5},
		{"terminal", []string{"-tt", "vm", "test -t 0 && echo tty"}, "", "tty\r\n", 0},
		{"signal", []string{"vm", "kill -TERM $$"}, "", "", 255},
		{"environment", []string{"-o", "SetEnv=GREETING=hi", "vm", "echo $GREETING $FROM_IDENTIFY"}, "", "hi yes\n", 0},
		{"nobody listens there", []string{"-W", "localhost:1", "vm"}, "", "", 255},
		{"unknown subsystem", []string{"-s", "vm", "nonsense"}, "", "", 255},
		{"unknown user", []string{"-l", "nosuchuser", "vm", "true"}, "", "", 126},
		{"no agent unless lent", []string{"vm", "echo [$SSH_AUTH_SOCK]"}, "", "[]\n", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o.t = t
			if out, status := o.run(tc.stdin, "ssh", tc.args...); out != tc.stdout || status != tc.status {
				t.Errorf("ssh %q = %q, status %d, want %q, status %d", tc.args, out, status, tc.stdout, tc.status)
			}
		})
	}
}

// A guest that proves another key than the pinned one gets no user key and no byte.
func TestOpenSSHWrongHostKey(t *testing.T) {
	w := newWorld(t)
	o := newOpenSSH(t, w)
	id := w.identity()
	other, err := guest.GenerateKeys("other")
	if err != nil {
		t.Fatal(err)
	}
	id.HostKey = string(other.HostPrivate)
	if err := w.agent.SetIdentity(id); err != nil {
		t.Fatal(err)
	}
	if out, status := o.run("", "ssh", "vm", "echo in"); out != "" || status != 255 {
		t.Errorf("ssh to a guest with another host key = %q, status %d, want nothing and 255", out, status)
	}
}

// Files by every program that copies over SSH: what arrives is what was sent.
func TestOpenSSHFiles(t *testing.T) {
	o := newOpenSSH(t, newWorld(t))
	inGuest, host := t.TempDir(), t.TempDir()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	sent := filepath.Join(host, "sent")
	if err := os.WriteFile(sent, data, 0o640); err != nil {
		t.Fatal(err)
	}
	same := func(path string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s has %d bytes (%v), want the %d sent", path, len(got), err, len(data))
		}
	}
	ok := func(stdin, program string, args ...string) string {
		t.Helper()
		out, status := o.run(stdin, program, args...)
		if status != 0 {
			t.Fatalf("%s %q: status %d", program, args, status)
		}
		return out
	}
	ok("", "scp", "-q", "-p", sent, "vm:"+inGuest+"/scp")
	same(inGuest + "/scp")
	if info, err := os.Stat(inGuest + "/scp"); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("scp -p: %v, %v, want mode 0640", info.Mode(), err)
	}
	ok("", "scp", "-q", "vm:"+inGuest+"/scp", host+"/back")
	same(host + "/back")
	ok(fmt.Sprintf("put %s %s/sftp\nget %s/sftp %s/sftp\nrename %s/sftp %s/renamed\nln -s renamed %s/link\n", sent, inGuest, inGuest, host, inGuest, inGuest, inGuest),
		"sftp", "-q", "-b", "-", "vm")
	same(host + "/sftp")
	same(inGuest + "/link")
	told, err := o.command("sftp", "-vvv", "-b", "/dev/null", "vm").CombinedOutput()
	if err != nil || !bytes.Contains(told, []byte("using 261120 / 261120")) {
		t.Errorf("sftp does not ask for 255 KiB at a time (%v): %s", err, told)
	}
	if home, err := os.UserHomeDir(); err == nil {
		if out := ok("pwd\n", "sftp", "-q", "-b", "-", "vm"); !strings.Contains(out, ": "+home) {
			t.Errorf("sftp begins in %q, want the home %s", out, home)
		}
	}
	if out, status := o.run("get /nonexistent "+host+"/x\n", "sftp", "-q", "-b", "-", "vm"); status == 0 {
		t.Errorf("sftp of a missing file: status 0, %q", out)
	}
}

// Another user's files are that user's, and the kernel says which: the agent's own rights are no help.
func TestOpenSSHFilesOfOthers(t *testing.T) {
	if os.Getuid() != 0 {
		testenv.Skip(t, "root: the agent has to become another user")
	}
	o := newOpenSSH(t, newWorld(t))
	dir := t.TempDir()
	theirs, ours := filepath.Join(dir, "theirs"), filepath.Join(dir, "ours")
	for path, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o755, theirs: 0o777, ours: 0o700} {
		if err := errors.Join(os.MkdirAll(path, mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	sent := filepath.Join(t.TempDir(), "sent")
	if err := os.WriteFile(sent, []byte("text"), 0o640); err != nil {
		t.Fatal(err)
	}
	if out, status := o.run("put "+sent+" "+theirs+"/file\n", "sftp", "-q", "-o", "User=65534:65533", "-b", "-", "vm"); status != 0 {
		t.Fatalf("sftp as another: status %d, %q", status, out)
	}
	info, err := os.Stat(theirs + "/file")
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 65534 || st.Gid != 65533 || info.Mode() != 0o640 {
		t.Errorf("the file belongs to %d:%d with mode %v, want 65534:65533 and 0640", st.Uid, st.Gid, info.Mode())
	}
	if out, status := o.run("put "+sent+" "+ours+"/file\n", "sftp", "-q", "-o", "User=65534:65533", "-b", "-", "vm"); status == 0 {
		t.Errorf("sftp as another writes into root's directory: %q", out)
	}
}

func TestOpenSSHForwards(t *testing.T) {
	w := newWorld(t)
	o := newOpenSSH(t, w)
	dir := t.TempDir()
	tcp, unix := echoServer(t, "tcp", "127.0.0.1:0"), echoServer(t, "unix", filepath.Join(dir, "echo"))
	local, remote, localUnix, remoteUnix := freePort(t), freePort(t), filepath.Join(dir, "local"), filepath.Join(dir, "remote")
	cmd := o.command("ssh", "-N", "-o", "ExitOnForwardFailure=yes", "-L", local+":"+tcp, "-R", remote+":"+tcp, "-L", localUnix+":"+unix, "-R", remoteUnix+":"+unix, "vm")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, at := range []struct{ network, address string }{
		{"tcp", "127.0.0.1:" + local}, {"tcp", "127.0.0.1:" + remote}, {"unix", localUnix}, {"unix", remoteUnix},
	} {
		echoThrough(t, at.network, at.address)
	}
	if info, err := os.Stat(remoteUnix); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the remote socket: %v, %v, want mode 0600", info, err)
	}
	if out, status := o.run("to the echo", "ssh", "-W", tcp, "vm"); out != "to the echo" || status != 0 {
		t.Errorf("ssh -W = %q, status %d", out, status)
	}
	if _, status := o.run("", "ssh", "-o", "ExitOnForwardFailure=yes", "-R", remote+":"+tcp, "vm", "true"); status != 255 {
		t.Errorf("a forward whose port is taken: status %d, want 255", status)
	}
	cmd.Process.Kill()
	cmd.Wait()
	testenv.WaitFor(t, 10*time.Second, "the guest's listeners to end with their client", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+remote)
		if err == nil {
			conn.Close()
		}
		_, statErr := os.Stat(remoteUnix)
		return err != nil && errors.Is(statErr, os.ErrNotExist)
	})
}

func echoServer(t *testing.T, network, address string) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().String()
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// echoThrough sends more than a window and half-closes, once the other end is there.
func echoThrough(t *testing.T, network, address string) {
	t.Helper()
	var conn net.Conn
	testenv.WaitFor(t, 20*time.Second, address+" to listen", func() bool {
		var err error
		conn, err = net.Dial(network, address)
		return err == nil
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	data := bytes.Repeat([]byte("forwarded"), 500_000)
	go func() {
		conn.Write(data)
		conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, data) {
		t.Errorf("echo through %s gives %d bytes, %v; want the %d sent", address, len(got), err, len(data))
	}
}

// The client's key agent is there when it is lent, to the session's user alone, and no longer than the session.
func TestOpenSSHAgent(t *testing.T) {
	for _, program := range []string{"ssh-agent", "ssh-add", "ssh-keygen"} {
		testenv.RequireTool(t, program)
	}
	o := newOpenSSH(t, newWorld(t))
	dir := t.TempDir()
	agent := exec.Command("ssh-agent", "-D", "-a", filepath.Join(dir, "agent"))
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer agent.Wait()
	defer agent.Process.Kill()
	testenv.WaitFor(t, 10*time.Second, "ssh-agent", func() bool { _, err := os.Stat(dir + "/agent"); return err == nil })
	o.env = []string{"SSH_AUTH_SOCK=" + dir + "/agent"}
	for _, args := range [][]string{{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lent", "-f", dir + "/key"}, {"ssh-add", "-q", dir + "/key"}} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), o.env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	out, status := o.run("", "ssh", "-A", "vm", "ssh-add -l; stat -c %a $SSH_AUTH_SOCK $(dirname $SSH_AUTH_SOCK); echo $SSH_AUTH_SOCK")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if status != 0 || len(lines) != 4 || !strings.Contains(lines[0], " lent ") || lines[1] != "600" || lines[2] != "700" {
		t.Fatalf("ssh -A: status %d, %q; want the lent key, modes 600 and 700", status, out)
	}
	testenv.WaitFor(t, 10*time.Second, "the agent's socket to go", func() bool { _, err := os.Stat(filepath.Dir(lines[3])); return errors.Is(err, os.ErrNotExist) })
}

// rsync and git bring their own commands over the connection.
func TestOpenSSHRsyncGit(t *testing.T) {
	testenv.RequireTool(t, "rsync")
	testenv.RequireTool(t, "git")
	o := newOpenSSH(t, newWorld(t))
	repo, dir := t.TempDir(), t.TempDir()
	for _, args := range [][]string{{"init", "-q"}, {"-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "first"}} {
		if out, err := exec.Command("git", append([]string{"-C", repo}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
	}
	for _, tc := range []struct {
		name string
		cmd  *exec.Cmd
		want string
	}{
		{"git clone", exec.Command("git", "clone", "-q", "vm:"+repo, dir+"/clone"), dir + "/clone/.git/HEAD"},
		{"rsync", exec.Command("rsync", "-a", "-e", "ssh -F "+o.config, "vm:"+repo+"/", dir+"/rsync/"), dir + "/rsync/.git/HEAD"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.cmd.Env = append(os.Environ(), "GIT_SSH_COMMAND=ssh -F "+o.config)
			if out, err := tc.cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if _, err := os.Stat(tc.want); err != nil {
				t.Error(err)
			}
		})
	}
}
