package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"banger"
	"banger/api"
	"banger/internal/statedir"
)

// usersOf names the VMs that have their disk on a base.
func usersOf(list []banger.VM, key string) (names []string) {
	for _, vm := range list {
		if vm.ImageKey == key {
			names = append(names, vm.Spec.Name)
		}
	}
	slices.Sort(names)
	return names
}

// PruneImages removes images that no VM uses: those that a newer one of their name replaces, or all. With dryRun it only tells.
// Errors: ErrConflict while a VM is just being made, or when the record of one can't be read.
func (m *Manager) PruneImages(ctx context.Context, all, dryRun bool) (api.Pruned, error) {
	if !m.basesInUse.TryLock() {
		return api.Pruned{}, &banger.Error{Kind: banger.ErrConflict, Op: "prune images", Err: errors.New("a VM is just being made"), Hint: "try again when it is made"}
	}
	defer m.basesInUse.Unlock()
	list, err := m.Store.List(ctx)
	if err != nil {
		return api.Pruned{}, err
	}
	inUse := map[string]bool{}
	for _, vm := range list {
		if vm.ImageKey == "" { // its record can't be read
			return api.Pruned{}, &banger.Error{Kind: banger.ErrConflict, Op: "prune images", Err: fmt.Errorf("nobody knows which image the VM %s uses", vm.Spec.Name),
				Hint: "banger vm delete " + vm.Spec.Name}
		}
		inUse[vm.ImageKey] = true
	}
	pruned, err := m.Images.Prune(ctx, inUse, all, dryRun)
	if !dryRun && len(pruned.Items) > 0 {
		m.Log.InfoContext(ctx, "pruned images", "removed", len(pruned.Items), "bytes", pruned.Bytes)
	}
	return pruned, err
}

// ShowImage gives the image that ref, a name or the beginning of a key, stands for, and who uses it. Errors: ErrNotFound.
func (m *Manager) ShowImage(ctx context.Context, ref string) (api.ImageDetail, error) {
	image, err := m.Images.Resolve(ref)
	if err != nil {
		return api.ImageDetail{}, err
	}
	list, err := m.Store.List(ctx)
	dir := m.Dir.Image(image.Key).Path
	return api.ImageDetail{Image: image, Dir: dir, DiskBytes: statedir.Usage(dir), VMs: usersOf(list, image.Key)}, err
}
