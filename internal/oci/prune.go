package oci

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"banger/internal/download"
)

// Cached is a file of the cache.
type Cached struct {
	Digest  string // sha256, hexadecimal
	Bytes   int64  // that it takes up on the disk
	Partial bool   // not all of it has come
}

// Prune removes all of the cache that no pull is reading or downloading. With dryRun it only tells.
func (r *Registries) Prune(dryRun bool) (pruned []Cached, err error) {
	entries, err := os.ReadDir(r.cache.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var errs []error
	for _, entry := range entries {
		file, err := r.cache.prune(entry.Name(), dryRun)
		switch {
		case err != nil:
			errs = append(errs, err)
		case file != nil:
			pruned = append(pruned, *file)
		}
	}
	return pruned, errors.Join(append(errs, err)...)
}

// prune removes one file unless somebody needs it: then it gives nil.
func (b *blobs) prune(name string, dryRun bool) (*Cached, error) {
	file := &Cached{}
	file.Digest, file.Partial = strings.CutSuffix(name, download.Partial)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.coming[file.Digest] != nil || b.readers[file.Digest] > 0 {
		return nil, nil
	}
	path := filepath.Join(b.dir, name)
	info, err := os.Lstat(path)
	if err == nil && !dryRun {
		err = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	file.Bytes = info.Sys().(*syscall.Stat_t).Blocks * 512
	return file, nil
}
