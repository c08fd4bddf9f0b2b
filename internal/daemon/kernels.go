package daemon

import (
	"context"
	"net/http"
	"path/filepath"

	"banger"
	"banger/api"
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
	mux.HandleFunc(api.RouteKernelImport, stream(s, "import kernel", s.importKernel))
	mux.HandleFunc(api.RouteKernelPull, stream(s, "pull kernel", s.pullKernel))
}

func (s *Server) pullKernel(w http.ResponseWriter, r *http.Request) (work, error) {
	var req api.PullKernelRequest
	if err := decode(w, r, &req); err != nil {
		return work{}, err
	}
	return kernelWork(req.Name, func(ctx context.Context, progress banger.ProgressFunc) (banger.Kernel, error) {
		return s.Kernels.Ensure(ctx, req.Name, progress)
	}), nil
}

func (s *Server) importKernel(w http.ResponseWriter, r *http.Request) (work, error) {
	var req api.ImportKernelRequest
	if err := decode(w, r, &req); err != nil {
		return work{}, err
	}
	for _, path := range append([]string{req.Dir}, req.Packages...) {
		if path != "" && !filepath.IsAbs(path) {
			return work{}, banger.Invalidf("path %q: want an absolute one", path)
		}
	}
	return kernelWork(req.Name, func(ctx context.Context, progress banger.ProgressFunc) (banger.Kernel, error) {
		return s.Kernels.Import(ctx, req.Name, req.KernelSource, progress)
	}), nil
}
