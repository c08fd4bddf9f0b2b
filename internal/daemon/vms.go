package daemon

import (
	"context"
	"errors"
	"net/http"
	"time"

	"banger"
	"banger/internal/api"
)

// Verbs is what is done to VMs beside making, starting, stopping and deleting them.
type Verbs interface {
	Resolve(ctx context.Context, refs []string) ([]api.ResolvedVM, error)
	Restart(ctx context.Context, ref string, timeout time.Duration, progress banger.ProgressFunc) (banger.VM, error)
	Kill(ctx context.Context, ref, signal string, progress banger.ProgressFunc) (banger.VM, error)
	Rename(ctx context.Context, ref, name string, progress banger.ProgressFunc) (banger.VM, error)
	Wait(ctx context.Context, ref, what string) (banger.VM, error)
}

func (s *Server) verbRoutes(mux *http.ServeMux) {
	mux.HandleFunc(api.RouteVMResolve, versioned(s, s.resolve))
	mux.HandleFunc(api.RouteVMRestart, verb(s, func(r *http.Request, req api.RestartRequest, progress banger.ProgressFunc) (banger.VM, error) {
		return s.VMs.Restart(r.Context(), r.PathValue("ref"), req.Timeout, progress)
	}))
	mux.HandleFunc(api.RouteVMKill, verb(s, func(r *http.Request, req api.KillRequest, progress banger.ProgressFunc) (banger.VM, error) {
		return s.VMs.Kill(r.Context(), r.PathValue("ref"), req.Signal, progress)
	}))
	mux.HandleFunc(api.RouteVMRename, verb(s, func(r *http.Request, req api.RenameRequest, progress banger.ProgressFunc) (banger.VM, error) {
		return s.VMs.Rename(r.Context(), r.PathValue("ref"), req.Name, progress)
	}))
	mux.HandleFunc(api.RouteVMWait, verb(s, func(r *http.Request, req api.WaitRequest, _ banger.ProgressFunc) (banger.VM, error) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.serving, cancel)()
		vm, err := s.VMs.Wait(ctx, r.PathValue("ref"), req.For)
		if err != nil && s.serving.Err() != nil {
			err = errEnding
		}
		return vm, err
	}))
}

// errEnding is what a request that may wait without end gets when the daemon ends.
var errEnding = &banger.Error{Kind: banger.ErrUnavailable, Err: errors.New("the daemon ends"), Hint: "try again: the next command starts it"}

// verb is an operation on one VM whose request has a body.
func verb[T any](s *Server, do func(*http.Request, T, banger.ProgressFunc) (banger.VM, error)) http.HandlerFunc {
	return versioned(s, stream(s, vmEvent(s, func(w http.ResponseWriter, r *http.Request, progress banger.ProgressFunc) (banger.VM, error) {
		var req T
		if err := decode(w, r, &req); err != nil {
			return banger.VM{}, err
		}
		return do(r, req, progress)
	})))
}

func (s *Server) resolve(w http.ResponseWriter, r *http.Request) {
	answer(s, func(r *http.Request) (any, error) {
		var req api.ResolveRequest
		if err := decode(w, r, &req); err != nil {
			return nil, err
		}
		if len(req.Refs) > api.MaxRefs {
			return nil, banger.Invalidf("%d references: want at most %d", len(req.Refs), api.MaxRefs)
		}
		return s.VMs.Resolve(r.Context(), req.Refs)
	})(w, r)
}
