package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/hostimage"
	"banger/internal/sparse"
	"banger/internal/statedir"
)

// Promote copies the file of a registered image into the state directory, as stage "image": the image does not need it any more. The
// key stays, and so do the image's machines: those that run go on with the file, and start from the copy, which is equal, the next
// time. An image with a copy is left as it is. Callers share the work. On error nothing changes.
// Errors: ErrNotFound; those of Base; ErrUnavailable without disk space.
func (m *Manager) Promote(ctx context.Context, ref string, progress banger.ProgressFunc) (image banger.Image, err error) {
	if image, err = m.Resolve(ref); err != nil || image.Registered == nil {
		return image, err
	}
	return m.jobs.Do(ctx, "promote image "+image.Name, "promote "+image.Key, progress, func(ctx context.Context, progress banger.ProgressFunc) (banger.Image, error) {
		promoted, err := m.promote(ctx, image, progress)
		if err != nil {
			err = &banger.Error{Op: "promote image", Subject: image.Name, Err: m.spaceError(err)}
		}
		return promoted, err
	})
}

func (m *Manager) promote(ctx context.Context, image banger.Image, progress banger.ProgressFunc) (_ banger.Image, err error) {
	if _, err := m.Base(ctx, image, progress); err != nil {
		return image, err
	}
	text := "copying " + image.Registered.Path
	end := progress.Begin("image", text)
	staging := m.newStaging(image.Name)
	if err := os.Mkdir(staging.Path, 0o700); err != nil {
		return image, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staging.Path)) }()
	if err := copyBase(ctx, staging.Rootfs(), *image.Registered, banger.ProgressFunc(func(p banger.Progress) {
		p.Stage, p.Text = "image", text
		progress.Report(p)
	})); err != nil {
		return image, err
	}
	if image, err = m.adopt(image.Key, staging); err == nil {
		end()
	}
	return image, err
}

// copyBase copies the file of a registered image. What counts is that the copy has the bytes that were registered.
func copyBase(ctx context.Context, path string, from banger.HostFile, progress banger.ProgressFunc) error {
	err := sparse.Copy(ctx, path, from.Path, sparse.Options{Sync: true, Progress: func(done, total int64) {
		progress.Report(banger.Progress{Bytes: done, Total: total})
	}})
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o444); err != nil {
		return err
	}
	copied, err := hostimage.Open(path)
	if err != nil {
		return err
	}
	defer copied.Close()
	err = copied.Sum(ctx, func(done int64) {
		progress.Report(banger.Progress{Detail: "comparing", Bytes: done, Total: from.SizeBytes})
	})
	if err == nil && copied.ID.SHA256 != from.SHA256 {
		err = &banger.Error{Kind: banger.ErrConflict, Subject: from.Path, Err: errors.New("it changed while it was copied"), Hint: "put the file back as it was"}
	}
	return err
}

// adopt gives a registered image a base of its own. Until the record says so, machines start from the user's file and the copy is
// nobody's: CleanUp removes it.
func (m *Manager) adopt(key string, staging statedir.ImageDir) (banger.Image, error) {
	m.publishing.Lock()
	defer m.publishing.Unlock()
	image, err := m.Get(key) // it may be another's file by now, with the same bytes, or deleted
	if err != nil || image.Registered == nil {
		return image, err
	}
	dir := m.Dir.Image(key)
	if err := os.Rename(staging.Rootfs(), dir.Rootfs()); err != nil {
		return image, fmt.Errorf("publish image: %w", err)
	}
	own := image
	own.Registered, own.Source = nil, "copy of "+image.Registered.Path
	if err = errors.Join(atomicfile.SyncDir(dir.Path), writeManifest(dir, own)); err == nil {
		return own, nil
	}
	if now, getErr := m.Get(key); getErr == nil && now.Registered != nil { // else the record is there, and only not known to be durable
		err = errors.Join(err, os.Remove(dir.Rootfs()))
	}
	return image, err
}

// removeUnclaimed removes what is not of a published image in its directory: a copy that no record tells of, or part of a record.
func (m *Manager) removeUnclaimed(key string) error {
	dir := m.Dir.Image(key)
	entries, err := os.ReadDir(dir.Path)
	if err != nil {
		return err
	}
	var left []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			left = append(left, filepath.Join(dir.Path, entry.Name()))
		}
	}
	if image, err := m.Get(key); err == nil && image.Registered != nil {
		left = append(left, dir.Rootfs())
	}
	var errs []error
	for _, path := range left {
		if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
