package daemon

import (
	"context"
	"net/http"
	"path/filepath"

	"banger"
	"banger/api"
)

// Catalog is what the daemon does for a catalog's readers and publishers.
type Catalog struct {
	Index        func(ctx context.Context) (banger.Catalog, error)
	BundleImage  func(ctx context.Context, ref, dir string, progress banger.ProgressFunc) (banger.CatalogImage, error)
	BundleKernel func(ctx context.Context, name, dir string, progress banger.ProgressFunc) (banger.CatalogKernel, error)
}

func (s *Server) catalogRoutes(mux *http.ServeMux) {
	mux.HandleFunc(api.RouteCatalog, versioned(s, answer(s, func(r *http.Request) (any, error) { return s.Catalog.Index(r.Context()) })))
	mux.HandleFunc(api.RouteImageBundle, stream(s, "bundle image", func(w http.ResponseWriter, r *http.Request) (work, error) {
		ref := r.PathValue("ref")
		dir, err := bundleDir(w, r)
		return work{subject: ref, do: func(ctx context.Context, progress banger.ProgressFunc) (api.Event, error) {
			entry, err := s.Catalog.BundleImage(ctx, ref, dir, progress)
			return api.Event{CatalogImage: &entry}, err
		}}, err
	}))
	mux.HandleFunc(api.RouteKernelBundle, stream(s, "bundle kernel", func(w http.ResponseWriter, r *http.Request) (work, error) {
		name := r.PathValue("ref")
		dir, err := bundleDir(w, r)
		return work{subject: name, do: func(ctx context.Context, progress banger.ProgressFunc) (api.Event, error) {
			entry, err := s.Catalog.BundleKernel(ctx, name, dir, progress)
			return api.Event{CatalogKernel: &entry}, err
		}}, err
	}))
}

func bundleDir(w http.ResponseWriter, r *http.Request) (string, error) {
	var req api.BundleRequest
	if err := decode(w, r, &req); err != nil {
		return "", err
	}
	if !filepath.IsAbs(req.Dir) {
		return "", banger.Invalidf("directory %q: want an absolute path", req.Dir)
	}
	return req.Dir, nil
}
