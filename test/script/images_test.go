package script

import (
	"context"
	"io"
	"strings"

	"banger"
	"banger/api"
	"banger/internal/tree"
)

func (images) Register(_ context.Context, req api.RegisterRequest, progress banger.ProgressFunc) (banger.Image, error) {
	defer progress.Begin("image", "registering image "+req.Name)()
	return banger.Image{Name: req.Name, Key: image.Key, Boot: banger.BootAgent, Kernel: req.Kernel, Source: "registered " + req.Rootfs}, nil
}

func (images) Promote(_ context.Context, ref string, _ banger.ProgressFunc) (banger.Image, error) {
	return images{}.Resolve(ref)
}

func (i images) Base(context.Context, banger.Image, banger.ProgressFunc) (string, error) {
	return i.base, nil
}

func (images) Export(_ context.Context, ref string, w io.Writer) error {
	if _, err := (images{}).Resolve(ref); err != nil {
		return err
	}
	return tree.WriteTar(w, tree.Of(tree.Literal("hello", 0o644, []byte("world"))))
}

func (images) Prune(_ context.Context, inUse map[string]bool, all, _ bool) (api.Pruned, error) {
	pruned := api.Pruned{Items: []api.PrunedItem{{Name: "old", Key: strings.Repeat("01d0", 16), Reason: "superseded", Bytes: 100 << 20}}, Bytes: 100 << 20}
	if all && !inUse[image.Key] {
		pruned.Items = append(pruned.Items, api.PrunedItem{Name: image.Name, Key: image.Key, Reason: "unused", Bytes: 200 << 20})
		pruned.Bytes += 200 << 20
	}
	return pruned, nil
}

func (images) PruneCache(bool) (api.Pruned, error) {
	return api.Pruned{Items: []api.PrunedItem{{Name: "layer", Key: strings.Repeat("1a", 32), Reason: "cached", Bytes: 30 << 20}}, Bytes: 30 << 20}, nil
}
