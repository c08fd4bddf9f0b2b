package daemon

import (
	"context"
	"net/http"

	"banger"
	"banger/api"
)

// Catalog is what the daemon does for a catalog's readers and publishers.
type Catalog struct {
	Index        func(ctx context.Context) (banger.Catalog, error)
	BundleImage  func(ctx context.Context, ref, dir string, progress banger.ProgressFunc) (banger.CatalogImage, error)
	BundleKernel func(ctx context.Context, name, dir string, progress banger.ProgressFunc) (banger.CatalogKernel, error)
}

func (s *Server) catalogRoutes(rs *routes) {
	answer(rs, api.RouteCatalog, func(r *http.Request, _ none) (banger.Catalog, error) {
		index, err := s.Catalog.Index(r.Context())
		index.Images = append([]banger.CatalogImage{}, index.Images...) // a list is never null, whatever others sign
		index.Kernels = append([]banger.CatalogKernel{}, index.Kernels...)
		return index, err
	})
	stream(rs, api.RouteImageBundle, func(r *http.Request, req api.BundleRequest) (work, error) {
		ref := r.PathValue("ref")
		return work{subject: ref, do: func(ctx context.Context, progress banger.ProgressFunc) (api.Event, error) {
			entry, err := s.Catalog.BundleImage(ctx, ref, req.Dir, progress)
			return api.Event{CatalogImage: &entry}, err
		}}, absolute(req.Dir, "")
	})
	stream(rs, api.RouteKernelBundle, func(r *http.Request, req api.BundleRequest) (work, error) {
		name := r.PathValue("ref")
		return work{subject: name, do: func(ctx context.Context, progress banger.ProgressFunc) (api.Event, error) {
			entry, err := s.Catalog.BundleKernel(ctx, name, req.Dir, progress)
			return api.Event{CatalogKernel: &entry}, err
		}}, absolute(req.Dir, "")
	})
}
