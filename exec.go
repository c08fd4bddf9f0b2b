package banger

import "strings"

// ExecRequest is one command for the guest. It travels as JSON from the client through machine.sock and the SSH
// channel "exec@banger" to the agent; no shell sees Argv.
type ExecRequest struct {
	Argv    []string          `json:"argv,omitempty"` // empty: a login shell of User
	Env     map[string]string `json:"env,omitempty"`
	Dir     string            `json:"dir,omitempty"`      // empty: the user's home
	HomeDir string            `json:"home_dir,omitempty"` // in place of the home when Dir is empty, if it is there
	MakeDir bool              `json:"make_dir,omitempty"` // root makes Dir when it is missing, as what runs containers does
	User    string            `json:"user,omitempty"`     // name or uid[:gid]; empty: root
	PTY     *PTY              `json:"pty,omitempty"`      // nil: three pipes
}

// DefaultPath is PATH of commands in an image that does not say another one.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// PTY is the terminal that a command gets.
type PTY struct {
	Term string `json:"term"` // TERM
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// ExecResult is how a command ended. Exactly one of Status, Signal and Error says it.
type ExecResult struct {
	Status int    `json:"status"`           // exit status, when Signal and Error are empty
	Signal string `json:"signal,omitempty"` // "KILL", "SEGV": ended by this signal
	Error  string `json:"error,omitempty"`  // could not be started: the reason
	Errno  int    `json:"errno,omitempty"`  // with Error: ENOENT, EACCES, … or 0
}

// ExitStatus is the shell's convention for the result: the command's own status, 128+n for a signal, 127 when the
// program was not found, 126 when it could not be executed.
func (r ExecResult) ExitStatus() int {
	const enoent, enotdir = 2, 20
	switch {
	case r.Error != "" && (r.Errno == enoent || r.Errno == enotdir):
		return 127
	case r.Error != "":
		return 126
	case r.Signal != "":
		if n, ok := signalNumbers[r.Signal]; ok {
			return 128 + n
		}
		return 128
	}
	return r.Status
}

// signalNumbers are Linux's numbers on amd64 and arm64, by the names that SSH uses (RFC 4254 section 6.10) and a few more.
var signalNumbers = map[string]int{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10,
	"SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18, "STOP": 19,
	"TSTP": 20, "TTIN": 21, "TTOU": 22, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "SYS": 31,
}

// SignalName gives SSH's name of Linux signal number n ("KILL" for 9), or "" when it has none.
func SignalName(n int) string {
	for name, number := range signalNumbers {
		if number == n {
			return name
		}
	}
	return ""
}

// SignalNumber is the inverse of SignalName; it accepts "SIGKILL" and "KILL"; 0 when unknown.
func SignalNumber(name string) int {
	if len(name) > 3 && name[:3] == "SIG" {
		name = name[3:]
	}
	return signalNumbers[name]
}

// IsRoot tells whether root is meant by what says whom commands run as: "", "root", "0", each with any group behind a colon.
func IsRoot(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	return name == "" || name == "root" || name == "0"
}
