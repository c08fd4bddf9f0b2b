package workspace

import (
	"context"
	"iter"
	"path"
	"strings"
	"time"

	"banger/internal/tree"
)

// Node is one thing in a guest's file tree, without its content.
type Node struct {
	Path  string // below the directory that was asked for
	Kind  tree.Kind
	Mode  uint32 // permission bits
	UID   uint32
	GID   uint32
	Ino   uint64
	Size  int64
	MTime time.Time
	CTime time.Time
	Link  string // text of a symbolic link
}

// Source reads files of a guest: a running one by its agent, a stopped one from its disk. What it gives is the guest's word.
type Source interface {
	// Walk yields what lies below dir, parents first, without following links. It does not go below the paths in skip.
	Walk(ctx context.Context, dir string, skip ...string) iter.Seq2[Node, error]
	// Read yields files and symbolic links below dir in the order of paths, with their content; those that are not there, or are
	// something else, are left out.
	Read(ctx context.Context, dir string, paths []string) tree.Source
}

// Limits of what is taken from one guest.
const (
	maxNodes     = 4_000_000
	maxRefs      = 100_000
	maxRefFile   = 1 << 10   // bytes of a file below refs
	maxPackedRef = 64 << 20  // bytes of packed-refs
	maxIndex     = 512 << 20 // bytes
	maxObject    = 2 << 30   // bytes of one loose object, inflated
	maxPack      = 64 << 30  // bytes of one pack
	maxReflog    = 16 << 20  // bytes of the stash's
)

// stat is what an index remembers of a file like this.
func (n Node) stat() stat {
	return stat{CTime: uint32(n.CTime.Unix()), CTimeNs: uint32(n.CTime.Nanosecond()), MTime: uint32(n.MTime.Unix()), MTimeNs: uint32(n.MTime.Nanosecond()),
		Ino: uint32(n.Ino), UID: n.UID, GID: n.GID, Size: uint32(n.Size)}
}

// unchanged tells whether a file is as it was when git last looked at it; written is when the index was. As git does, it takes no
// file for unchanged that may have been written since in the same instant.
func (n Node) unchanged(e indexEntry, written time.Time) bool {
	was, is := e.Stat, n.stat()
	was.Dev, is.Dev = 0, 0
	return e.Stage == 0 && was == is && n.MTime.Before(written) && n.gitMode() == e.Mode
}

// gitMode is what git calls the mode, 0 for what it does not track.
func (n Node) gitMode() uint32 {
	switch {
	case n.Kind == tree.Symlink:
		return modeSymlink
	case n.Kind != tree.File:
		return 0
	case n.Mode&0o100 != 0:
		return modeExecutable
	}
	return modeFile
}

// below tells whether name is dir or lies below it.
func below(name, dir string) bool {
	return name == dir || strings.HasPrefix(name, dir+"/")
}

// guestPath joins an absolute path of the guest.
func guestPath(root string, parts ...string) string {
	return path.Join(append([]string{root}, parts...)...)
}
