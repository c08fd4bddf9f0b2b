package mcp

import (
	"context"
	"io"
	"time"

	"banger"
	"banger/api"
	"banger/internal/machine"
	"banger/internal/project"
	"banger/internal/workspace"
)

// Listener hears what a command has to say beside its result. Both fields are optional.
type Listener struct {
	Progress banger.ProgressFunc
	Notice   func(text string) // text is escaped
}

// Commands are banger's commands. VMs are named by ref: name, id or the beginning of the id.
type Commands interface {
	// Needs lists what goes beyond what every VM may have, and beyond limit when that is given. It also gives the policy that was
	// compared with.
	Needs(ctx context.Context, wish project.Settings, limit banger.NetPolicy) ([]project.Need, banger.NetPolicy, error)

	Create(ctx context.Context, vm NewVM) (api.VMDetail, error) // and start it
	List(ctx context.Context) ([]banger.VM, error)
	Show(ctx context.Context, ref string) (api.VMDetail, error)
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref string, timeout time.Duration) error
	Delete(ctx context.Context, ref string, force bool) error

	// Exec runs a command and gives its exit status. An error with a status is why it could not be started; with status 0 it is banger's own.
	Exec(ctx context.Context, ref string, cmd Command) (status int, err error)
	// CopyOut writes a tar of a file or directory. A symbolic link is followed.
	CopyOut(ctx context.Context, ref, path string, w io.Writer) error
	// CopyIn puts what is in a tar into a directory.
	CopyIn(ctx context.Context, ref, dir string, r io.Reader) error

	Ports(ctx context.Context, ref string) (ports machine.Ports, httpEntry string, err error)
	SetNet(ctx context.Context, ref string, change banger.NetChange) (banger.NetPolicy, error)
	NetLog(ctx context.Context, ref string, each func(banger.NetEvent) error) error
	CheckNet(ctx context.Context, policy banger.NetPolicy, targets []string) ([]Check, error)

	Prepare(ctx context.Context, ref string, repo Repository, force bool) error
	Status(ctx context.Context, ref, guestPath string) (workspace.Status, error)
	Diff(ctx context.Context, ref, guestPath string, w io.Writer) error
	Pull(ctx context.Context, ref, guestPath string) (refs map[string]string, notices []string, err error)
	Push(ctx context.Context, ref, guestPath string) (workspace.Pushed, error)
	Autosaves(ctx context.Context) ([]banger.Autosave, error)
}

// NewVM is what a VM is to be.
type NewVM struct {
	api.CreateRequest
	Repository *Repository // optional
	NoProject  bool        // without the repository's .banger.toml and devcontainer.json
}

// Repository is what of the host goes into a VM.
type Repository struct {
	Path      string // absolute
	Branch    string
	GuestPath string
	Untracked bool
}

// Command is a command to run in a VM.
type Command struct {
	Argv           []string
	Env            map[string]string
	Dir, User      string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Check is what would become of a connection.
type Check struct {
	Target    string
	Allowed   bool
	Reason    string
	Addresses []string
}
