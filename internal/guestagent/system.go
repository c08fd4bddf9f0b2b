package guestagent

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/channel"
)

const (
	systemPatience = 10 * time.Minute // a unit that hangs takes systemd's 90 s more than once
	systemRetry    = 100 * time.Millisecond
	systemSocket   = "/run/systemd/private" // where systemd answers systemctl
)

// awaitSystem waits for the image's init to come up and tells the host. Only systemd says; another init counts as up.
func (a *agent) awaitSystem() {
	state := "running"
	if path, err := lookPath("systemctl", defaultPath, "/"); err == nil {
		state = a.systemState(path)
	}
	a.mu.Lock()
	a.system = &channel.System{State: state}
	ready := a.ready
	a.mu.Unlock()
	if ready {
		a.send(&channel.FromGuest{System: &channel.System{State: state}})
	}
}

// systemState asks until systemd gives an answer: in the beginning it does not listen yet.
func (a *agent) systemState(systemctl string) string {
	for deadline := time.Now().Add(systemPatience); time.Now().Before(deadline); time.Sleep(systemRetry) {
		if other, known := initIsOther(); known && other {
			return "running"
		}
		if _, err := os.Stat(systemSocket); err != nil {
			continue
		}
		answer := a.ask(time.Until(deadline), systemctl, "is-system-running", "--wait")
		switch answer {
		case "running", "degraded", "maintenance", "stopping":
			return answer
		}
	}
	return "timeout"
}

// initIsOther tells whether process 1 is another init than systemd. It is not known while process 1 is still this program.
func initIsOther() (other, known bool) {
	first, err1 := os.Stat("/proc/1/exe")
	self, err2 := os.Stat("/proc/self/exe")
	if err1 != nil || err2 != nil || os.SameFile(first, self) {
		return false, false
	}
	exe, err := os.Readlink("/proc/1/exe")
	return filepath.Base(exe) != "systemd", err == nil
}

// ask gives the first output of a program, or nothing when it takes too long.
func (a *agent) ask(patience time.Duration, path string, args ...string) string {
	r, w, err := os.Pipe()
	if err != nil {
		return ""
	}
	defer r.Close()
	pid, _, err := a.server.children.start(path, append([]string{path}, args...), systemAttr(w, nil))
	w.Close()
	if err != nil {
		return ""
	}
	r.SetReadDeadline(time.Now().Add(patience))
	var out bytes.Buffer
	if _, err := io.Copy(&out, io.LimitReader(r, 4096)); err != nil {
		unix.Kill(-pid, unix.SIGKILL)
		return ""
	}
	return strings.TrimSpace(out.String())
}
