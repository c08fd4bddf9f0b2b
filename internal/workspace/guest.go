package workspace

import (
	"context"
	"fmt"
	"io"
	"iter"
	"path"
	"strings"
	"time"

	"banger"
	"banger/internal/transfer"
	"banger/internal/tree"
)

// Guest reads files of a guest: a running one by its agent, a stopped one from its disk. What it gives is the guest's word.
type Guest struct {
	// Ask sends a request with the paths that it is about, and gives the answer.
	Ask func(ctx context.Context, req transfer.Request, names []string) (io.ReadCloser, error)
	// Bring puts a tree into a running guest.
	Bring func(ctx context.Context, put transfer.Put, src tree.Source) error
	// Change changes files of a running guest: all of what it is asked for, or nothing.
	Change func(ctx context.Context, change transfer.Change, steps []transfer.Step, src tree.Source) error
}

// Limits of what is taken from one guest.
const (
	maxNodes     = 4_000_000
	maxRefs      = 100_000
	maxRefFile   = 1 << 10   // bytes of a file below refs
	maxPackedRef = 64 << 20  // bytes of packed-refs
	maxIndex     = 512 << 20 // bytes
	maxObject    = 2 << 30   // bytes of one loose object, inflated
	maxObjects   = 64 << 30  // bytes of all packs and loose objects
	maxChanged   = 16 << 30  // bytes of tracked files that have changed
	maxIgnores   = 10_000    // .gitignore files
	maxReflog    = 16 << 20  // bytes of the stash's
)

// walk yields what lies below dir, parents first, without following links. It does not go below the paths in skip.
func (g Guest) walk(ctx context.Context, dir string, skip ...string) iter.Seq2[node, error] {
	return func(yield func(node, error) bool) {
		req := transfer.Walk{Path: []byte(dir)}
		for _, name := range skip {
			req.Skip = append(req.Skip, []byte(name))
		}
		answer, err := g.Ask(ctx, transfer.Request{Walk: &req}, nil)
		if err == nil {
			defer answer.Close()
			count := 0
			err = transfer.ReceiveNodes(answer, func(n transfer.Node) error {
				if count++; count > maxNodes {
					return &banger.Error{Kind: banger.ErrUnsupported, Op: "list", Subject: dir, Err: fmt.Errorf("more than %d files", maxNodes)}
				}
				name := string(n.Path)
				n.Path = nil // said once
				if !yield(node{n, name}, nil) {
					return errEnough
				}
				return nil
			})
		}
		if err != nil && err != errEnough {
			yield(node{}, err)
		}
	}
}

// errEnough ends a walk whose reader wants no more.
var errEnough = fmt.Errorf("enough")

// read yields files and symbolic links below dir in the order of names, with their content; those that are not there, or are
// something else, are left out.
func (g Guest) read(ctx context.Context, dir string, names []string) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		if len(names) == 0 {
			return
		}
		answer, err := g.Ask(ctx, transfer.Request{Read: &transfer.Read{Path: []byte(dir)}}, names)
		if err != nil {
			yield(tree.Entry{}, err)
			return
		}
		defer answer.Close()
		in, err := transfer.Receive(answer)
		if err != nil {
			yield(tree.Entry{}, err)
			return
		}
		for e, err := range in.Source() {
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// node is one thing in a guest's file tree.
type node struct {
	transfer.Node
	path string
}

func (n node) modified() time.Time { return time.Unix(0, n.MTime) }

// stat is what an index remembers of a file like this.
func (n node) stat() stat {
	modified, changed := n.modified(), time.Unix(0, n.CTime)
	return stat{CTime: uint32(changed.Unix()), CTimeNs: uint32(changed.Nanosecond()), MTime: uint32(modified.Unix()), MTimeNs: uint32(modified.Nanosecond()),
		Ino: uint32(n.Ino), UID: n.UID, GID: n.GID, Size: uint32(n.Size)}
}

// unchanged tells whether a file is as it was when git last looked at it; written is when the index was. As git does, it takes no
// file for unchanged that may have been written since in the same instant.
func (n node) unchanged(e indexEntry, written time.Time) bool {
	was := e.Stat
	was.Dev = 0
	return e.Stage == 0 && was == n.stat() && n.modified().Before(written) && n.gitMode() == e.Mode
}

// gitMode is what git calls the mode, 0 for what it does not track.
func (n node) gitMode() uint32 {
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

// guestPath joins an absolute path of the guest.
func guestPath(root string, parts ...string) string {
	return path.Join(append([]string{root}, parts...)...)
}

// below tells whether name is dir or lies below it.
func below(name, dir string) bool {
	return name == dir || strings.HasPrefix(name, dir+"/")
}
