package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"banger"
	"banger/api"
	"banger/internal/catalog"
	"banger/internal/ext4/check"
	"banger/internal/statedir"
	"banger/internal/tree"
)

const (
	bundleManifest = "image.json"
	bundleSeed     = "seed.tar"
	bundleRootfs   = "rootfs.ext4"
	maxManifest    = 1 << 20
)

// bundleParts are the files of an image's bundle. Tars are somewhat larger than what is in them.
var bundleParts = []catalog.Part{{Name: bundleManifest, MaxBytes: maxManifest}, {Name: bundleSeed, MaxBytes: 2 * maxSeed}, {Name: bundleRootfs, MaxBytes: maxRootfs}}

// FromCatalog makes an image of what the catalog has under a name, as stage "image". An image of that key that is here already is
// no error. The kernel that it names is got too. Equal requests share one. On error nothing is left but the part of a bundle that came.
// Errors: ErrNotFound when there is no catalog, or nothing of that name in it; ErrCorrupt for content that is not what the index says;
// those of [catalog.Catalog].
func (m *Manager) FromCatalog(ctx context.Context, name string, progress banger.ProgressFunc) (banger.Image, error) {
	entry, err := m.Catalog.Image(ctx, name)
	if err != nil {
		return banger.Image{}, err
	}
	return m.pullEntry(ctx, entry, progress)
}

// pullNamed does what Pull is asked for when the catalog has that name. Errors: those of FromCatalog; ErrInvalid for a wish that only an
// image from elsewhere can fulfil.
func (m *Manager) pullNamed(ctx context.Context, req api.PullRequest, progress banger.ProgressFunc) (image banger.Image, found bool, err error) {
	if !m.Catalog.Configured() || strings.ContainsAny(req.Ref, "/:@") {
		return image, false, nil
	}
	entry, err := m.Catalog.Image(ctx, req.Ref)
	if errors.Is(err, banger.ErrNotFound) {
		return image, false, nil
	}
	if errors.Is(err, banger.ErrUnavailable) {
		return image, true, &banger.Error{Err: err, Hint: "look at catalog.url; from a registry alone: banger image pull docker.io/library/" + req.Ref}
	}
	if err != nil {
		return image, true, err
	}
	for _, wish := range []struct{ flag, want, is string }{{"--name", req.Name, entry.Name}, {"--boot", string(req.Boot), string(entry.Boot)}, {"--kernel", req.Kernel, entry.Kernel}} {
		if wish.want != "" && wish.want != wish.is {
			return image, true, &banger.Error{Kind: banger.ErrInvalid, Op: "pull image " + entry.Name, Err: fmt.Errorf("%s %s: an image of the catalog is as it is", wish.flag, wish.want),
				Hint: "leave out " + wish.flag + "; for a registry's image of that name: docker.io/library/" + entry.Name}
		}
	}
	image, err = m.pullEntry(ctx, entry, progress)
	return image, true, err
}

// pullEntry makes an image of an entry of the catalog.
func (m *Manager) pullEntry(ctx context.Context, entry banger.CatalogImage, progress banger.ProgressFunc) (banger.Image, error) {
	name := entry.Name
	op := "pull image " + name + " from the catalog"
	return m.jobs.Do(ctx, op, "catalog "+name+" "+entry.Digest, progress, func(ctx context.Context, progress banger.ProgressFunc) (banger.Image, error) {
		text := "pulling image " + name + " from the catalog " + m.Catalog.URL
		end := progress.Begin("image", text)
		image, err := m.fromCatalog(ctx, entry, progress, func(p banger.Progress) {
			p.Stage, p.Text = "image", text
			progress.Report(p)
		})
		if err != nil {
			return image, &banger.Error{Op: op, Err: m.spaceError(err)}
		}
		end()
		return image, nil
	})
}

func (m *Manager) fromCatalog(ctx context.Context, entry banger.CatalogImage, progress, tell banger.ProgressFunc) (image banger.Image, err error) {
	staging := m.newStaging(entry.Name)
	if err := os.Mkdir(staging.Path, 0o700); err != nil {
		return image, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staging.Path)) }()
	image, err = m.Get(entry.Key)
	switch {
	case err == nil && image.Name != entry.Name:
		return image, &banger.Error{Kind: banger.ErrConflict, Err: fmt.Errorf("the image with its key is here under the name %s", image.Name)}
	case err != nil:
		if image, err = m.getBundle(ctx, staging, entry, tell); err != nil {
			return image, err
		}
	}
	if entry.Kernel != "" && m.EnsureKernel != nil {
		if err := m.EnsureKernel(ctx, entry.Kernel, progress); err != nil {
			return image, err
		}
	}
	image.CreatedAt = m.Now().UTC()
	return m.publishNewest(staging, image)
}

func (m *Manager) getBundle(ctx context.Context, staging statedir.ImageDir, entry banger.CatalogImage, tell banger.ProgressFunc) (banger.Image, error) {
	bundle, err := m.Catalog.Fetch(ctx, entry.Bundle, func(done int64) {
		tell(banger.Progress{Detail: "downloading", Bytes: done, Total: entry.SizeBytes})
	})
	if err != nil {
		return banger.Image{}, err
	}
	defer bundle.Close()
	tell(banger.Progress{Detail: "unpacking"})
	image, err := installBundle(ctx, staging, bundle, entry)
	if err != nil {
		return image, &banger.Error{Op: "bundle", Subject: entry.Name, Err: err}
	}
	image.Source = "catalog " + m.Catalog.URL
	return image, nil
}

// installBundle unpacks a bundle into a staging directory and checks that it is what the entry says and what machines can take.
// Errors: ErrCorrupt.
func installBundle(ctx context.Context, staging statedir.ImageDir, bundle io.Reader, entry banger.CatalogImage) (banger.Image, error) {
	if err := catalog.Unpack(ctx, bundle, staging.Path, bundleParts); err != nil {
		return banger.Image{}, err
	}
	text, err := os.ReadFile(filepath.Join(staging.Path, bundleManifest))
	if err != nil {
		return banger.Image{}, err
	}
	var said banger.Image
	if err := json.Unmarshal(text, &said); err != nil {
		return banger.Image{}, badBundle("%s: %w", bundleManifest, err)
	}
	if said.Name != entry.Name || said.Key != entry.Key || said.Boot != entry.Boot || said.Kernel != entry.Kernel {
		return banger.Image{}, badBundle("it is of image %.80q with key %.80q, boot %.80q and kernel %.80q, the index says another", said.Name, said.Key, said.Boot, said.Kernel)
	}
	if err := checkConfig(said.Config); err != nil {
		return banger.Image{}, badBundle("%s: %w", bundleManifest, err)
	}
	if err := judgeSeed(ctx, staging.Seed()); err != nil {
		return banger.Image{}, err
	}
	size, err := judgeBase(staging.Rootfs())
	if err != nil {
		return banger.Image{}, err
	}
	if size != said.SizeBytes {
		return banger.Image{}, badBundle("%s has %d bytes, its manifest says %d", bundleRootfs, size, said.SizeBytes)
	}
	return banger.Image{Name: said.Name, Key: said.Key, Boot: said.Boot, Kernel: said.Kernel, SizeBytes: size, Description: entry.Description, Config: said.Config}, nil
}

func badBundle(format string, args ...any) error {
	return &banger.Error{Kind: banger.ErrCorrupt, Err: fmt.Errorf(format, args...)}
}

// checkConfig wants nothing in a configuration that a registry's could not bring.
func checkConfig(c *banger.ImageConfig) error {
	if c == nil {
		return nil
	}
	for _, assignment := range c.Env {
		name, value, ok := strings.Cut(assignment, "=")
		if err := banger.ValidateEnv(name, value); err != nil || !ok {
			return errors.Join(fmt.Errorf("environment %.80q", assignment), err)
		}
	}
	for _, list := range [][]string{{c.WorkingDir, c.User}, c.Entrypoint, c.Cmd, c.ExposedPorts} {
		for _, text := range list {
			if strings.ContainsRune(text, 0) {
				return fmt.Errorf("%.80q", text)
			}
		}
	}
	return nil
}

// judgeSeed wants what seedOf leaves, of root, and a disk that can be made from it.
func judgeSeed(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for e, err := range tree.FromTar(f, tree.Limits{Entries: maxSeedEntries, Bytes: maxSeed}) {
		if err != nil {
			return badBundle("%s: %w", bundleSeed, err)
		}
		if e.Kind != tree.File && e.Kind != tree.HardLink && e.Kind != tree.Dir && e.Kind != tree.Symlink || e.UID != 0 || e.GID != 0 {
			return badBundle("%s: %.100q has no place on a machine's disk", bundleSeed, e.Path)
		}
	}
	err = trySeed(ctx, path)
	if errors.Is(err, banger.ErrInvalid) {
		return badBundle("%s: %w", bundleSeed, err)
	}
	return err
}

// judgeBase wants a file system without faults, and gives its size.
func judgeBase(path string) (size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	faults, err := check.Check(f, info.Size(), check.Options{})
	switch {
	case errors.Is(err, banger.ErrUnsupported):
		return 0, badBundle("%s: %w", bundleRootfs, err)
	case err != nil:
		return 0, err
	case len(faults) > 0:
		return 0, badBundle("%s has %d faults: %s", bundleRootfs, len(faults), faults[0])
	}
	return info.Size(), nil
}

// Bundle makes the bundle of the image that ref stands for in the directory dir, as stage "bundle", and gives its entry for an index.
// The same image gives the same bytes. On error nothing is left. Errors: ErrNotFound; ErrConflict for a registered one; ErrUnavailable
// without disk space.
func (m *Manager) Bundle(ctx context.Context, ref, dir string, progress banger.ProgressFunc) (entry banger.CatalogImage, err error) {
	image, err := m.Resolve(ref)
	if err != nil {
		return entry, err
	}
	if image.Registered != nil {
		return entry, &banger.Error{Kind: banger.ErrConflict, Op: "pack image", Subject: image.Name, Err: errors.New("its base is a file outside, which may change"),
			Hint: "banger image promote " + image.Name}
	}
	text := "packing image " + image.Name
	end := progress.Begin("bundle", text)
	// Where and when it was made is of no use elsewhere, and tells about this computer.
	said := image
	said.Source, said.CreatedAt = "", time.Unix(0, 0).UTC()
	manifest, err := json.MarshalIndent(said, "", "\t")
	if err != nil {
		return entry, err
	}
	from := m.Dir.Image(image.Key)
	files := []catalog.File{{Name: bundleManifest, Data: append(manifest, '\n')}, {Name: bundleSeed, Path: from.Seed()}, {Name: bundleRootfs, Path: from.Rootfs()}}
	b, err := catalog.Pack(ctx, dir, image.Name, files, func(done int64) {
		progress.Report(banger.Progress{Stage: "bundle", Text: text, Bytes: done, Total: image.SizeBytes})
	})
	if err != nil {
		return entry, &banger.Error{Op: "pack image", Subject: image.Name, Err: banger.SpaceError(err, dir)}
	}
	end()
	b.Description = image.Description
	return banger.CatalogImage{Bundle: b, Key: image.Key, Kernel: image.Kernel, Boot: image.Boot}, nil
}
