package twoway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"time"

	"banger"
)

// Kind is what is at a path.
type Kind byte

const (
	None  Kind = iota // nothing
	File              // a regular file
	Link              // a symbolic link, which is never followed
	Dir               // a directory; those are made and removed as their files need it
	Other             // what is left alone: a device, a FIFO, a socket, a file that is too large or can't be read
)

// Limits of what is kept alike.
const (
	MaxSize  = 1 << 30   // bytes of a file
	MaxFiles = 1_000_000 // of a side
	maxPath  = 4000      // bytes
	maxName  = 255
)

// Sum is a SHA-256.
type Sum [sha256.Size]byte

// MarshalText gives hexadecimal digits.
func (s Sum) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads them.
func (s *Sum) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(s)) {
		return banger.Invalidf("%d digits are no SHA-256", len(text))
	}
	_, err := hex.Decode(s[:], text)
	return err
}

// short begins the name of a file that waits to be put in place.
func (s Sum) short() string { return hex.EncodeToString(s[:8]) }

// State is what is at a path. Two states that are equal need no work.
type State struct {
	Kind Kind  `json:"k,omitempty"`
	Exec bool  `json:"x,omitempty"` // its owner may execute the file; other bits of the mode are each side's own
	Size int64 `json:"s,omitempty"`
	Sum  Sum   `json:"h,omitzero"` // of the content, or of the link's target
}

// Found is a state, and if asked for, what git calls the content.
type Found struct {
	State
	Blob string `json:"b,omitempty"` // SHA-1 of it as a blob
}

// Child is a name in a directory.
type Child struct {
	Path string
	Dir  bool
}

// Item is what is read at a path, beside a file's content.
type Item struct {
	Kind Kind   `json:"k"` // None, File or Link
	Mode uint32 `json:"m,omitempty"`
	Link []byte `json:"l,omitempty"` // the target
}

// Put says what a write or removal finds and keeps.
type Put struct {
	Path   string
	Expect State  // what is there; if it is something else, nothing changes
	Keep   string // path that what was there gets when it is not as expected after all
	Always bool   // or in any case
}

// Outcome is what became of a write or removal.
type Outcome byte

const (
	Done  Outcome = iota + 1
	Stale         // something else than expected is there
	Clash         // a directory that is not empty is there, or a file is where a directory has to be
)

// Result tells it.
type Result struct {
	Outcome Outcome `json:"o"`
	State   State   `json:"s,omitzero"` // as written
	Kept    string  `json:"-"`          // path of what was there, if it was kept
}

// Side is one of the two trees. Paths are relative to its root and clean; no symbolic link in one is followed.
type Side interface {
	// List begins to watch directories and gives what is in them. Those that are not there are empty.
	List(ctx context.Context, dirs []string) ([]Child, error)
	// Look gives the states of paths, in their order.
	Look(ctx context.Context, paths []string, blobs bool) ([]Found, error)
	// Read gives what is at a path. At the end of the content it is durable there. The content must be closed.
	Read(ctx context.Context, at string) (Item, io.ReadCloser, error)
	// Write puts an item in place, durably.
	Write(ctx context.Context, put Put, item Item, content io.Reader) (Result, error)
	// Remove removes a file or link, and the directories that are empty then.
	Remove(ctx context.Context, put Put) (Result, error)
	// Aside gives a file or link another name, and tells which: as, or one like it. It is empty when nothing was there.
	Aside(ctx context.Context, at, as string) (string, error)
	// Changed holds a token when Take has something to tell.
	Changed() <-chan struct{}
	// Take gives the paths that may have changed since the last call. all means that any may have. An error ends the side.
	Take() (paths []string, all bool, err error)
}

// stagingPrefix begins the names of files that are not in place yet.
const stagingPrefix = ".banger-watch-"

// valid tells whether a path is one that a side may be asked about.
func valid(at string) bool {
	if at == "" || at == "." || len(at) > maxPath || !filepath.IsLocal(at) || path.Clean(at) != at || strings.ContainsRune(at, 0) {
		return false
	}
	for part := range strings.SplitSeq(at, "/") {
		if len(part) > maxName || strings.HasPrefix(part, stagingPrefix) {
			return false
		}
	}
	return true
}

// conflictName gives the path of a version that gives way: "src/main.c.conflict-guest-20260102T150405Z". A name that is too long is cut.
func conflictName(at, side string, now time.Time) string {
	dir, base := path.Split(at)
	return dir + withSuffix(base, ".conflict-"+side+"-"+now.UTC().Format("20060102T150405Z"))
}

func withSuffix(base, suffix string) string {
	if most := maxName - len(suffix); len(base) > most {
		base = strings.ToValidUTF8(base[:most], "")
	}
	return base + suffix
}

// numbered gives another name when the first ones are taken.
func numbered(at string, n int) string {
	if n == 0 {
		return at
	}
	dir, base := path.Split(at)
	return dir + withSuffix(base, fmt.Sprintf("-%d", n+1))
}
