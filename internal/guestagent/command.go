package guestagent

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
)

const defaultPath = banger.DefaultPath

// plan is a command ready to start.
type plan struct {
	path string
	argv []string
	env  []string
	dir  string
	acct account
}

// startError says why a command could not be started.
type startError struct {
	errno syscall.Errno // 0 when the reason is not about the program
	err   error
}

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

func (e *startError) result() banger.ExecResult {
	return banger.ExecResult{Error: e.err.Error(), Errno: int(e.errno)}
}

// startFailed keeps the number of a failed exec and says what it is about.
func startFailed(subject string, err error) *startError {
	var errno syscall.Errno
	errors.As(err, &errno)
	if errno != 0 {
		err = errno
	}
	return &startError{errno: errno, err: fmt.Errorf("%s: %w", subject, err)}
}

// planExec resolves a request against the guest's accounts and file system; env is set for every command.
func planExec(who accounts, env map[string]string, req banger.ExecRequest) (plan, error) {
	acct, err := who.find(req.User)
	if err != nil {
		return plan{}, &startError{err: err}
	}
	p := plan{acct: acct, argv: req.Argv, dir: req.Dir}
	merged := baseEnv(acct)
	maps.Copy(merged, env)
	if req.PTY != nil && req.PTY.Term != "" {
		merged["TERM"] = req.PTY.Term
	}
	maps.Copy(merged, req.Env)
	if p.env, err = envList(merged); err != nil {
		return plan{}, &startError{err: err}
	}
	if req.MakeDir && filepath.IsAbs(req.Dir) {
		_ = os.MkdirAll(req.Dir, 0o755) // what is wrong with it is told when it is used
	}
	if info, err := os.Stat(req.HomeDir); req.Dir == "" && err == nil && info.IsDir() {
		p.acct.Home = req.HomeDir // its HOME is set already
	}
	if err := p.findDir(req.Dir); err != nil {
		return plan{}, err
	}
	if len(req.Argv) == 0 {
		return p, p.useShell("")
	}
	if slices.ContainsFunc(req.Argv, hasNUL) {
		return plan{}, &startError{errno: unix.EINVAL, err: errors.New("an argument holds a NUL byte")}
	}
	p.path, err = lookPath(req.Argv[0], merged["PATH"], p.dir)
	return p, err
}

// useShell makes p the account's shell, or /bin/sh where that is missing: for a command, or as a login shell.
func (p *plan) useShell(command string) error {
	p.path = p.acct.Shell
	if checkExecutable(p.path) != nil {
		p.path = fallbackShell
	}
	if checkExecutable(p.path) != nil {
		missing := p.acct.Shell
		if missing != fallbackShell {
			missing += " nor " + fallbackShell
		}
		return &startError{errno: unix.ENOENT, err: fmt.Errorf("the image has no shell: it has no %s", missing)}
	}
	p.argv = []string{p.path, "-c", command}
	if command == "" {
		p.argv = []string{"-" + filepath.Base(p.path)}
	}
	return nil
}

// useSelf makes p this program by another name: see [Main]. The link works for users who may not enter the program's directory.
func (p *plan) useSelf(name string) { p.path, p.argv = "/proc/self/exe", []string{name} }

func hasNUL(s string) bool { return strings.IndexByte(s, 0) >= 0 }

func baseEnv(acct account) map[string]string {
	env := map[string]string{"PATH": defaultPath, "HOME": acct.Home, "SHELL": acct.Shell, "LANG": "C.UTF-8"}
	if acct.Name != "" {
		env["USER"], env["LOGNAME"] = acct.Name, acct.Name
	}
	return env
}

// envList gives the environment sorted, so that the same request starts the same process.
func envList(env map[string]string) ([]string, error) {
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if name == "" || strings.ContainsAny(name, "=\x00") || hasNUL(env[name]) {
			return nil, fmt.Errorf("environment variable %q is malformed", name)
		}
		list = append(list, name+"="+env[name])
	}
	return list, nil
}

// findDir takes the requested directory, or the home, or / when there is no home.
func (p *plan) findDir(dir string) error {
	p.dir = dir
	if dir == "" {
		p.dir = p.acct.Home
	}
	info, err := os.Stat(p.dir)
	if err == nil && !info.IsDir() {
		err = unix.ENOTDIR
	}
	switch {
	case err == nil:
	case dir == "":
		p.dir = "/"
	default:
		return &startError{err: startFailed("working directory "+dir, err).err}
	}
	return nil
}

// lookPath finds a program as execvp does: a name with a slash is taken from dir, another looked up in path. Errors keep
// the number: ENOENT when it is nowhere, EACCES when only files that are not executable have that name.
func lookPath(name, path, dir string) (string, error) {
	if name == "" {
		return "", startFailed(`""`, unix.ENOENT)
	}
	if strings.Contains(name, "/") {
		file := name
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		if err := checkExecutable(file); err != nil {
			return "", startFailed(name, err)
		}
		return name, nil
	}
	reason := error(unix.ENOENT)
	for _, in := range filepath.SplitList(path) {
		if !filepath.IsAbs(in) {
			in = filepath.Join(dir, in)
		}
		file := filepath.Join(in, name)
		err := checkExecutable(file)
		if err == nil {
			return file, nil
		}
		if errors.Is(err, unix.EACCES) {
			reason = unix.EACCES
		}
	}
	return "", startFailed(name, reason)
}

func checkExecutable(file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case info.IsDir(), info.Mode()&fs.ModeType != 0, info.Mode().Perm()&0o111 == 0:
		return unix.EACCES
	}
	return nil
}

// attr is how the process of p starts: a session of its own with files as its standard streams; terminal says that they
// are its controlling terminal.
func (p *plan) attr(files []*os.File, terminal bool) *syscall.ProcAttr {
	sys := &syscall.SysProcAttr{Setsid: true, Setctty: terminal}
	if os.Getuid() == 0 {
		sys.Credential = &syscall.Credential{Uid: p.acct.UID, Gid: p.acct.GID, Groups: p.acct.Groups}
	}
	return &syscall.ProcAttr{Dir: p.dir, Env: p.env, Files: descriptors(files...), Sys: sys}
}

// systemAttr is how a program of the system starts that the agent itself asks, without input.
func systemAttr(stdout, stderr *os.File) *syscall.ProcAttr {
	return &syscall.ProcAttr{Dir: "/", Env: []string{"PATH=" + defaultPath}, Files: descriptors(nil, stdout, stderr), Sys: &syscall.SysProcAttr{Setsid: true}}
}

// descriptors are those of files; nil is one that the process has closed.
func descriptors(files ...*os.File) (fds []uintptr) {
	for _, f := range files {
		fds = append(fds, f.Fd())
	}
	return fds
}
