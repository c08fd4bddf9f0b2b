package statedir

import (
	"io/fs"
	"path/filepath"
	"syscall"
)

// Usage is what a directory with all below it takes up on the host's disk, in bytes, as far as it can be read.
func Usage(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := entry.Info(); err == nil {
			bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	return bytes
}
