package proc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// confineVerb is the first argument by which [ConfinedCommand] runs a banger program as the shim of another one.
const confineVerb = "confine-exec"

// Exit statuses of a shim that could not become its program, as of env(1).
const (
	exitNotConfined = 125
	exitNotStarted  = 126
)

// Confinement is what a process may reach. Paths are files, or directories with all below them; one that does not exist
// is left out.
type Confinement struct {
	ReadOnly  []string `json:"read_only,omitempty"`
	ReadWrite []string `json:"read_write,omitempty"` // directories: also to create and remove; devices: also ioctl
	Exec      []string `json:"exec,omitempty"`       // to read and to execute

	Network bool `json:"network,omitempty"` // may bind and connect TCP and UDP
	Signals bool `json:"signals,omitempty"` // may signal processes outside of the domain

	// Descriptors from 3 on that the program of a ConfinedCommand gets; the shim closes all others.
	KeepFiles int `json:"keep_files,omitempty"`
}

// Merge is the confinement that allows what either allows.
func (c Confinement) Merge(d Confinement) Confinement {
	return Confinement{
		ReadOnly:  slices.Concat(c.ReadOnly, d.ReadOnly),
		ReadWrite: slices.Concat(c.ReadWrite, d.ReadWrite),
		Exec:      slices.Concat(c.Exec, d.Exec),
		Network:   c.Network || d.Network,
		Signals:   c.Signals || d.Signals,
		KeepFiles: max(c.KeepFiles, d.KeepFiles),
	}
}

// LandlockABI is the kernel's version of Landlock; 0 when it has none.
func LandlockABI() int {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return abi
}

// ConfineSelf confines this process and all it will start: no core dumps, no_new_privs, and Landlock as far as the
// kernel knows it. It cannot be undone.
func ConfineSelf(c Confinement) error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := ll.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	rules, err := c.rules()
	if err != nil {
		return err
	}
	config := landlock.V11
	if c.Network {
		config.HandledAccessNet = 0
	}
	if c.Signals {
		config.Scoped = 0
	}
	if err := config.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("confine by Landlock: %w", err)
	}
	return nil
}

const (
	rightsRead  = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir)
	rightsExec  = rightsRead | ll.AccessFSExecute
	rightsWrite = rightsRead | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSIoctlDev | ll.AccessFSResolveUnix |
		ll.AccessFSRemoveDir | ll.AccessFSRemoveFile | ll.AccessFSMakeDir | ll.AccessFSMakeReg | ll.AccessFSMakeSock |
		ll.AccessFSMakeFifo | ll.AccessFSMakeSym
	rightsOfFiles = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSExecute |
		ll.AccessFSIoctlDev | ll.AccessFSResolveUnix)
)

func (c Confinement) rules() ([]landlock.Rule, error) {
	var rules []landlock.Rule
	for _, group := range []struct {
		paths  []string
		rights landlock.AccessFSSet
	}{{c.ReadOnly, rightsRead}, {c.ReadWrite, rightsWrite}, {c.Exec, rightsExec}} {
		for _, path := range group.paths {
			info, err := os.Stat(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("confine: %w", err)
			}
			rights := group.rights
			if !info.IsDir() {
				rights &= rightsOfFiles
			}
			rules = append(rules, landlock.PathAccess(rights, path))
		}
	}
	return rules, nil
}

// ConfinedCommand is the command that runs argv confined by c. Go cannot run code between fork and exec, so self, a
// program of banger whose main begins with [MaybeConfineMain], confines itself and becomes argv.
func ConfinedCommand(self string, c Confinement, argv ...string) (path string, args []string) {
	encoded, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings and flags always encode
	}
	return self, append([]string{confineVerb, string(encoded)}, argv...)
}

// MaybeConfineMain is the first call of a program that [Start] starts or that serves [ConfinedCommand] as its shim. It
// enters the scope that Start asked for; called as a shim it becomes the confined program and does not return.
func MaybeConfineMain() {
	if scope, ok := os.LookupEnv(scopeVariable); ok {
		os.Unsetenv(scopeVariable)
		_ = enterScope(scope) // without a manager the process stays where it is
	}
	if len(os.Args) < 4 || os.Args[1] != confineVerb {
		return
	}
	status, err := confineExec(os.Args[2], os.Args[3:])
	fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[3]), err)
	os.Exit(status)
}

func confineExec(encoded string, argv []string) (status int, err error) {
	runtime.LockOSThread() // no_new_privs belongs to the thread that calls exec
	var c Confinement
	if err := json.Unmarshal([]byte(encoded), &c); err != nil {
		return exitNotConfined, fmt.Errorf("read confinement: %w", err)
	}
	path, err := LookPath(argv[0])
	if err != nil {
		return exitNotStarted, err
	}
	closeOnExecFrom(firstFree + c.KeepFiles)
	unix.Umask(0o077)
	if err := ConfineSelf(c); err != nil {
		return exitNotConfined, err
	}
	return exitNotStarted, &os.PathError{Op: "execute", Path: path, Err: syscall.Exec(path, argv, os.Environ())}
}
