package client

import (
	"context"

	"banger"
	"banger/api"
)

// Catalog gives the index of the configured catalog. Errors: ErrNotFound when none is.
func (c *Client) Catalog(ctx context.Context) (banger.Catalog, error) {
	return get[banger.Catalog](ctx, c, api.RouteCatalog, "")
}

// BundleImage makes a bundle of an image in an absolute directory on the host and gives its entry for an index.
func (c *Client) BundleImage(ctx context.Context, ref, dir string, progress banger.ProgressFunc) (banger.CatalogImage, error) {
	last, err := c.events(ctx, api.RouteImageBundle, ref, nil, api.BundleRequest{Dir: dir}, progress)
	if err != nil || last.CatalogImage == nil {
		return banger.CatalogImage{}, err
	}
	return *last.CatalogImage, nil
}

// BundleKernel makes a bundle of a kernel in an absolute directory on the host and gives its entry for an index.
func (c *Client) BundleKernel(ctx context.Context, name, dir string, progress banger.ProgressFunc) (banger.CatalogKernel, error) {
	last, err := c.events(ctx, api.RouteKernelBundle, name, nil, api.BundleRequest{Dir: dir}, progress)
	if err != nil || last.CatalogKernel == nil {
		return banger.CatalogKernel{}, err
	}
	return *last.CatalogKernel, nil
}
