package read

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"banger"
	"banger/internal/ext4"
)

const maxLinks = 40 // followed in one path, as Linux has it

// Root gives the root directory.
func (f *FS) Root() (*Node, error) {
	n, err := f.Node(ext4.RootInode)
	if err == nil && !n.IsDir() {
		return nil, corrupt("the root is no directory")
	}
	return n, err
}

// Lookup finds a path from the root: any bytes between slashes, with or without a leading one. It follows symbolic links
// inside the file system, the last one only when follow is set. Errors: ErrNotFound; ErrInvalid for a path through what
// is no directory and for too many links; ErrCorrupt.
func (f *FS) Lookup(path string, follow bool) (*Node, error) {
	n, err := f.lookup(path, follow)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &banger.Error{Kind: banger.ErrNotFound, Op: "look up", Subject: path, Err: fs.ErrNotExist}
	case err != nil:
		return nil, fmt.Errorf("look up %s: %w", path, err)
	}
	return n, nil
}

func (f *FS) lookup(path string, follow bool) (*Node, error) {
	root, err := f.Root()
	if err != nil {
		return nil, err
	}
	trail := []*Node{root}
	todo := strings.Split(path, "/")
	mustDir := strings.HasSuffix(path, "/")
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		dir := trail[len(trail)-1]
		switch {
		case name == "" || name == ".":
			continue
		case !dir.IsDir():
			return nil, banger.Invalidf("no directory before %q", name)
		case name == "..":
			trail = trail[:max(len(trail)-1, 1)]
			continue
		}
		d, err := dir.child(name)
		if err != nil {
			return nil, err
		}
		n, err := f.Node(d.Ino)
		if err != nil {
			return nil, err
		}
		if !n.IsSymlink() || !follow && !mustDir && !slices.ContainsFunc(todo, func(s string) bool { return s != "" && s != "." }) {
			trail = append(trail, n)
			continue
		}
		if links++; links > maxLinks {
			return nil, banger.Invalidf("more than %d symbolic links", maxLinks)
		}
		text, err := n.Link()
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(text, "/") {
			trail = trail[:1]
		}
		todo = append(strings.Split(text, "/"), todo...)
	}
	n := trail[len(trail)-1]
	if mustDir && !n.IsDir() {
		return nil, banger.Invalidf("it is no directory")
	}
	return n, nil
}

var errNotExist = fs.ErrNotExist
