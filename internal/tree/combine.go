package tree

import (
	"bytes"
	"path"
)

// Of yields entries that are there already.
func Of(entries ...Entry) Source {
	return func(yield func(Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Literal is a file with this content.
func Literal(path string, mode uint32, content []byte) Entry {
	return Entry{Path: path, Kind: File, Mode: mode, Size: int64(len(content)), Content: bytes.NewReader(content)}
}

// Directory is a directory.
func Directory(path string, mode uint32) Entry { return Entry{Path: path, Kind: Dir, Mode: mode} }

// Concat yields sources one after the other, up to the first error.
func Concat(sources ...Source) Source {
	return func(yield func(Entry, error) bool) {
		for _, src := range sources {
			for e, err := range src {
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

// Filter yields what keep lets pass, as keep changes it.
func Filter(src Source, keep func(*Entry) bool) Source {
	return func(yield func(Entry, error) bool) {
		for e, err := range src {
			if err == nil && !keep(&e) {
				continue
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// WithOwner gives every entry this owner.
func WithOwner(src Source, uid, gid uint32) Source {
	return Filter(src, func(e *Entry) bool {
		e.UID, e.GID = uid, gid
		return true
	})
}

// WithModeMask takes all mode bits but those in mask from every entry, except from symlinks, whose mode says nothing.
func WithModeMask(src Source, mask uint32) Source {
	return Filter(src, func(e *Entry) bool {
		if e.Kind != Symlink {
			e.Mode &= mask
		}
		return true
	})
}

// Under moves a tree below dir, which the tree's own root becomes.
func Under(dir string, src Source) Source {
	return Filter(src, func(e *Entry) bool {
		e.Path = path.Join(dir, e.Path)
		if e.Kind == HardLink {
			e.Link = path.Join(dir, e.Link)
		}
		return true
	})
}

// SkipSpecial leaves out devices, FIFOs and sockets, and tells of each.
func SkipSpecial(src Source, skipped func(path string)) Source {
	return Filter(src, func(e *Entry) bool {
		switch e.Kind {
		case CharDevice, BlockDevice, FIFO, Socket:
			skipped(e.Path)
			return false
		}
		return true
	})
}
