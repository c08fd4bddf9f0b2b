package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"

	"banger"
	"banger/api"
)

func (s *Server) imageRoutes(rs *routes) {
	answer(rs, api.RouteImageList, func(*http.Request, none) ([]banger.Image, error) { return s.Images.List() })
	answer(rs, api.RouteImageShow, func(r *http.Request, _ none) (api.ImageDetail, error) {
		return s.VMs.ShowImage(r.Context(), r.PathValue("ref"))
	})
	answer(rs, api.RouteImageDelete, func(r *http.Request, _ none) (banger.Image, error) {
		return s.VMs.DeleteImage(r.Context(), r.PathValue("ref"))
	})
	answer(rs, api.RouteImagePrune, func(r *http.Request, req api.PruneRequest) (api.Pruned, error) {
		return s.VMs.PruneImages(r.Context(), req.All, req.DryRun)
	})
	answer(rs, api.RouteCachePrune, func(_ *http.Request, req api.PruneRequest) (api.Pruned, error) {
		return s.Images.PruneCache(req.DryRun)
	})
	stream(rs, api.RouteImageBuild, s.buildImage)
	stream(rs, api.RouteImagePull, s.pullImage)
	stream(rs, api.RouteImageImport, s.importImage)
	stream(rs, api.RouteImageRegister, s.registerImage)
	stream(rs, api.RouteImagePromote, s.promoteImage)
	rs.raw(api.RouteImageExport, s.exportImage)
}

func (s *Server) importImage(_ *http.Request, req api.ImportRequest) (work, error) {
	if err := absolute(req.Path, req.WorkSeed); err != nil {
		return work{}, err
	}
	return imageWork(req.Name, func(ctx context.Context, progress banger.ProgressFunc) (banger.Image, error) {
		return s.Images.Import(ctx, req, progress)
	}), nil
}

func (s *Server) buildImage(_ *http.Request, req api.BuildRequest) (work, error) {
	return imageWork(req.Name, func(ctx context.Context, progress banger.ProgressFunc) (banger.Image, error) {
		return s.Images.Build(ctx, req, progress)
	}), nil
}

func (s *Server) pullImage(_ *http.Request, req api.PullRequest) (work, error) {
	return imageWork(req.Ref, func(ctx context.Context, progress banger.ProgressFunc) (banger.Image, error) {
		return s.Images.Pull(ctx, req, progress)
	}), nil
}

func (s *Server) registerImage(_ *http.Request, req api.RegisterRequest) (work, error) {
	if err := absolute(req.Rootfs, req.WorkSeed); err != nil {
		return work{}, err
	}
	return imageWork(req.Name, func(ctx context.Context, progress banger.ProgressFunc) (banger.Image, error) {
		return s.Images.Register(ctx, req, progress)
	}), nil
}

func (s *Server) promoteImage(r *http.Request, _ none) (work, error) {
	ref := r.PathValue("ref")
	return imageWork(ref, func(ctx context.Context, progress banger.ProgressFunc) (banger.Image, error) {
		return s.Images.Promote(ctx, ref, progress)
	}), nil
}

// exportImage sends a tar. An error before its first byte is an ordinary answer, a later one is in the trailer.
func (s *Server) exportImage(w http.ResponseWriter, r *http.Request) {
	out := &firstByte{w: w}
	err := s.Images.Export(r.Context(), r.PathValue("ref"), out)
	switch {
	case err == nil:
	case !out.sent:
		s.refuse(w, r, err)
	default:
		s.Log.WarnContext(r.Context(), "failed", "request", r.Method+" "+r.URL.Path, "kind", banger.KindName(err), "err", err)
		body, _ := json.Marshal(banger.EncodeError(err, banger.OperationOf(r.Context()))) // nothing in it can't be said
		w.Header().Set(http.TrailerPrefix+api.ErrorTrailer, string(body))
	}
}

// firstByte gives an answer its type when there is one.
type firstByte struct {
	w    http.ResponseWriter
	sent bool
}

func (f *firstByte) Write(p []byte) (int, error) {
	if !f.sent {
		f.w.Header().Set("Content-Type", api.MediaTar)
	}
	f.sent = true
	return f.w.Write(p)
}

// absolute checks the paths in a request: the daemon has another working directory than who asks. The second may be empty.
func absolute(path, other string) error {
	for _, p := range []string{path, cmp.Or(other, path)} {
		if !filepath.IsAbs(p) {
			return banger.Invalidf("path %q: want an absolute one", p)
		}
	}
	return nil
}
