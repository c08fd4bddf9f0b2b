package smoke

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/testenv"
)

// sshUser is a user whose ~/.ssh/config includes banger's file: what follows runs OpenSSH's programs and those that build on it.
type sshUser struct{ *testenv.World }

func (u sshUser) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	like := u.Command(ctx)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir, cmd.SysProcAttr = like.Env, like.Dir, like.SysProcAttr
	return cmd
}

func (u sshUser) run(t *testing.T, stdin, name string, args ...string) testenv.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := u.command(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	return testenv.Capture(t, cmd)
}

func (u sshUser) must(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	r := u.run(t, stdin, name, args...)
	if r.Status != 0 {
		t.Fatalf("%s %q: status %d\n%s%s", name, args, r.Status, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// newSSHUser makes one, for a test that is alone: the file is the user's.
func newSSHUser(t *testing.T) sshUser {
	if os.Getuid() != 0 {
		testenv.Skip(t, "root: the suite's own user, whose ~/.ssh/config changes for a while")
	}
	for _, tool := range []string{"ssh", "scp", "sftp", "git", "rsync"} {
		testenv.RequireTool(t, tool)
	}
	u := sshUser{testenv.NewWorld(t)}
	lockHome(t, u.User)
	config := filepath.Join(u.User.Home, ".ssh", "config")
	u.Must("ssh-config", "--uninstall") // of a run that was killed
	before, beforeErr := os.ReadFile(config)
	u.Must("ssh-config", "--install")
	u.Must("ssh-config", "--install")
	t.Cleanup(func() {
		u.Must("ssh-config", "--uninstall")
		after, afterErr := os.ReadFile(config)
		if !bytes.Equal(before, after) || os.IsNotExist(beforeErr) != os.IsNotExist(afterErr) {
			t.Errorf("after --uninstall ~/.ssh/config is %q (%v), want %q (%v)", after, afterErr, before, beforeErr)
		}
	})
	return u
}

// lockHome waits for tests of other processes that change files of the home, and keeps them waiting until this one ends.
func lockHome(t *testing.T, user testenv.User) {
	t.Helper()
	home, err := os.Open(user.Home)
	if err == nil {
		err = unix.Flock(int(home.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { home.Close() })
}

// One guest, everything that a developer's programs do with it over ssh.
func TestSSH(t *testing.T) { // alone: as newSSHUser says
	u := newSSHUser(t)
	u.Must("vm", "create", "--name", "devbox", "--memory", "512M")

	r := u.run(t, "", "ssh", "devbox.vm", "true")
	wantStatus(t, r, 255, "it is stopped", "banger vm start devbox")
	wantStatus(t, u.Run("vm", "ssh", "devbox", "--", "true"), 125, "it is stopped", "banger vm start devbox")
	wantStatus(t, u.run(t, "", "ssh", "nothere.vm", "true"), 255, "nothere", "not found")
	wantStatus(t, u.Run("vm", "ssh", "--start", "devbox", "--", "sh", "-c", "echo 'in the  guest'; exit 7"), 7)

	if out := u.Run("doctor").Stdout; !strings.Contains(out, "ssh NAME.vm works") {
		t.Errorf("doctor does not say that ssh works:\n%s", out)
	}
	t.Run("commands", func(t *testing.T) {
		if out := u.must(t, "", "ssh", "devbox.vm", "hostname; id -un; echo $SHELL"); out != "devbox\nroot\n/bin/bash\n" {
			t.Errorf("ssh devbox.vm = %q", out)
		}
		if r := u.run(t, "", "ssh", "devbox.vm", "exit 42"); r.Status != 42 || r.Stderr != "" {
			t.Errorf("ssh devbox.vm exit 42 = %d and says %q, want 42 and nothing", r.Status, r.Stderr)
		}
		if out := u.Must("vm", "ssh", "devbox", "--", "printf", "%s|", "a b", "$HOME", "it's", "*"); out != "a b|$HOME|it's|*|" {
			t.Errorf("vm ssh -- printf = %q: the words are not what was given", out)
		}
		u.must(t, "", "ssh", "devbox.vm", "useradd -m -s /bin/sh dev")
		if out := u.must(t, "", "ssh", "dev@devbox.vm", "id -un; pwd; touch mine; stat -c %U mine"); out != "dev\n/home/dev\ndev\n" {
			t.Errorf("ssh dev@devbox.vm = %q", out)
		}
		if out := u.must(t, "put /etc/hostname sent\nls -l sent\n", "sftp", "-q", "-b", "-", "dev@devbox.vm"); !strings.Contains(out, "/home/dev/sent\n") && !strings.Contains(out, " sent\n") {
			t.Errorf("sftp as dev = %q", out)
		}
		if out := u.must(t, "", "ssh", "devbox.vm", "stat -c %U /home/dev/sent"); out != "dev\n" {
			t.Errorf("what dev sent belongs to %q", out)
		}
		if r := u.run(t, "put /etc/hostname /root/x\n", "sftp", "-q", "-b", "-", "dev@devbox.vm"); r.Status == 0 {
			t.Error("sftp as dev writes into /root")
		}
		if info, err := os.Stat(showVM(u.World, "devbox").Dir + "/user_key"); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("user_key: %v, %v", info, err)
		}
	})
	t.Run("copies", func(t *testing.T) { sshCopies(t, u) })
	t.Run("editor", func(t *testing.T) { sshEditor(t, u) })
	t.Run("another key", func(t *testing.T) { sshOtherKey(t, u) })
}

// sshCopies moves 8 MB each way by every program, and compares.
func sshCopies(t *testing.T, u sshUser) {
	dir := u.User.Dir(t)
	data := make([]byte, 8<<20)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(data))
	file := filepath.Join(dir, "data")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	guestSum := func(path string) {
		t.Helper()
		if out := u.must(t, "", "ssh", "devbox.vm", "sha256sum < "+path); !strings.HasPrefix(out, sum) {
			t.Errorf("%s in the guest has %q, want %s", path, out, sum)
		}
	}
	hostSum := func(path string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v, want what was sent", path, len(got), err)
		}
	}
	timed := func(what string, fn func()) {
		start := time.Now()
		fn()
		t.Logf("%s: %.1f MB/s", what, float64(len(data))/1e6/time.Since(start).Seconds())
	}
	timed("ssh in", func() { u.must(t, string(data), "ssh", "devbox.vm", "cat > /root/ssh") })
	timed("ssh out", func() {
		if out := u.must(t, "", "ssh", "devbox.vm", "cat /root/ssh"); out != string(data) {
			t.Errorf("ssh gives back %d bytes, want the %d sent", len(out), len(data))
		}
	})
	timed("scp in", func() { u.must(t, "", "scp", "-q", file, "devbox.vm:scp") })
	guestSum("scp")
	timed("scp out", func() { u.must(t, "", "scp", "-q", "devbox.vm:scp", dir+"/scp") })
	hostSum(dir + "/scp")
	timed("sftp in and out", func() {
		u.must(t, fmt.Sprintf("put %s sftp\nget sftp %s/sftp\n", file, dir), "sftp", "-q", "-b", "-", "devbox.vm")
	})
	hostSum(dir + "/sftp")

	// The image has no rsync: it gets the host's, with the libraries that it needs.
	copyIn := `cd / && tar chf - $(command -v rsync) $(ldd $(command -v rsync) | grep -o '/[^ ]*') | ssh devbox.vm 'tar xf - -C / --skip-old-files'`
	u.must(t, "", "bash", "-c", "set -o pipefail; "+copyIn)
	timed("rsync in", func() { u.must(t, "", "rsync", "-W", "-e", "ssh", file, "devbox.vm:rsync") })
	guestSum("rsync")
	timed("rsync out", func() { u.must(t, "", "rsync", "-W", "-e", "ssh", "devbox.vm:rsync", dir+"/rsync") })
	hostSum(dir + "/rsync")

	u.must(t, "", "ssh", "devbox.vm", `git init -q repo && cd repo && echo work > file && git add . && git -c user.name=g -c user.email=g@g commit -q -m work`)
	u.must(t, "", "git", "clone", "-q", "devbox.vm:repo", dir+"/clone")
	u.must(t, "", "git", "-C", dir+"/clone", "-c", "user.name=h", "-c", "user.email=h@h", "commit", "-q", "--allow-empty", "-m", "back")
	u.must(t, "", "git", "-C", dir+"/clone", "push", "-q", "origin", "HEAD:refs/heads/from-host")
	if out := u.must(t, "", "ssh", "devbox.vm", "git -C repo log -1 --format=%s from-host"); out != "back\n" {
		t.Errorf("what was pushed is %q", out)
	}
}

// editorInstall is what an editor sends to "bash" without a terminal: it installs a server below the home, starts it in the background on a
// port of the guest's loopback, says which between markers, and ends while the server goes on.
const editorInstall = `set -e
echo "$UUID: running"
mkdir -p ~/.editor-server/bin
cat > ~/.editor-server/bin/server <<'END'
use IO::Socket::INET;
my $l = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1", LocalPort => 0) or die;
$| = 1; print $l->sockport, "\n";
while (my $c = $l->accept) { my $line = <$c>; print $c "editor server got $line"; close $c }
END
nohup perl ~/.editor-server/bin/server > ~/.editor-server/log 2>&1 < /dev/null &
for i in $(seq 100); do [ -s ~/.editor-server/log ] && break; sleep 0.1; done
echo "$UUID: start"
echo "listeningOn==$(cat ~/.editor-server/log)=="
echo "osReleaseId==$(. /etc/os-release; echo $ID)=="
echo "arch==$(uname -m)=="
echo "$UUID: end"
`

// sshEditor replays what VS Code's Remote does: one ssh without terminal with a SOCKS proxy of its own and an install script on standard input,
// which stays open, then connections to the server through the proxy.
func sshEditor(t *testing.T, u sshUser) {
	port := fmt.Sprint(testenv.FreePort(t))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := u.command(ctx, "ssh", "-v", "-T", "-D", port, "-o", "ConnectTimeout=15", "devbox.vm", "bash")
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	io.WriteString(stdin, "UUID=4711\n"+editorInstall)
	var seen strings.Builder
	for buf := make([]byte, 1); !strings.Contains(seen.String(), "4711: end\n"); {
		if _, err := io.ReadFull(stdout, buf); err != nil {
			t.Fatalf("the install script ended early: %v\n%s\n%s", err, seen.String(), log.String())
		}
		seen.Write(buf)
	}
	_, rest, _ := strings.Cut(seen.String(), "listeningOn==")
	guestPort, _, _ := strings.Cut(rest, "==")
	if !strings.Contains(seen.String(), "osReleaseId==debian==") {
		t.Errorf("the script says %q", seen.String())
	}
	for n := range 3 {
		conn := socks(t, "127.0.0.1:"+port, "127.0.0.1", guestPort)
		fmt.Fprintf(conn, "message %d\n", n)
		if got, err := io.ReadAll(conn); err != nil || string(got) != fmt.Sprintf("editor server got message %d\n", n) {
			t.Errorf("through the SOCKS proxy: %q, %v", got, err)
		}
		conn.Close()
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("ssh ends with %v\n%s", err, log.String())
	}
	if out := u.must(t, "", "ssh", "devbox.vm", "grep -lz editor-serve[r] /proc/[0-9]*/cmdline | wc -l"); out == "0\n" {
		t.Error("the server is gone with its ssh")
	}
}

// socks connects through a SOCKS5 proxy (RFC 1928).
func socks(t *testing.T, proxy, host, port string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	var number uint16
	fmt.Sscan(port, &number)
	request := append([]byte{5, 1, 0, 5, 1, 0, 3, byte(len(host))}, host...)
	request = append(request, byte(number>>8), byte(number))
	conn.Write(request)
	answer := make([]byte, 2+10)
	if _, err := io.ReadFull(conn, answer); err != nil || answer[1] != 0 || answer[3] != 0 {
		t.Fatalf("SOCKS proxy answers %v, %v", answer, err)
	}
	return conn
}

// A guest that does not prove the key of its making is refused, by ssh and by banger.
func sshOtherKey(t *testing.T, u sshUser) {
	known := showVM(u.World, "devbox").Dir + "/known_hosts"
	line, err := os.ReadFile(known)
	if err != nil {
		t.Fatal(err)
	}
	id, _, _ := strings.Cut(string(line), " ")
	other, err := guest.GenerateKeys("other")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(known, []byte(id+" "+other.HostPublic+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(known, line, 0o600)
	for _, args := range [][]string{{"ssh", "devbox.vm", "echo in"}, {u.Bin + "/banger", "vm", "ssh", "devbox", "--", "echo", "in"}} {
		r := u.run(t, "", args[0], args[1:]...)
		wantStatus(t, r, 255, "Host key verification failed")
		if r.Stdout != "" {
			t.Errorf("%q reaches the guest: %q", args, r.Stdout)
		}
	}
}
