package workspace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"banger"
	"banger/internal/atomicfile"
)

// Sent is a file as it went into a guest.
type Sent struct {
	Mode  uint32 `json:"mode"` // as an index names it
	ID    string `json:"id"`   // of its content as a blob
	Size  int64  `json:"size"`
	MTime int64  `json:"mtime"`           // nanoseconds since 1970
	CTime int64  `json:"ctime,omitempty"` // in the guest, of a file that no index there knows

	Ignored bool `json:"ignored,omitempty"` // by git: it never comes back
	Fresh   bool `json:"fresh,omitempty"`   // it was written so shortly before that its time does not tell whether it is the same
	Absent  bool `json:"absent,omitempty"`  // left out on purpose, by a sparse checkout
}

// Manifest is the files that went in, by path below the root.
type Manifest map[string]Sent

// Record is what the host remembers of a repository in a guest, as JSON in the VM's directory.
type Record struct {
	banger.Workspace
	Sent     Manifest  `json:"sent"`
	Exported *Exported `json:"exported,omitempty"` // what the host has got back last
	Coming   Manifest  `json:"coming,omitempty"`   // files of an update that is not known to have ended; absent: they go

	Subs map[string]Record `json:"subs,omitempty"` // submodules that went in, by path below the root

	nested bool // it lies in another repository
}

// Exported names all that a guest's repository had at one moment.
type Exported struct {
	Branches map[string]string `json:"branches"` // and tags, by name below refs
	Head     string            `json:"head"`
	Stashes  []string          `json:"stashes"`
	Tree     string            `json:"tree"` // of the commit [All]; "" when nothing had changed
}

// ReadRecord reads the record at path. Errors: ErrNotFound; ErrCorrupt.
func ReadRecord(path string) (Record, error) {
	var r Record
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, &banger.Error{Kind: banger.ErrNotFound, Op: "workspace", Subject: path, Err: err}
	}
	if err == nil {
		if err = json.Unmarshal(b, &r); err != nil {
			err = fmt.Errorf("%w: %s: %w", banger.ErrCorrupt, path, err)
		}
	}
	return r, err
}

// Write writes the record durably.
func (r Record) Write(path string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return spaceIn(path, atomicfile.Write(path, b, 0o600))
}

// Origin is what Fetch needs to know.
func (r Record) Origin() Origin {
	o := Origin{Base: r.Head, Sent: r.Sent, Packs: r.Packs, Nested: r.nested, Directory: r.Directory}
	if _, err := os.Stat(r.HostPath); err == nil {
		o.Repo = r.HostPath
	}
	return o
}
