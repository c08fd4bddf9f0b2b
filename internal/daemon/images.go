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

// imageRoutes are those of images that lie elsewhere, go elsewhere or are not needed any more.
func (s *Server) imageRoutes(mux *http.ServeMux) {
	mux.HandleFunc(api.RouteImageRegister, stream(s, "register image", s.registerImage))
	mux.HandleFunc(api.RouteImagePromote, stream(s, "promote image", s.promoteImage))
	mux.HandleFunc(api.RouteImageExport, versioned(s, s.exportImage))
	mux.HandleFunc(api.RouteImagePrune, s.prune(func(r *http.Request, req api.PruneRequest) (api.Pruned, error) {
		return s.VMs.PruneImages(r.Context(), req.All, req.DryRun)
	}))
	mux.HandleFunc(api.RouteCachePrune, s.prune(func(_ *http.Request, req api.PruneRequest) (api.Pruned, error) {
		return s.Images.PruneCache(req.DryRun)
	}))
}

func (s *Server) registerImage(w http.ResponseWriter, r *http.Request) (work, error) {
	var req api.RegisterRequest
	if err := decode(w, r, &req); err != nil {
		return work{}, err
	}
	if err := absolute(req.Rootfs, req.WorkSeed); err != nil {
		return work{}, err
	}
	return imageWork(req.Name, func(ctx context.Context, progress banger.ProgressFunc) (banger.Image, error) {
		return s.Images.Register(ctx, req, progress)
	}), nil
}

func (s *Server) promoteImage(_ http.ResponseWriter, r *http.Request) (work, error) {
	ref := r.PathValue("ref")
	return imageWork(ref, func(ctx context.Context, progress banger.ProgressFunc) (banger.Image, error) {
		return s.Images.Promote(ctx, ref, progress)
	}), nil
}

// prune answers by what do removes.
func (s *Server) prune(do func(*http.Request, api.PruneRequest) (api.Pruned, error)) http.HandlerFunc {
	return versioned(s, func(w http.ResponseWriter, r *http.Request) {
		answer(s, func(r *http.Request) (any, error) {
			var req api.PruneRequest
			if err := decode(w, r, &req); err != nil {
				return nil, err
			}
			return do(r, req)
		})(w, r)
	})
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
		f.w.Header().Set("Content-Type", "application/x-tar")
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
