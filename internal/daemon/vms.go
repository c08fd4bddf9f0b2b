package daemon

import (
	"context"
	"errors"
	"net/http"

	"banger"
	"banger/api"
)

// Verbs is what is done to VMs beside making, starting, stopping and deleting them.
type Verbs interface {
	Resolve(ctx context.Context, refs []string) ([]api.ResolvedVM, error)
	Restart(ctx context.Context, ref string, req api.RestartRequest, progress banger.ProgressFunc) (banger.VM, error)
	Kill(ctx context.Context, ref, signal string, progress banger.ProgressFunc) (banger.VM, error)
	Rename(ctx context.Context, ref, name string, progress banger.ProgressFunc) (banger.VM, error)
	Wait(ctx context.Context, ref, what string) (banger.VM, error)
	SetNet(ctx context.Context, ref string, change banger.NetChange) (banger.VM, error)
	SetWorkspace(ctx context.Context, ref string, ws banger.Workspace) (banger.VM, error)
	Set(ctx context.Context, ref string, change banger.SpecChange, dryRun bool) (api.SetResult, error)
}

func (s *Server) verbRoutes(mux *http.ServeMux) {
	mux.HandleFunc(api.RouteVMResolve, versioned(s, s.resolve))
	mux.HandleFunc(api.RouteVMWait, versioned(s, s.wait))
	mux.HandleFunc(api.RouteVMWorkspace, versioned(s, s.setWorkspace))
	mux.HandleFunc(api.RouteVMNet, versioned(s, s.setNet))
	mux.HandleFunc(api.RouteVMSet, versioned(s, s.set))
	mux.HandleFunc(api.RouteVMStart, verb(s, "start vm", func(ctx context.Context, ref string, req api.StartRequest, progress banger.ProgressFunc) (banger.VM, error) {
		return s.VMs.Start(ctx, ref, req, progress)
	}))
	mux.HandleFunc(api.RouteVMStop, verb(s, "stop vm", func(ctx context.Context, ref string, req api.StopRequest, progress banger.ProgressFunc) (banger.VM, error) {
		return s.VMs.Stop(ctx, ref, req.Timeout, progress)
	}))
	mux.HandleFunc(api.RouteVMRestart, verb(s, "restart vm", func(ctx context.Context, ref string, req api.RestartRequest, progress banger.ProgressFunc) (banger.VM, error) {
		return s.VMs.Restart(ctx, ref, req, progress)
	}))
	mux.HandleFunc(api.RouteVMKill, verb(s, "kill vm", func(ctx context.Context, ref string, req api.KillRequest, progress banger.ProgressFunc) (banger.VM, error) {
		return s.VMs.Kill(ctx, ref, req.Signal, progress)
	}))
	mux.HandleFunc(api.RouteVMRename, verb(s, "rename vm", func(ctx context.Context, ref string, req api.RenameRequest, progress banger.ProgressFunc) (banger.VM, error) {
		return s.VMs.Rename(ctx, ref, req.Name, progress)
	}))
}

// wait is no operation: nothing is done, and the daemon's end ends it.
func (s *Server) wait(w http.ResponseWriter, r *http.Request) {
	answer(s, func(r *http.Request) (any, error) {
		var req api.WaitRequest
		if err := decode(w, r, &req); err != nil {
			return nil, err
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.serving, cancel)()
		vm, err := s.VMs.Wait(ctx, r.PathValue("ref"), req.For)
		if err != nil && s.serving.Err() != nil {
			err = errEnding
		}
		if err != nil {
			return nil, err
		}
		return s.VMs.Detail(r.Context(), vm), nil
	})(w, r)
}

// set is no operation either: it takes as long as a record and a disk's new end take to be written.
func (s *Server) set(w http.ResponseWriter, r *http.Request) {
	answer(s, func(r *http.Request) (any, error) {
		var req api.SetRequest
		if err := decode(w, r, &req); err != nil {
			return nil, err
		}
		return s.VMs.Set(r.Context(), r.PathValue("ref"), req.SpecChange, req.DryRun)
	})(w, r)
}

// errEnding is what a request gets that was not answered when the daemon ends.
var errEnding = &banger.Error{Kind: banger.ErrUnavailable, Err: errors.New("the daemon ends"), Hint: "try again: the next command starts it"}

// verb is an operation on one VM; T is the request's body.
func verb[T any](s *Server, kind string, do func(context.Context, string, T, banger.ProgressFunc) (banger.VM, error)) http.HandlerFunc {
	return stream(s, kind, func(w http.ResponseWriter, r *http.Request) (work, error) {
		var req T
		if err := decode(w, r, &req); err != nil {
			return work{}, err
		}
		return s.vmVerb(r, func(ctx context.Context, ref string, progress banger.ProgressFunc) (banger.VM, error) {
			return do(ctx, ref, req, progress)
		}), nil
	})
}

// vmVerb is work on the VM that a request names. It can't be undone halfway.
func (s *Server) vmVerb(r *http.Request, do func(context.Context, string, banger.ProgressFunc) (banger.VM, error)) work {
	ref := r.PathValue("ref")
	subject := ref
	if found, err := s.VMs.Resolve(r.Context(), []string{ref}); err == nil && found[0].Error == nil {
		subject = found[0].Name
	}
	w := s.vmWork(subject, func(ctx context.Context, progress banger.ProgressFunc) (banger.VM, error) {
		return do(ctx, ref, progress)
	})
	w.insists = true
	return w
}

// vmWork is work that ends with a VM.
func (s *Server) vmWork(subject string, do func(context.Context, banger.ProgressFunc) (banger.VM, error)) work {
	return work{subject: subject, do: func(ctx context.Context, progress banger.ProgressFunc) (api.Event, error) {
		vm, err := do(ctx, progress)
		if err != nil {
			return api.Event{}, err
		}
		detail := s.VMs.Detail(ctx, vm)
		return api.Event{VM: &detail}, nil
	}}
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

func (s *Server) setNet(w http.ResponseWriter, r *http.Request) {
	answer(s, func(r *http.Request) (any, error) {
		var change banger.NetChange
		if err := decode(w, r, &change); err != nil {
			return nil, err
		}
		return s.VMs.SetNet(r.Context(), r.PathValue("ref"), change)
	})(w, r)
}

func (s *Server) setWorkspace(w http.ResponseWriter, r *http.Request) {
	answer(s, func(r *http.Request) (any, error) {
		var ws banger.Workspace
		if err := decode(w, r, &ws); err != nil {
			return nil, err
		}
		return s.VMs.SetWorkspace(r.Context(), r.PathValue("ref"), ws)
	})(w, r)
}
