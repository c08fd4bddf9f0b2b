package api

import (
	"time"

	"banger"
)

// Routes of what is done to VMs beside making, starting, stopping and deleting them.
const (
	RouteVMResolve = "POST /v1/vms/resolve"
	RouteVMRestart = "POST /v1/vms/{ref}/restart"
	RouteVMKill    = "POST /v1/vms/{ref}/kill"
	RouteVMRename  = "POST /v1/vms/{ref}/rename"
	RouteVMSet     = "POST /v1/vms/{ref}/set"
	RouteVMWait    = "POST /v1/vms/{ref}/wait"

	RouteVMNet       = "POST /v1/vms/{ref}/net"
	RouteVMWorkspace = "PUT /v1/vms/{ref}/workspaces"
)

// MaxRefs bounds the references of one [ResolveRequest].
const MaxRefs = 10_000

// ResolveRequest asks what references stand for, all at one moment.
type ResolveRequest struct {
	Refs []string `json:"refs"` // names, ids, unique prefixes of ids
}

// ResolvedVM is what one reference stands for. Either ID or Error is set.
type ResolvedVM struct {
	Ref   string            `json:"ref"`
	ID    banger.VMID       `json:"id,omitempty"`
	Name  string            `json:"name,omitempty"`
	Error *banger.ErrorBody `json:"error,omitempty"`
}

// StartRequest lets a VM start although there is not the memory.
type StartRequest struct {
	Overcommit bool `json:"overcommit,omitempty"`
}

// RestartRequest bounds the guest's own power-off as [StopRequest] does, and starts as [StartRequest] says.
type RestartRequest struct {
	Timeout    time.Duration `json:"timeout_ns,omitempty"` // 0: the daemon's default
	Overcommit bool          `json:"overcommit,omitempty"`
}

// KillRequest names the signal for the VMM; KILL ends the run.
type KillRequest struct {
	Signal string `json:"signal"` // "KILL", "SIGTERM", "15"
}

// RenameRequest asks for another name.
type RenameRequest struct {
	Name string `json:"name"`
}

// WaitRequest says what is waited for: "stopped", which is the end of a run in whatever way, "running", "error" or "deleted".
type WaitRequest struct {
	For string `json:"for"`
}

// SetRequest changes what a VM is.
type SetRequest struct {
	banger.SpecChange
	DryRun bool `json:"dry_run,omitempty"` // only tell
}

// SetResult is a VM and what a change to it comes to.
type SetResult struct {
	VM      banger.VM `json:"vm"`      // after the change; with dry run as it is
	Changes []Change  `json:"changes"` // what becomes different; empty: nothing
}

// When a change is done.
const (
	WhenNow        = "now"
	WhenNextStart  = "next start"
	WhenImpossible = "impossible"
)

// Change is one change, and when it is done.
type Change struct {
	banger.FieldChange
	When   string `json:"when"`             // "now", "next start" or "impossible"
	Reason string `json:"reason,omitempty"` // why it is impossible
}
