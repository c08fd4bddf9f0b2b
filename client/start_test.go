package client

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"banger"
	"banger/api"
	"banger/internal/proc"
	"banger/internal/testenv"
)

// envDaemon is the path of the built daemon, for this binary as the ordinary user.
const envDaemon = "CLIENT_TEST_DAEMON"

const daemonVersion = "v0-test"

// TestMain leaves ExampleDial to the ordinary user, too.
func TestMain(m *testing.M) {
	if os.Getenv(envDaemon) == "" {
		flag.Parse()
		if err := flag.Set("test.skip", "^ExampleDial$"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// TestStart runs the tests below against the real daemon, as an ordinary user: the daemon refuses root.
func TestStart(t *testing.T) {
	if os.Getenv(envDaemon) == "" {
		asOrdinaryUser(t)
		return
	}
	t.Run("starts and ends", testStartsAndEnds)
	t.Run("many at once", testManyAtOnce)
	t.Run("stale socket", testStaleSocket)
	t.Run("killed daemon", testKilledDaemon)
	t.Run("dying daemon", testDyingDaemon)
	t.Run("daemon's own words", testOwnWords)
	t.Run("daemon that says nothing", testSilentDaemon)
	t.Run("interrupted", testInterrupted)
	t.Run("refused directory", testRefusedDirectory)
	t.Run("bad configuration", testBadConfiguration)
	t.Run("second daemon", testSecondDaemon)
}

func asOrdinaryUser(t *testing.T) {
	user := testenv.OrdinaryUser(t)
	dir := user.Dir(t)
	root, err := testenv.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	self, daemon := filepath.Join(dir, "client.test"), filepath.Join(dir, "bangerd")
	if err := testenv.Build(root, daemon, "./cmd/bangerd", daemonVersion); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err := errors.Join(err, os.WriteFile(self, program, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.v", "-test.run", "^(TestStart|ExampleDial)$")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), envDaemon+"="+daemon, "CLIENT_TEST_STATE="+filepath.Join(dir, "state"), "HOME="+user.Home, "TMPDIR="+dir)
	user.As(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// newConfig gives an empty state directory whose daemon ends with the test.
func newConfig(t *testing.T) Config {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "bc") // short: sockets live in it
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{StateDir: root, Daemon: os.Getenv(envDaemon)}
	t.Cleanup(func() {
		if c, err := DialExisting(context.Background(), cfg); err == nil {
			if err := c.Shutdown(context.Background(), false); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			c.Close()
		}
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	return cfg
}

// daemonPID dials and gives the daemon's process id.
func daemonPID(t *testing.T, cfg Config) int {
	t.Helper()
	c, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Dial: %v", err)
	}
	defer c.Close()
	status, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if status.Version != daemonVersion || status.StateDir != cfg.StateDir {
		t.Errorf("status = %+v", status)
	}
	return status.PID
}

func testStartsAndEnds(t *testing.T) {
	cfg := newConfig(t)
	if _, err := DialExisting(t.Context(), cfg); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("DialExisting without a daemon = %v, want unavailable", err)
	}
	first := daemonPID(t, cfg)
	if second := daemonPID(t, cfg); second != first {
		t.Errorf("another daemon: %d, then %d", first, second)
	}
	daemon, err := proc.HandleOf(first)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if vms, err := c.ListVMs(t.Context()); err != nil || len(vms) > 0 {
		t.Errorf("ListVMs = %v, %v", vms, err)
	}
	if err := c.Shutdown(t.Context(), false); err != nil || daemon.Alive() {
		t.Errorf("Shutdown: %v, daemon lives: %v", err, daemon.Alive())
	}
	if third := daemonPID(t, cfg); third == first {
		t.Errorf("the daemon %d is back from the dead", third)
	}
}

func testManyAtOnce(t *testing.T) {
	cfg := newConfig(t)
	pids := make([]int, 8)
	var group sync.WaitGroup
	for i := range pids {
		group.Go(func() { pids[i] = daemonPID(t, cfg) })
	}
	group.Wait()
	for _, pid := range pids {
		if pid != pids[0] || pid == 0 {
			t.Fatalf("daemons %v, want one", pids)
		}
	}
}

func testStaleSocket(t *testing.T) {
	cfg := newConfig(t)
	if err := cfg.dir().Ensure(); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: cfg.dir().DaemonSocket(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	daemonPID(t, cfg)
}

func testKilledDaemon(t *testing.T) {
	cfg := newConfig(t)
	first := daemonPID(t, cfg)
	daemon, err := proc.HandleOf(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if second := daemonPID(t, cfg); second == first {
		t.Errorf("the same daemon %d", second)
	}
}

// A daemon that dies between the connection and the request is started again for a request that changes nothing.
// A daemon that dies as it is asked is followed by another, which is asked again: with a body, too.
func testDyingDaemon(t *testing.T) {
	for name, ask := range map[string]func(*Client) error{
		"status": func(c *Client) error {
			status, err := c.Status(t.Context())
			if err == nil && status.PID == 0 {
				err = errors.New("no process")
			}
			return err
		},
		"resolve": func(c *Client) error {
			found, err := c.ResolveVMs(t.Context(), []string{"nobody"})
			if err == nil && (len(found) != 1 || found[0].Ref != "nobody") {
				err = fmt.Errorf("resolved %+v", found)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) { askDying(t, ask) })
	}
}

func askDying(t *testing.T, ask func(*Client) error) {
	cfg := newConfig(t)
	if err := cfg.dir().Ensure(); err != nil {
		t.Fatal(err)
	}
	dying, err := net.Listen("unix", cfg.dir().DaemonSocket())
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	dying.Close()
	if err := ask(c); err != nil {
		t.Error(err)
	}
	if err := c.Shutdown(t.Context(), false); err != nil {
		t.Error(err)
	}
}

func testOwnWords(t *testing.T) {
	cfg := newConfig(t)
	if err := errors.Join(cfg.dir().Ensure(), os.WriteFile(cfg.dir().Database(), []byte(strings.Repeat("no database", 1000)), 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err := Dial(t.Context(), cfg)
	if !errors.Is(err, banger.ErrCorrupt) || !strings.Contains(err.Error(), "database") || banger.HintOf(err) == "" {
		t.Errorf("Dial = %v (hint %q), want what the daemon says about its database", err, banger.HintOf(err))
	}
}

// script is a daemon that is a shell script.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daemon")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func testSilentDaemon(t *testing.T) {
	for what, daemon := range map[string]string{"ends": script(t, "exit 3"), "is missing": "/nonexistent/bangerd"} {
		cfg := newConfig(t)
		cfg.Daemon = daemon
		if _, err := Dial(t.Context(), cfg); !errors.Is(err, banger.ErrUnavailable) || banger.HintOf(err) == "" {
			t.Errorf("%s: Dial = %v (hint %q), want unavailable with a hint", what, err, banger.HintOf(err))
		}
	}
}

func testInterrupted(t *testing.T) {
	cfg := newConfig(t)
	words := filepath.Join(t.TempDir(), "words")
	if out, err := exec.Command("mkfifo", words).CombinedOutput(); err != nil {
		t.Fatalf("mkfifo: %v %s", err, out)
	}
	cfg.Daemon = script(t, "echo $$ > "+words+"; exec sleep 600")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	go func() { _, err := Dial(ctx, cfg); failed <- err }()
	text, err := os.ReadFile(words)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	daemon, err := proc.HandleOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-failed; !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("Dial = %v, want interrupted", err)
	}
	if err := daemon.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}

func testRefusedDirectory(t *testing.T) {
	cfg := newConfig(t)
	if err := os.Chmod(cfg.StateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), cfg); !errors.Is(err, banger.ErrRefused) {
		t.Errorf("Dial = %v, want refused", err)
	}
}

// A daemon that can't read its configuration says so to the user.
func testBadConfiguration(t *testing.T) {
	cfg := newConfig(t)
	path := filepath.Join(t.TempDir(), "config.toml")
	t.Setenv("BANGER_CONFIG", path)
	if err := os.WriteFile(path, []byte("[images]\ndefualt = \"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), cfg); !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), path+":2") || !strings.Contains(banger.HintOf(err), "images.default") {
		t.Errorf("Dial = %v (hint %q), want invalid", err, banger.HintOf(err))
	}
}

// One state directory has one daemon, however it is started.
func testSecondDaemon(t *testing.T) {
	cfg := newConfig(t)
	daemonPID(t, cfg)
	out, err := exec.Command(cfg.Daemon, "--state-dir", cfg.StateDir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another daemon") {
		t.Errorf("a second daemon: %v, %q", err, out)
	}
}

// A daemon of another version is told from a broken one.
func TestOtherVersion(t *testing.T) {
	ours := banger.EncodeError(&banger.Error{Kind: banger.ErrUnsupported, Op: "API version", Hint: "banger daemon stop"}, "")
	for what, answer := range map[string]func(http.ResponseWriter){
		"refuses": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusNotImplemented)
			_ = json.NewEncoder(w).Encode(ours)
		},
		"knows no such route": func(w http.ResponseWriter) { http.Error(w, "404 page not found", http.StatusNotFound) },
	} {
		root, err := os.MkdirTemp("/tmp", "bc")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(root) })
		cfg := Config{StateDir: root}
		if err := cfg.dir().Ensure(); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", cfg.dir().DaemonSocket())
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get(api.VersionHeader); got != strconv.Itoa(api.Version) {
				t.Errorf("%s: version header %q", what, got)
			}
			answer(w)
		})}
		go server.Serve(l)
		t.Cleanup(func() { server.Close() })
		c, err := Dial(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.ListVMs(t.Context()); !errors.Is(err, banger.ErrUnsupported) || !strings.Contains(banger.HintOf(err), "banger daemon stop") {
			t.Errorf("%s: ListVMs = %v (hint %q), want unsupported with the next step", what, err, banger.HintOf(err))
		}
		c.Close()
	}
}
