package script

import (
	"context"
	"strings"

	"banger"
	"banger/internal/catalog"
)

func catalogIndex(context.Context) (banger.Catalog, error) {
	b := banger.Bundle{Name: "offered", Digest: strings.Repeat("0", 64), SizeBytes: 5 << 20, URL: "x", Description: "an image that can be had"}
	return banger.Catalog{Version: 1, Serial: 1, Images: []banger.CatalogImage{{Bundle: b, Key: image.Key, Boot: banger.BootAgent, Kernel: "debian"}}}, nil
}

func bundleImage(ctx context.Context, ref, dir string, progress banger.ProgressFunc) (banger.CatalogImage, error) {
	found, err := images{}.Resolve(ref)
	if err != nil {
		return banger.CatalogImage{}, err
	}
	defer progress.Begin("bundle", "packing image "+found.Name)()
	b, err := catalog.Pack(ctx, dir, found.Name, []catalog.File{{Name: "image.json", Data: []byte(ref)}}, func(int64) {})
	return banger.CatalogImage{Bundle: b, Key: found.Key, Boot: found.Boot, Kernel: "debian"}, err
}

func bundleKernel(ctx context.Context, name, dir string, progress banger.ProgressFunc) (banger.CatalogKernel, error) {
	found, err := kernels{}.Get(name)
	if err != nil {
		return banger.CatalogKernel{}, err
	}
	defer progress.Begin("bundle", "packing kernel "+name)()
	b, err := catalog.Pack(ctx, dir, name, []catalog.File{{Name: "kernel.json", Data: []byte(name)}}, func(int64) {})
	return banger.CatalogKernel{Bundle: b, Version: found.Version}, err
}
