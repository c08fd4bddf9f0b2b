package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"banger"
	"banger/internal/tree"
)

// maxSeed bounds what an image's /root may hold: it is copied to the disk of every VM.
const maxSeed = 256 << 20

// seed collects an image's /root on its way into the base.
type seed struct {
	entries []tree.Entry
	content [][]byte
	bytes   int64
}

const home = "root/"

// collect passes every entry on and keeps those below /root: directories, files, links and nothing else.
func (s *seed) collect(src tree.Source) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		for entry, err := range src {
			if err == nil && strings.HasPrefix(entry.Path, home) {
				entry, err = s.keep(entry)
			}
			if !yield(entry, err) || err != nil {
				return
			}
		}
	}
}

// keep remembers an entry and gives it back with its content to be read again.
func (s *seed) keep(entry tree.Entry) (tree.Entry, error) {
	kept := entry
	kept.Path = strings.TrimPrefix(entry.Path, home)
	var content []byte
	switch entry.Kind {
	case tree.File:
		if s.bytes += entry.Size; s.bytes > maxSeed {
			return entry, banger.Invalidf("the image's /root holds more than %s", banger.FormatSize(maxSeed))
		}
		if entry.Size > 0 {
			content = make([]byte, entry.Size)
			if _, err := io.ReadFull(entry.Content, content); err != nil {
				return entry, fmt.Errorf("read %s: %w", entry.Path, err)
			}
			entry.Content = bytes.NewReader(content)
		}
	case tree.HardLink:
		target, inside := strings.CutPrefix(entry.Link, home)
		if !inside {
			return entry, nil // a link to a file outside can't live on another file system
		}
		kept.Link = target
	case tree.Dir, tree.Symlink:
	default:
		return entry, nil
	}
	kept.Content = nil
	s.entries, s.content = append(s.entries, kept), append(s.content, content)
	return entry, nil
}

// write makes the tar, durably.
func (s *seed) write(path string) (err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	for i, content := range s.content {
		if content != nil {
			s.entries[i].Content = bytes.NewReader(content)
		}
	}
	if err := tree.WriteTar(file, tree.WithOwner(tree.Of(s.entries...), 0, 0)); err != nil {
		return fmt.Errorf("write seed: %w", err)
	}
	return file.Sync()
}
