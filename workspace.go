package banger

import "time"

// Workspace is a repository of the host, or a directory, that went into a VM.
type Workspace struct {
	GuestPath  string    `json:"guest_path"` // absolute
	HostPath   string    `json:"host_path"`  // the root on the host
	Name       string    `json:"name"`       // last part of HostPath
	Head       string    `json:"head,omitempty"`
	Branch     string    `json:"branch,omitempty"` // that the guest began with
	Packs      []string  `json:"packs,omitempty"`  // files in the guest's objects/pack that the host sent
	User       string    `json:"user,omitempty"`   // owner in the guest
	Git        bool      `json:"git"`              // false: plain files
	PreparedAt time.Time `json:"prepared_at"`
}
