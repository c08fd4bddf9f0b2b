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

func (s *Server) vmRoutes(rs *routes) {
	answer(rs, api.RouteVMList, func(r *http.Request, _ none) ([]banger.VM, error) { return s.VMs.List(r.Context()) })
	answer(rs, api.RouteVMShow, func(r *http.Request, _ none) (api.VMDetail, error) {
		return s.VMs.Show(r.Context(), r.PathValue("ref"))
	})
	answer(rs, api.RouteStats, func(r *http.Request, _ none) (api.Stats, error) {
		return s.VMs.Stats(r.Context(), r.URL.Query()[api.RefParam])
	})
	answer(rs, api.RouteVMResolve, s.resolve)
	answer(rs, api.RouteVMWait, s.wait)
	answer(rs, api.RouteVMWorkspace, func(r *http.Request, ws banger.Workspace) (banger.VM, error) {
		return s.VMs.SetWorkspace(r.Context(), r.PathValue("ref"), ws)
	})
	answer(rs, api.RouteVMNet, func(r *http.Request, change banger.NetChange) (banger.VM, error) {
		return s.VMs.SetNet(r.Context(), r.PathValue("ref"), change)
	})
	// No operation either: it takes as long as a record and a disk's new end take to be written.
	answer(rs, api.RouteVMSet, func(r *http.Request, req api.SetRequest) (api.SetResult, error) {
		return s.VMs.Set(r.Context(), r.PathValue("ref"), req.SpecChange, req.DryRun)
	})
	stream(rs, api.RouteVMCreate, s.create)
	stream(rs, api.RouteVMDelete, s.delete)
	verb(rs, api.RouteVMStart, func(ctx context.Context, ref string, req api.StartRequest, progress banger.ProgressFunc) (banger.VM, error) {
		return s.VMs.Start(ctx, ref, req, progress)
	})
	verb(rs, api.RouteVMStop, func(ctx context.Context, ref string, req api.StopRequest, progress banger.ProgressFunc) (banger.VM, error) {
		return s.VMs.Stop(ctx, ref, req.Timeout, progress)
	})
	verb(rs, api.RouteVMRestart, func(ctx context.Context, ref string, req api.RestartRequest, progress banger.ProgressFunc) (banger.VM, error) {
		return s.VMs.Restart(ctx, ref, req, progress)
	})
	verb(rs, api.RouteVMKill, func(ctx context.Context, ref string, req api.KillRequest, progress banger.ProgressFunc) (banger.VM, error) {
		return s.VMs.Kill(ctx, ref, req.Signal, progress)
	})
	verb(rs, api.RouteVMRename, func(ctx context.Context, ref string, req api.RenameRequest, progress banger.ProgressFunc) (banger.VM, error) {
		return s.VMs.Rename(ctx, ref, req.Name, progress)
	})
}

// wait is no operation: nothing is done, and the daemon's end ends it.
func (s *Server) wait(r *http.Request, req api.WaitRequest) (api.VMDetail, error) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.serving, cancel)()
	vm, err := s.VMs.Wait(ctx, r.PathValue("ref"), req.For)
	if err != nil && s.serving.Err() != nil {
		err = errEnding
	}
	if err != nil {
		return api.VMDetail{}, err
	}
	return s.VMs.Detail(r.Context(), vm), nil
}

func (s *Server) resolve(r *http.Request, req api.ResolveRequest) ([]api.ResolvedVM, error) {
	if len(req.Refs) > api.MaxRefs {
		return nil, banger.Invalidf("%d references: want at most %d", len(req.Refs), api.MaxRefs)
	}
	return s.VMs.Resolve(r.Context(), req.Refs)
}

// errEnding is what a request gets that was not answered when the daemon ends.
var errEnding = &banger.Error{Kind: banger.ErrUnavailable, Err: errors.New("the daemon ends"), Hint: "try again: the next command starts it"}

// verb serves an operation on one VM; T is the request's body.
func verb[T any](rs *routes, pattern string, do func(context.Context, string, T, banger.ProgressFunc) (banger.VM, error)) {
	stream(rs, pattern, func(r *http.Request, req T) (work, error) {
		return rs.s.vmVerb(r, func(ctx context.Context, ref string, progress banger.ProgressFunc) (banger.VM, error) {
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
