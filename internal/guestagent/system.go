package guestagent

import (
	"bytes"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/channel"
)

const (
	systemPatience = 30 * time.Second
	systemRetry    = 200 * time.Millisecond
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
		answer := a.ask(time.Until(deadline), systemctl, "is-system-running", "--wait")
		switch answer {
		case "running", "degraded", "maintenance", "stopping":
			return answer
		}
	}
	return "timeout"
}

// ask gives the first output of a program, or nothing when it takes too long.
func (a *agent) ask(patience time.Duration, path string, args ...string) string {
	r, w, err := os.Pipe()
	if err != nil {
		return ""
	}
	defer r.Close()
	pid, _, err := a.server.children.start(path, append([]string{path}, args...), &os.ProcAttr{Dir: "/",
		Env: []string{"PATH=" + defaultPath}, Files: []*os.File{nil, w, nil}, Sys: &syscall.SysProcAttr{Setsid: true}})
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
