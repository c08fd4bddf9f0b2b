package proc

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// startBus starts a private bus and gives its address.
func startBus(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skipf("needs dbus-daemon: %v", err)
	}
	cmd := exec.Command(program, "--session", "--nofork", "--print-address", "--address=unix:path="+filepath.Join(t.TempDir(), "bus"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// manager stands for the user's systemd.
type manager struct {
	conn   *dbus.Conn
	result string // of each job; "" never comes
	asked  chan string
}

type property struct {
	Name  string
	Value dbus.Variant
}

type auxiliary struct {
	Name       string
	Properties []property
}

func (m *manager) Subscribe() *dbus.Error { return nil }

func (m *manager) StartTransientUnit(name, mode string, properties []property, _ []auxiliary) (dbus.ObjectPath, *dbus.Error) {
	text := name + " " + mode
	for _, p := range properties {
		text += fmt.Sprintf(" %s=%v", p.Name, p.Value.Value())
	}
	m.asked <- text
	const job = dbus.ObjectPath("/org/freedesktop/systemd1/job/1")
	if m.result != "" {
		// The real manager's answer precedes the signal too.
		time.AfterFunc(10*time.Millisecond, func() {
			m.conn.Emit("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager.JobRemoved", uint32(1), job, name, m.result)
		})
	}
	return job, nil
}

func startManager(t *testing.T, address, result string) *manager {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m := &manager{conn: conn, result: result, asked: make(chan string, 1)}
	if err := conn.Export(m, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName("org.freedesktop.systemd1", dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("own the manager's name: %v, %v", reply, err)
	}
	return m
}

func TestDetachEntersScope(t *testing.T) {
	address := startBus(t)
	m := startManager(t, address, "done")
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(Spec{Path: self, Args: []string{"-test.run=^TestScopeHelper$", "-test.v"}, Log: log, Scope: "banger-0123456789ab.scope",
		Env: append(os.Environ(), "DBUS_SESSION_BUS_ADDRESS="+address, "SCOPE_HELPER=1")})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Exit(); err != nil {
		t.Error(err)
	}
	want := fmt.Sprintf("banger-0123456789ab.scope fail Description=banger machine PIDs=[%d] CollectMode=inactive-or-failed", p.Handle.PID)
	select {
	case got := <-m.asked:
		if got != want {
			t.Errorf("asked for %q, want %q", got, want)
		}
	default:
		t.Error("the manager was not asked")
	}
	if text, err := os.ReadFile(log.Name()); err != nil || !strings.Contains(string(text), "variable gone") {
		t.Errorf("helper: %s, %v", text, err)
	}
}

func TestScopeHelper(t *testing.T) {
	if os.Getenv("SCOPE_HELPER") == "" {
		t.Skipf("needs TestDetachEntersScope to start it")
	}
	if _, found := os.LookupEnv(scopeVariable); !found {
		fmt.Println("variable gone")
	}
}

func TestEnterScopeWithoutManager(t *testing.T) {
	address := startBus(t)
	silent := filepath.Join(t.TempDir(), "silent")
	listener, err := net.Listen("unix", silent)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	tests := []struct {
		name, address, result string
		serve                 bool
	}{
		{"no bus", "", "", false},
		{"bus that is gone", "unix:path=/nowhere/bus", "", false},
		{"bus that never answers", "unix:path=" + silent, "", false},
		{"bus without a manager", address, "", false},
		{"job that fails", address, "failed", true},
		{"job that never ends", address, "", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("DBUS_SESSION_BUS_ADDRESS", test.address)
			t.Setenv("XDG_RUNTIME_DIR", "")
			if test.serve {
				startManager(t, test.address, test.result)
			}
			done := make(chan error, 1)
			go func() { done <- enterScope("banger-x.scope") }()
			select {
			case err := <-done:
				if err == nil {
					t.Error("enterScope succeeded")
				}
			case <-time.After(10 * scopeTimeout):
				t.Error("enterScope does not return")
			}
		})
	}
}

func TestEnterScopeFindsTheRuntimeDirectory(t *testing.T) {
	address := startBus(t)
	m := startManager(t, address, "done")
	path, _, _ := strings.Cut(strings.TrimPrefix(address, "unix:path="), ",")
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	t.Setenv("XDG_RUNTIME_DIR", filepath.Dir(path))
	if err := enterScope("banger-x.scope"); err != nil {
		t.Error(errors.Join(err, fmt.Errorf("bus at %s", path)))
	}
	if got := <-m.asked; !strings.HasPrefix(got, "banger-x.scope ") {
		t.Errorf("asked for %q", got)
	}
}
