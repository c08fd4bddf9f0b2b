package image

import (
	"errors"
	"fmt"
	"os"
	"time"

	"banger"
	"banger/internal/ext4/read"
	"banger/internal/tree"
)

// maxSeed bounds what an image's /root may hold: it is copied to the disk of every VM.
const maxSeed = 256 << 20

// home is the directory that VMs get a copy of.
const home = "root"

// writeSeed makes the tar of what a base has below /root, durably: directories, files, links and nothing else.
func writeSeed(rootfs, path string) (err error) {
	base, err := os.Open(rootfs)
	if err != nil {
		return err
	}
	defer base.Close()
	info, err := base.Stat()
	if err != nil {
		return err
	}
	fsys, err := read.Open(base, info.Size())
	if err != nil {
		return err
	}
	src := tree.Of()
	switch n, err := fsys.Lookup(home, true); {
	case err == nil && n.IsDir():
		src = fsys.Source(home)
	case err != nil && !errors.Is(err, banger.ErrNotFound):
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := tree.WriteTar(file, tree.WithOwner(seedOf(src), 0, 0)); err != nil {
		return fmt.Errorf("write seed: %w", err)
	}
	return file.Sync()
}

// seedOf leaves out of /root what has no place on a disk of its own, and ends where it is too large.
func seedOf(src tree.Source) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		var bytes int64
		for e, err := range src {
			switch {
			case err != nil:
			case e.Path == ".", e.Kind != tree.File && e.Kind != tree.HardLink && e.Kind != tree.Dir && e.Kind != tree.Symlink:
				continue
			case e.Size > maxSeed-bytes:
				err = banger.Invalidf("the image's /root holds more than %s", banger.FormatSize(maxSeed))
			}
			bytes += e.Size
			e.AccessTime, e.ChangeTime = time.Time{}, time.Time{}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}
