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

func (s *Server) kernelRoutes(rs *routes) {
	answer(rs, api.RouteKernelList, func(*http.Request, none) ([]banger.Kernel, error) { return s.Kernels.List() })
	answer(rs, api.RouteKernelOffers, func(r *http.Request, _ none) ([]banger.KernelOffer, error) { return s.Kernels.Available(r.Context()) })
	answer(rs, api.RouteKernelShow, func(r *http.Request, _ none) (banger.Kernel, error) { return s.Kernels.Get(r.PathValue("ref")) })
	answer(rs, api.RouteKernelDelete, func(r *http.Request, _ none) (banger.Kernel, error) {
		return s.VMs.DeleteKernel(r.Context(), r.PathValue("ref"))
	})
	stream(rs, api.RouteKernelImport, s.importKernel)
	stream(rs, api.RouteKernelPull, s.pullKernel)
}

func (s *Server) pullKernel(_ *http.Request, req api.PullKernelRequest) (work, error) {
	return kernelWork(req.Name, func(ctx context.Context, progress banger.ProgressFunc) (banger.Kernel, error) {
		return s.Kernels.Ensure(ctx, req.Name, progress)
	}), nil
}

func (s *Server) importKernel(_ *http.Request, req api.ImportKernelRequest) (work, error) {
	for _, path := range append([]string{req.Dir}, req.Packages...) {
		if path != "" && !filepath.IsAbs(path) {
			return work{}, banger.Invalidf("path %q: want an absolute one", path)
		}
	}
	return kernelWork(req.Name, func(ctx context.Context, progress banger.ProgressFunc) (banger.Kernel, error) {
		return s.Kernels.Import(ctx, req.Name, req.KernelSource, progress)
	}), nil
}
