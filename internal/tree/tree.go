// Package tree is one entry of a file tree on its way into an image: from a directory, a tar stream, an image's layer
// or a literal file. Entries of a layer may also delete what lower layers made.
//
// Paths are slash-separated, clean, relative to the tree's root and never leave it; the root itself is ".".
package tree

import (
	"io"
	"iter"
	"time"
)

// Kind is what an entry is.
type Kind uint8

const (
	File Kind = iota + 1
	Dir
	Symlink
	HardLink // Link names an entry that came before
	CharDevice
	BlockDevice
	FIFO
	Socket
	Delete // removes Path and all below it, if it is there
	Opaque // removes all children of Path that came from earlier layers
	Layer  // begins a layer: the entries before it came from earlier ones
)

// Entry is one step in making a tree.
type Entry struct {
	Path       string
	Kind       Kind
	Mode       uint32 // permission, set-id and sticky bits: 07777
	UID, GID   uint32
	ModTime    time.Time // zero: the writer's default time
	AccessTime time.Time // zero: ModTime
	ChangeTime time.Time // zero: ModTime
	Size       int64     // bytes of a File
	Link       string    // text of a Symlink, path of a HardLink's target
	Major      uint32    // of a device
	Minor      uint32
	Xattrs     map[string][]byte // by full name: "user.x", "security.capability"
	Content    io.Reader         // Size bytes of a File, nil when Size is 0; read before the next entry is asked for
}

// Source yields entries in order and ends at the first error, which it yields with a zero Entry.
type Source = iter.Seq2[Entry, error]

// HoleReader is Content that knows where its holes are.
type HoleReader interface {
	io.Reader
	io.ReaderAt

	// NextData gives the first range of data at or after off. Errors: io.EOF when only a hole is left.
	NextData(off int64) (start, end int64, err error)
}
