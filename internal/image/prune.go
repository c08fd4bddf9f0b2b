package image

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"banger"
	"banger/api"
	"banger/internal/atomicfile"
	"banger/internal/statedir"
)

// Why something is pruned.
const (
	superseded = "superseded" // a newer image has its name
	unused     = "unused"
	damaged    = "damaged"
	leftover   = "leftover" // of an operation that was cut off
	cached     = "cached"   // a layer that a pull may use again
	partial    = "partial"  // a download that a pull may go on with
)

// Prune removes images, oldest first, but for those whose key is in use: what a newer image of their name replaces, what can't be
// read, and what operations that were cut off left; with all also the newest of each name. With dryRun it only tells. One that can't be removed does not keep the others.
func (m *Manager) Prune(ctx context.Context, inUse map[string]bool, all, dryRun bool) (pruned api.Pruned, err error) {
	items, err := m.prunable(inUse, all)
	if err != nil {
		return pruned, err
	}
	pruned.Items = []api.PrunedItem{}
	for _, item := range items {
		if err := ctx.Err(); err != nil {
			return pruned, err
		}
		if !dryRun {
			err := m.remove(ctx, item)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				pruned.Failed = append(pruned.Failed, banger.EncodeError(&banger.Error{Op: "remove", Subject: item.Name, Err: err}, ""))
				continue
			}
		}
		pruned.Items = append(pruned.Items, item)
		pruned.Bytes += item.Bytes
	}
	return pruned, nil
}

func (m *Manager) remove(ctx context.Context, item api.PrunedItem) error {
	if item.Reason != leftover {
		m.publishing.Lock()
		defer m.publishing.Unlock()
		return m.discard(item.Key)
	}
	m.mu.Lock()
	delete(m.left, item.Name) // from now on it may be another's
	m.mu.Unlock()
	if err := m.removeStaging(ctx, statedir.ImageDir{Path: filepath.Join(m.Dir.Images(), item.Name)}); err != nil {
		m.mu.Lock()
		m.left[item.Name] = true
		m.mu.Unlock()
		return err
	}
	return atomicfile.SyncDir(m.Dir.Images())
}

func (m *Manager) prunable(inUse map[string]bool, all bool) (items []api.PrunedItem, err error) {
	images, err := m.List()
	if err != nil {
		return nil, err
	}
	newest, known := map[string]string{}, map[string]bool{}
	for _, image := range images {
		newest[image.Name], known[image.Key] = image.Key, true
	}
	for _, image := range images {
		reason := superseded
		if newest[image.Name] == image.Key {
			reason = unused
		}
		if !inUse[image.Key] && (all || reason == superseded) {
			items = append(items, api.PrunedItem{Name: image.Name, Key: image.Key, Reason: reason, Bytes: statedir.Usage(m.Dir.Image(image.Key).Path)})
		}
	}
	entries, err := os.ReadDir(m.Dir.Images())
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	left := maps.Clone(m.left)
	m.mu.Unlock()
	for _, entry := range entries {
		name := entry.Name()
		item := api.PrunedItem{Name: name, Bytes: statedir.Usage(filepath.Join(m.Dir.Images(), name))}
		switch {
		case left[name]:
			item.Reason = leftover
		case isKey(name) && !known[name] && !inUse[name] && !m.readable(name):
			item.Reason, item.Key = damaged, name
		default:
			continue
		}
		items = append(items, item)
	}
	return items, nil
}

func (m *Manager) readable(key string) bool {
	_, err := m.Get(key)
	return err == nil
}

// PruneCache removes what registries and the catalog gave and no pull is using: images have copies of all that they need. With dryRun
// it only tells.
func (m *Manager) PruneCache(dryRun bool) (api.Pruned, error) {
	pruned := api.Pruned{Items: []api.PrunedItem{}}
	add := func(name, digest, reason string, bytes int64) {
		pruned.Items = append(pruned.Items, api.PrunedItem{Name: name, Key: digest, Reason: reason, Bytes: bytes})
		pruned.Bytes += bytes
	}
	layers, err := m.registries.Prune(dryRun)
	for _, file := range layers {
		reason := cached
		if file.Partial {
			reason = partial
		}
		add("layer", file.Digest, reason, file.Bytes)
	}
	if m.Catalog == nil {
		return pruned, err
	}
	bundles, bundleErr := m.Catalog.Prune(dryRun)
	for _, digest := range slices.Sorted(maps.Keys(bundles)) {
		add("bundle", digest, partial, bundles[digest])
	}
	return pruned, errors.Join(err, bundleErr)
}
