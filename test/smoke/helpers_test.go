package smoke

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"banger/internal/testenv"
)

// waitLine reads lines until one is want.
func waitLine(t *testing.T, r io.Reader, want string) {
	t.Helper()
	line := make([]byte, 0, 80)
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatalf("output ended (%v) before the line %q", err, want)
		}
		if b[0] != '\n' {
			line = append(line, b[0])
			continue
		}
		if string(line) == want {
			return
		}
		line = line[:0]
	}
}

func signalTree(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
}

// checkUnprivileged asserts that no process of the world has uid 0 or a capability, and that each VMM has no_new_privs
// and a seccomp filter.
func checkUnprivileged(t *testing.T, w *testenv.World) {
	t.Helper()
	vmms := 0
	for pid, cmdline := range w.Processes() {
		status := procStatus(t, pid)
		for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
			if status[set] != "0000000000000000" {
				t.Errorf("%d %s: %s = %s", pid, cmdline, set, status[set])
			}
		}
		for _, uid := range strings.Fields(status["Uid"]) {
			if uid != fmt.Sprint(w.User.UID) {
				t.Errorf("%d %s: Uid = %s, want %d alone", pid, cmdline, status["Uid"], w.User.UID)
			}
		}
		if strings.Contains(cmdline, "qemu-system") {
			vmms++
			if status["NoNewPrivs"] != "1" || status["Seccomp"] != "2" {
				t.Errorf("VMM %d: NoNewPrivs %s, Seccomp %s, want 1 and 2", pid, status["NoNewPrivs"], status["Seccomp"])
			}
		}
	}
	if vmms == 0 {
		t.Error("no VMM among the world's processes: nothing was checked")
	}
}

func procStatus(t *testing.T, pid int) map[string]string {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fields := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), ":"); ok {
			fields[name] = strings.TrimSpace(value)
		}
	}
	return fields
}

// withTerminal makes a process the leader of a session whose terminal is its standard input.
func withTerminal(attr *syscall.SysProcAttr) *syscall.SysProcAttr {
	if attr == nil {
		attr = &syscall.SysProcAttr{}
	}
	attr.Setsid, attr.Setctty = true, true
	return attr
}
