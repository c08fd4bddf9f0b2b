package api

import "time"

// Routes of the work of deleted VMs. {ref} is an autosave's id or a unique beginning of it.
const (
	RouteSaveList   = "GET /v1/autosaves"
	RouteSaveLanded = "POST /v1/autosaves/{ref}/landed"
	RouteSavePrune  = "POST /v1/autosaves/prune"
)

// PruneSavesRequest asks for old autosaves to go. The last of a VM stays.
type PruneSavesRequest struct {
	Age    time.Duration `json:"age_ns,omitempty"` // 0: 30 days
	All    bool          `json:"all,omitempty"`    // also those that are in no repository yet
	DryRun bool          `json:"dry_run,omitempty"`
}

// RouteVMParts reads files of a VM that does not run by name.
const RouteVMParts = "POST /v1/vms/{ref}/parts"
