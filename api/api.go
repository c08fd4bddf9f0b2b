// Package api is the daemon's API for both of its sides: routes, bodies, and how errors and progress travel.
//
// The daemon speaks HTTP/1.1 with JSON over its unix socket. A request that takes long answers 200 with one [Event]
// a line (application/x-ndjson): progress, then either a result or an error. All other errors are an [ErrorBody]
// with the status that [StatusOf] gives.
package api

import (
	"time"

	"banger"
)

// Version of the API. The client sends it with every request in [VersionHeader]; a daemon of another version refuses.
const (
	Version       = 1
	VersionHeader = "Banger-Api-Version"
	OpIDHeader    = "Banger-Op-Id" // in every answer
)

// Ready is the line that bangerd writes to the descriptor of --ready-fd once it serves. Anything else there is an
// [banger.ErrorBody]: why it does not.
const Ready = "ready"

// Routes, in net/http's pattern form; [Routes] says what goes in and comes out. {ref} is a VM's name, id or unique prefix of an id.
const (
	RouteOpenAPI      = "GET /v1/openapi.json"
	RouteStatus       = "GET /v1/status"
	RouteShutdown     = "POST /v1/shutdown"
	RouteSettings     = "GET /v1/config"
	RouteVMCreate     = "POST /v1/vms"
	RouteVMList       = "GET /v1/vms"
	RouteVMShow       = "GET /v1/vms/{ref}"
	RouteVMStart      = "POST /v1/vms/{ref}/start"
	RouteVMStop       = "POST /v1/vms/{ref}/stop"
	RouteVMDelete     = "DELETE /v1/vms/{ref}"
	RouteImageList    = "GET /v1/images"
	RouteImageShow    = "GET /v1/images/{ref}"
	RouteImageImport  = "POST /v1/images"
	RouteImagePull    = "POST /v1/images/pull"
	RouteImageBuild   = "POST /v1/images/build"
	RouteImageDelete  = "DELETE /v1/images/{ref}"
	RouteKernelList   = "GET /v1/kernels"
	RouteKernelOffers = "GET /v1/kernels-offered"
	RouteKernelShow   = "GET /v1/kernels/{ref}"
	RouteKernelImport = "POST /v1/kernels"
	RouteKernelPull   = "POST /v1/kernels/pull"
	RouteKernelDelete = "DELETE /v1/kernels/{ref}"
)

// ForceParam is the query parameter of [RouteVMDelete] that lets a running VM be stopped first, and of [RouteShutdown] that lets
// running operations be cut off.
const ForceParam = "force"

// DiscardParam is the query parameter of [RouteVMDelete] that has no work kept; it means force too.
const DiscardParam = "discard"

// CreateRequest asks for a VM. A nil or empty field takes the daemon's default; an explicit bad value is refused.
type CreateRequest struct {
	Name       string            `json:"name,omitempty"`
	Image      string            `json:"image,omitempty"`
	Kernel     string            `json:"kernel,omitempty"` // empty: the image's, or the daemon's default
	VCPU       *int              `json:"vcpu,omitempty"`
	MemoryMiB  *int              `json:"memory_mib,omitempty"`
	DiskBytes  *int64            `json:"disk_bytes,omitempty"`
	Env        map[string]string `json:"env,omitempty"`
	User       string            `json:"user,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Net        banger.NetChange  `json:"net,omitzero"`     // of the daemon's default
	TTL        time.Duration     `json:"ttl_ns,omitempty"` // deleted when it is over; 0: never
	StopIdle   *time.Duration    `json:"stop_idle_ns,omitempty"`
	GitName    string            `json:"git_name,omitempty"` // the host user's identity, for the guest's ~/.gitconfig
	GitEmail   string            `json:"git_email,omitempty"`
	Start      bool              `json:"start,omitempty"`
	Remove     bool              `json:"remove,omitempty"`     // a lease held by the calling process (socket peer): the VM is deleted when that process is gone
	Overcommit bool              `json:"overcommit,omitempty"` // start although there is not the memory
	CA         string            `json:"ca,omitempty"`
	Publish    []banger.Publish  `json:"publish,omitempty"`
	Sync       []banger.FileSync `json:"sync,omitempty"` // beside those of the configuration, which they stand above
}

// ImportRequest asks for an image made from what lies on the host.
type ImportRequest struct {
	Name     string          `json:"name"`
	Path     string          `json:"path"`                // absolute; the daemon opens it
	Boot     banger.BootKind `json:"boot,omitempty"`      // empty: system if the image has systemd
	Kernel   string          `json:"kernel,omitempty"`    // what its VMs boot; empty: the default
	Rootfs   bool            `json:"rootfs,omitempty"`    // Path must be an ext4 image
	WorkSeed string          `json:"work_seed,omitempty"` // absolute path of an ext4 image or a tar; empty: the image's /root
}

// PullRequest asks for an image from a registry.
type PullRequest struct {
	Ref      string          `json:"ref"`            // "alpine:3"
	Name     string          `json:"name,omitempty"` // empty: from Ref
	Boot     banger.BootKind `json:"boot,omitempty"`
	Kernel   string          `json:"kernel,omitempty"`
	Platform string          `json:"platform,omitempty"` // "linux/amd64", which is the default
	Insecure bool            `json:"insecure,omitempty"` // without encryption if need be
}

// PullKernelRequest asks for a kernel that can be had by its name.
type PullKernelRequest struct {
	Name string `json:"name"`
}

// ImportKernelRequest asks for a kernel made from what lies on the host. Its paths are absolute; the daemon opens them.
type ImportKernelRequest struct {
	Name string `json:"name"`
	banger.KernelSource
}

// BuildRequest asks for an image made from packages. A name alone is that of one of banger's own definitions.
type BuildRequest struct {
	Name       string          `json:"name"`
	From       string          `json:"from,omitempty"`       // "debian:bookworm", or one of banger's own definitions
	Packages   []string        `json:"packages,omitempty"`   // beside those of From or Definition
	Definition string          `json:"definition,omitempty"` // text of a definition; From stands above its own
	Boot       banger.BootKind `json:"boot,omitempty"`       // empty: the definition's, or system if the image has systemd
	Kernel     string          `json:"kernel,omitempty"`
}

// StopRequest bounds the guest's own power-off; past Timeout the VMM is killed.
type StopRequest struct {
	Timeout time.Duration `json:"timeout_ns,omitempty"` // 0: the daemon's default
}

// VMDetail is one VM with what its run tells.
type VMDetail struct {
	banger.VM
	Dir           string          `json:"dir"`               // the VM's directory
	MachineSocket string          `json:"machine_socket"`    // where streams go; present while it runs
	User          string          `json:"user,omitempty"`    // whom commands run as; absent: root
	Phase         string          `json:"phase,omitempty"`   // of the run: "booting", "ready", "ending" or "ended"; absent: none, or its supervisor did not answer
	Timings       []banger.Timing `json:"timings,omitempty"` // what took how long until the guest was ready; absent likewise
	PIDs          map[string]int  `json:"pids,omitempty"`    // "banger-machine", "vmm"
}

// Event is one line of a stream. Exactly one field is set; all but Progress are the last line.
type Event struct {
	Progress  *banger.Progress  `json:"progress,omitempty"`  // how far the operation is
	VM        *VMDetail         `json:"vm,omitempty"`        // what an operation on a VM has come to
	Image     *banger.Image     `json:"image,omitempty"`     // that was made, or found to be there
	Kernel    *banger.Kernel    `json:"kernel,omitempty"`    // that was made, or found to be there
	Operation *Operation        `json:"operation,omitempty"` // of what goes on without its client
	Error     *banger.ErrorBody `json:"error,omitempty"`     // why it failed or was cancelled

	CatalogImage  *banger.CatalogImage  `json:"catalog_image,omitempty"`  // entry of a bundle that was made of an image
	CatalogKernel *banger.CatalogKernel `json:"catalog_kernel,omitempty"` // entry of a bundle that was made of a kernel
}

// Status is the daemon's answer about itself.
type Status struct {
	Version    string    `json:"version"`        // of the build
	API        int       `json:"api"`            // version of the API
	PID        int       `json:"pid"`            // of the daemon
	StateDir   string    `json:"state_dir"`      // absolute path of what the daemon keeps
	Socket     string    `json:"socket"`         // path of the daemon's socket
	Log        string    `json:"log"`            // path of the daemon's log
	StartedAt  time.Time `json:"started_at"`     // when this daemon began
	Running    int       `json:"running"`        // VMs
	Ops        int       `json:"operations"`     // that run
	Goroutines int       `json:"goroutines"`     // of the daemon
	Accel      string    `json:"accel"`          // "kvm", "tcg" or "" while not probed
	DNS        string    `json:"dns,omitempty"`  // where .vm names are answered
	HTTP       string    `json:"http,omitempty"` // the HTTP entry of all VMs

	Build banger.Build `json:"build,omitzero"` // absent: an older daemon, which does not tell
}
