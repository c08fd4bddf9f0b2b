package daemon

import (
	"context"
	"net/http"
	"path/filepath"

	"banger"
	"banger/internal/api"
)

// Kernels is what the kernel manager does for the API.
type Kernels interface {
	List() ([]banger.Kernel, error)
	Available(ctx context.Context) ([]banger.KernelOffer, error)
	Get(name string) (banger.Kernel, error)
	Ensure(ctx context.Context, name string, progress banger.ProgressFunc) (banger.Kernel, error)
	Import(ctx context.Context, name string, src banger.KernelSource, progress banger.ProgressFunc) (banger.Kernel, error)
}

func (s *Server) kernelRoutes(mux *http.ServeMux) {
	mux.HandleFunc(api.RouteKernelList, versioned(s, answer(s, func(*http.Request) (any, error) { return s.Kernels.List() })))
	mux.HandleFunc(api.RouteKernelOffers, versioned(s, answer(s, func(r *http.Request) (any, error) { return s.Kernels.Available(r.Context()) })))
	mux.HandleFunc(api.RouteKernelShow, versioned(s, answer(s, func(r *http.Request) (any, error) { return s.Kernels.Get(r.PathValue("ref")) })))
	mux.HandleFunc(api.RouteKernelDelete, versioned(s, answer(s, func(r *http.Request) (any, error) { return s.VMs.DeleteKernel(r.Context(), r.PathValue("ref")) })))
	mux.HandleFunc(api.RouteKernelImport, versioned(s, stream(s, s.importKernel)))
	mux.HandleFunc(api.RouteKernelPull, versioned(s, stream(s, s.pullKernel)))
}

func (s *Server) pullKernel(w http.ResponseWriter, r *http.Request, progress banger.ProgressFunc) (api.Event, error) {
	var req api.PullKernelRequest
	if err := decode(w, r, &req); err != nil {
		return api.Event{}, err
	}
	kernel, err := s.Kernels.Ensure(r.Context(), req.Name, progress)
	return api.Event{Kernel: &kernel}, err
}

func (s *Server) importKernel(w http.ResponseWriter, r *http.Request, progress banger.ProgressFunc) (api.Event, error) {
	var req api.ImportKernelRequest
	if err := decode(w, r, &req); err != nil {
		return api.Event{}, err
	}
	for _, path := range append([]string{req.Dir}, req.Packages...) {
		if path != "" && !filepath.IsAbs(path) {
			return api.Event{}, banger.Invalidf("path %q: want an absolute one", path)
		}
	}
	kernel, err := s.Kernels.Import(r.Context(), req.Name, req.KernelSource, progress)
	return api.Event{Kernel: &kernel}, err
}
