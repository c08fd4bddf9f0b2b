package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"banger"
	"banger/api"
	"banger/internal/ext4/read"
	"banger/internal/hostimage"
)

// Register makes an image whose base stays the user's own file, as stage "image": only its seed and a record are stored. The key is
// of the file's content: to register the same content again says where it lies now. On error nothing is left.
// Errors: ErrNotFound; ErrInvalid for a bad name or path; ErrUnsupported for what machines can't mount; ErrConflict for a file system
// that was not unmounted, a file that changes, or a name that banger builds itself; ErrUnavailable without disk space.
func (m *Manager) Register(ctx context.Context, req api.RegisterRequest, progress banger.ProgressFunc) (image banger.Image, err error) {
	defer func() {
		if err != nil {
			err = &banger.Error{Op: "register image", Subject: req.Name, Err: m.spaceError(err)}
		}
	}()
	if err := (plan{image: banger.Image{Name: req.Name, Boot: req.Boot}}).validate(); err != nil {
		return image, err
	}
	path, err := m.registrable(req.Rootfs)
	if err != nil {
		return image, err
	}
	host, err := hostimage.Open(path)
	if err != nil {
		return image, about(path, err)
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	if err := host.Mountable(); err != nil {
		return image, about(path, err)
	}
	text := "registering image " + req.Name
	end := progress.Begin("image", text)
	if err := sum(ctx, host, text, progress); err != nil {
		return image, err
	}
	image = banger.Image{Name: req.Name, Boot: req.Boot, Kernel: req.Kernel, SizeBytes: host.ID.SizeBytes, Source: "registered " + path, CreatedAt: m.Now().UTC(),
		Registered: &host.ID}
	if image.Boot == "" {
		image.Boot = bootOf(host.FS)
	}
	if image, err = m.publishRegistered(ctx, image, host, req.WorkSeed); err == nil {
		end()
	}
	return image, err
}

// sum computes a file's digest, and tells how far it is.
func sum(ctx context.Context, host *hostimage.Image, text string, progress banger.ProgressFunc) error {
	err := host.Sum(ctx, func(done int64) {
		progress.Report(banger.Progress{Stage: "image", Text: text, Bytes: done, Total: host.ID.SizeBytes})
	})
	if err != nil {
		err = about(host.ID.Path, err)
	}
	return err
}

// registrable resolves the path of a file of the user's.
func (m *Manager) registrable(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", about(path, hostimage.FileError(err))
	}
	root, err := filepath.EvalSymlinks(m.Dir.Root)
	if err != nil {
		return "", err
	}
	if in, err := filepath.Rel(root, real); err == nil && filepath.IsLocal(in) {
		return "", banger.Invalidf("%s is banger's own", path)
	}
	return real, nil
}

// publishRegistered stores seed and record. An image of that key says where its file is from now on, or has a copy already.
func (m *Manager) publishRegistered(ctx context.Context, image banger.Image, host *hostimage.Image, workSeed string) (_ banger.Image, err error) {
	staging := m.newStaging(image.Name)
	if err := os.Mkdir(staging.Path, 0o700); err != nil {
		return image, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staging.Path)) }()
	seed, err := makeSeed(ctx, host.FS, workSeed, staging.Seed())
	if err != nil {
		return image, err
	}
	if err := host.Unchanged(); err != nil {
		return image, about(host.ID.Path, err)
	}
	image.Key = keyOf(image, "registered "+image.Registered.SHA256+" "+seed)
	m.publishing.Lock()
	if same, unknown := m.Get(image.Key); unknown == nil && same.Registered != nil {
		same.Registered, same.Source = image.Registered, image.Source
		err = writeManifest(m.Dir.Image(image.Key), same)
	}
	m.publishing.Unlock()
	if err != nil {
		return image, err
	}
	return m.publishNewest(staging, image)
}

// Base gives the path of an image's root file system for a machine to boot from. A registered one must hold the bytes that were
// registered: the machines' own changes are to these. When only its times, inode or device differ, its content is compared.
// Errors: ErrNotFound when the file is gone; ErrConflict when it has changed or is mounted; ErrUnavailable when it can't be read.
func (m *Manager) Base(ctx context.Context, image banger.Image, progress banger.ProgressFunc) (string, error) {
	if image.Registered == nil {
		return m.Dir.Image(image.Key).Rootfs(), nil
	}
	host, err := m.openRegistered(ctx, image, progress)
	if err != nil {
		return "", err
	}
	return image.Registered.Path, host.Close()
}

// openRegistered opens the file of a registered image, which holds what was registered.
func (m *Manager) openRegistered(ctx context.Context, image banger.Image, progress banger.ProgressFunc) (*hostimage.Image, error) {
	path, again := image.Registered.Path, "banger image register "+image.Name+" --rootfs "
	host, err := hostimage.Open(path)
	switch {
	case errors.Is(err, banger.ErrNotFound):
		return nil, withHint(about(path, err), "put the file back, or tell where it is now: "+again+"PATH")
	case errors.Is(err, banger.ErrUnavailable):
		return nil, withHint(about(path, err), "make it readable for you, or tell where a copy is: "+again+"PATH")
	case err != nil:
		return nil, withHint(about(path, err), "unmount it and put the file back as it was, or register it anew for new machines: "+again+path)
	}
	if err := m.compare(ctx, image, host, progress); err != nil {
		return nil, errors.Join(err, host.Close())
	}
	return host, nil
}

// compare tells whether a file holds the bytes that were registered, and remembers how it looks when it does.
func (m *Manager) compare(ctx context.Context, image banger.Image, host *hostimage.Image, progress banger.ProgressFunc) error {
	want := *image.Registered
	differs := hostimage.Differences(want, host.ID)
	if len(differs) == 0 {
		return nil
	}
	if host.ID.SizeBytes == want.SizeBytes && host.ID.Superblock == want.Superblock {
		text := "comparing " + want.Path
		end := progress.Begin("image", text)
		if err := sum(ctx, host, text, progress); err != nil {
			return err
		}
		end()
	}
	if host.ID.SHA256 == want.SHA256 {
		return m.remember(image.Key, host.ID)
	}
	return &banger.Error{Kind: banger.ErrConflict,
		Err:  fmt.Errorf("%s has changed since it was registered (another %s)", want.Path, strings.Join(differs, ", ")),
		Hint: "put the file back as it was, or register it anew for new machines: banger image register " + image.Name + " --rootfs " + want.Path}
}

// remember records how a registered file with the right content looks now.
func (m *Manager) remember(key string, id banger.HostFile) error {
	m.publishing.Lock()
	defer m.publishing.Unlock()
	image, err := m.Get(key)
	if err != nil || image.Registered == nil {
		return err
	}
	image.Registered = &id
	return writeManifest(m.Dir.Image(key), image)
}

// about names the file that an error is of.
func about(path string, err error) error { return &banger.Error{Subject: path, Err: err} }

func withHint(err error, hint string) error { return &banger.Error{Hint: hint, Err: err} }

// bootOf finds out whether an image has an init that is worth starting.
func bootOf(fsys *read.FS) banger.BootKind {
	for _, path := range []string{"usr/lib/systemd/systemd", "lib/systemd/systemd"} {
		if n, err := fsys.Lookup(path, true); err == nil && n.IsFile() {
			return banger.BootSystem
		}
	}
	return banger.BootAgent
}
