// Package atomicfile replaces files so that a crash leaves the old content or the new, durably.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// Write replaces the file at path by data: a temporary file beside it, fsync, rename, fsync of the directory. When it
// returns nil the new content survives a power cut; on error the old content is untouched unless only that last fsync
// failed. The file gets exactly perm, whatever the umask.
func Write(path string, data []byte, perm fs.FileMode) error {
	if err := replace(path, data, perm); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

func replace(path string, data []byte, perm fs.FileMode) error {
	f, err := renameio.NewPendingFile(path, renameio.WithStaticPermissions(perm), renameio.WithTempDir(filepath.Dir(path)))
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// SyncDir makes the names in a directory durable: what was created, renamed or removed there stays so.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
