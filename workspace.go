package banger

import (
	"fmt"
	"path"
	"strings"
	"time"
)

// MaxWorkspaces bounds how many repositories one VM has from the host.
const MaxWorkspaces = 64

// Workspace is a repository of the host, or a directory, that went into a VM.
type Workspace struct {
	GuestPath  string    `json:"guest_path"`          // absolute
	HostPath   string    `json:"host_path"`           // the root on the host
	Name       string    `json:"name"`                // last part of HostPath
	Head       string    `json:"head,omitempty"`      // object id of the commit that went in last; absent: there was none
	Branch     string    `json:"branch,omitempty"`    // that the guest began with
	Packs      []string  `json:"packs,omitempty"`     // files in the guest's objects/pack that the host sent
	PreparedAt time.Time `json:"prepared_at"`         // when all of it last went in
	Directory  bool      `json:"directory,omitempty"` // files alone: there was no repository, or only its files were wanted
	Readonly   bool      `json:"readonly,omitempty"`  // without permission to write
}

// Validate checks what names places. Errors: ErrInvalid.
func (w Workspace) Validate() error {
	if err := ValidateGuestPath(w.GuestPath); err != nil {
		return err
	}
	if !strings.HasPrefix(w.HostPath, "/") {
		return Invalidf("host path %q: want an absolute one", w.HostPath)
	}
	return nil
}

// ValidateGuestPath checks a place for a workspace: a clean absolute path of at least two parts, so that none is a directory of the
// system's root. Errors: ErrInvalid.
func ValidateGuestPath(name string) error {
	if !strings.HasPrefix(name, "/") || path.Clean(name) != name || strings.Count(name, "/") < 2 || len(name) > 1024 || strings.ContainsRune(name, 0) {
		return &Error{Kind: ErrInvalid, Err: fmt.Errorf("guest path %q: want an absolute path of at least two parts", name), Hint: "for example: --guest-path /root/repo"}
	}
	return nil
}

// Autosave is work that was in a VM when it was deleted.
type Autosave struct {
	ID        string            `json:"id"`                // "devbox-0123456789ab-20261128T182914.000Z-0"
	VM        string            `json:"vm"`                // name
	VMID      VMID              `json:"vm_id"`             // of that VM, which is gone
	GuestPath string            `json:"guest_path"`        // where the work was in the VM
	HostPath  string            `json:"host_path"`         // the repository that it came from
	At        time.Time         `json:"at"`                // when the VM was deleted
	Bundle    string            `json:"bundle"`            // path of a file that "git fetch" reads
	Bytes     int64             `json:"bytes"`             // of the bundle
	Refs      map[string]string `json:"refs"`              // in the bundle: name → object id
	Shallow   []string          `json:"shallow,omitempty"` // commits whose parents are neither in the bundle nor in the host's repository
	Pending   bool              `json:"pending"`           // the refs are not in the host's repository yet
	Notices   []string          `json:"notices,omitempty"` // for people: what was left out of it or looked wrong; absent: nothing
}
