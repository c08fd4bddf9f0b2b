// Package image turns a definition into an immutable base that all its VMs share, and its /root into the seed of their disks.
//
// A base is made in a staging directory and appears by rename under a key of its content; readers never see a part of one. The
// manifest lists the name, so a rebuild gets another key and the VMs on the old base keep theirs.
package image

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"banger"
	"banger/internal/atomicfile"
	"banger/internal/catalog"
	"banger/internal/config"
	"banger/internal/oci"
	"banger/internal/share"
	"banger/internal/statedir"
	"banger/internal/tree"
)

// Config wires a Manager.
type Config struct {
	Dir statedir.Dir
	// Where Debian's packages come from.
	Mirror  string           // URL; empty: mmdebstrap's own. A definition's stands above it
	Proxy   string           // URL, for packages of other distributions too; empty: that of the environment
	Keyring string           // path of the archive's keys; empty: those of the system
	Now     func() time.Time // optional: time.Now
	Limits  tree.Limits      // what one image may hold; 0: 4 million entries, 64 GiB

	Order    []config.Source // where an image that is not here is looked for; empty: packages alone
	Registry string          // repository prefix under which images are looked for by name; empty: none

	Catalog *catalog.Catalog // optional
	// EnsureKernel gets the kernel that an image of the catalog names; optional.
	EnsureKernel func(ctx context.Context, name string, progress banger.ProgressFunc) error
}

// Manager makes and finds the images of one state directory.
type Manager struct {
	Config
	scratch    string // where mmdebstrap gets its directory
	registries *oci.Registries
	manifests  manifests
	// publishing keeps apart what changes the published image of one key.
	publishing sync.Mutex

	jobs share.Group[banger.Image] // by what they do

	mu   sync.Mutex
	left map[string]bool // in images/, that CleanUp could not remove
}

// New makes a Manager. It does no I/O.
func New(cfg Config) *Manager {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Limits == (tree.Limits{}) {
		cfg.Limits = defaultLimits
	}
	if len(cfg.Order) == 0 {
		cfg.Order = []config.Source{config.FromPackages}
	}
	return &Manager{Config: cfg, scratch: scratchDir, registries: oci.NewRegistries(cfg.Dir.Blobs()), left: map[string]bool{}}
}

// spaceError is [banger.SpaceError] with what can be done about it here.
func (m *Manager) spaceError(err error) error {
	full := banger.SpaceError(err, m.Dir.Images())
	if e, ok := full.(*banger.Error); ok && full != err {
		e.Hint += ": what is not needed goes with banger image prune and banger image cache prune"
	}
	return full
}

func (m *Manager) unknown(name string, names []string) error {
	if images, err := m.List(); err == nil {
		for _, image := range images {
			names = append(names, image.Name)
		}
	}
	slices.Sort(names)
	hint := banger.DidYouMean(name, slices.Compact(names))
	if hint == "" {
		hint = "which images there are: banger image list"
	}
	if known, err := definitions(); err == nil && known[name].Name != "" {
		hint = "the first vm run with it builds it"
	} else if isReference(name) {
		hint = "to get it from its registry: banger image pull " + name
	}
	return &banger.Error{Kind: banger.ErrNotFound, Op: "image", Subject: fmt.Sprintf("%q", name), Hint: hint}
}

// find gives the newest image of a name, or the newest that came from a registry by this reference. Errors: fs.ErrNotExist.
func (m *Manager) find(name string) (banger.Image, error) {
	images, err := m.List()
	if err != nil {
		return banger.Image{}, err
	}
	is := func(image banger.Image) bool { return image.Name == name }
	if isReference(name) {
		is = func(image banger.Image) bool { return sameReference(image.Source, name) }
	}
	for _, image := range slices.Backward(images) {
		if is(image) {
			return image, nil
		}
	}
	return banger.Image{}, fs.ErrNotExist
}

// List gives every image, oldest first. A directory whose manifest can't be read is left out: its VMs say so at their start.
func (m *Manager) List() ([]banger.Image, error) {
	entries, err := os.ReadDir(m.Dir.Images())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list images: %w", err)
	}
	images := []banger.Image{}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		if image, err := m.Get(entry.Name()); err == nil {
			images = append(images, image)
		}
	}
	slices.SortFunc(images, func(a, b banger.Image) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return images, nil
}

// Get gives the image with this key. Errors: ErrNotFound; ErrCorrupt for a damaged manifest.
func (m *Manager) Get(key string) (banger.Image, error) {
	if !isKey(key) {
		return banger.Image{}, banger.Invalidf("image key %q: want 64 hexadecimal digits", key)
	}
	return m.manifests.read(key, m.Dir.Image(key))
}

// Resolve gives the newest image of a name, or the one whose key begins with ref. Errors: ErrNotFound; ErrInvalid for the
// beginning of several keys.
func (m *Manager) Resolve(ref string) (banger.Image, error) {
	image, err := m.find(ref)
	if !errors.Is(err, fs.ErrNotExist) {
		return image, err
	}
	images, err := m.List()
	if err != nil {
		return banger.Image{}, err
	}
	var found []banger.Image
	for _, image := range images {
		if ref != "" && strings.HasPrefix(image.Key, ref) {
			found = append(found, image)
		}
	}
	switch len(found) {
	case 0:
		return banger.Image{}, m.unknown(ref, nil)
	case 1:
		return found[0], nil
	}
	return banger.Image{}, banger.Invalidf("image %q: the keys of %d images begin so", ref, len(found))
}

// Delete removes an image. Nobody may use it. Errors: ErrNotFound.
func (m *Manager) Delete(key string) error {
	if _, err := m.Get(key); errors.Is(err, banger.ErrNotFound) || errors.Is(err, banger.ErrInvalid) {
		return err
	}
	m.publishing.Lock()
	defer m.publishing.Unlock()
	return m.discard(key)
}

// discard removes a published image, whatever its directory holds. Its caller has publishing.
func (m *Manager) discard(key string) error {
	m.manifests.forget(key)
	// Out of sight first: what a crash leaves is removed by CleanUp.
	staging := m.Dir.ImageStaging(key)
	if err := os.Rename(m.Dir.Image(key).Path, staging.Path); err != nil {
		return fmt.Errorf("delete image: %w", err)
	}
	return errors.Join(atomicfile.SyncDir(m.Dir.Images()), os.RemoveAll(staging.Path))
}

func isKey(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// CleanUp removes what builds that were cut off left behind. No build may run.
func (m *Manager) CleanUp(ctx context.Context) error {
	entries, err := os.ReadDir(m.Dir.Images())
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasPrefix(name, ".") {
			errs = append(errs, m.removeUnclaimed(name))
			continue
		}
		if err := m.removeStaging(ctx, statedir.ImageDir{Path: filepath.Join(m.Dir.Images(), name)}); err != nil {
			errs = append(errs, err)
			m.mu.Lock()
			m.left[name] = true
			m.mu.Unlock()
		}
	}
	return errors.Join(errs...)
}

// newStaging names a staging directory that nobody has.
func (m *Manager) newStaging(name string) statedir.ImageDir {
	return m.Dir.ImageStaging(name + "-" + strings.ToLower(rand.Text()[:8]))
}

// publish gives a finished staging directory its final name.
func (m *Manager) publish(staging statedir.ImageDir, image banger.Image) error {
	if err := writeManifest(staging, image); err != nil {
		return err
	}
	if err := os.Rename(staging.Path, m.Dir.Image(image.Key).Path); err != nil {
		return fmt.Errorf("publish image: %w", err)
	}
	return atomicfile.SyncDir(m.Dir.Images())
}
