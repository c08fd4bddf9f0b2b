package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"banger"
	"banger/api"
)

func (s *Server) operationRoutes(mux *http.ServeMux) {
	mux.HandleFunc(api.RouteOperationList, versioned(s, answer(s, func(*http.Request) (any, error) { return s.operations.snapshots(), nil })))
	mux.HandleFunc(api.RouteOperationShow, versioned(s, answer(s, func(r *http.Request) (any, error) {
		o, err := s.operations.get(r.PathValue("ref"))
		if err != nil {
			return nil, err
		}
		return o.snapshot(), nil
	})))
	mux.HandleFunc(api.RouteOperationFollow, versioned(s, func(w http.ResponseWriter, r *http.Request) {
		o, err := s.operations.get(r.PathValue("ref"))
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		w.Header().Set(api.OpIDHeader, o.snapshot().ID)
		s.follow(w, r, o)
	}))
	mux.HandleFunc(api.RouteOperationCancel, versioned(s, answer(s, func(r *http.Request) (any, error) {
		o, err := s.operations.get(r.PathValue("ref"))
		if err != nil {
			return nil, err
		}
		return o.undo(r.Context())
	})))
	mux.HandleFunc(api.RouteShutdown, answer(s, func(r *http.Request) (any, error) {
		force, err := boolParam(r, api.ForceParam)
		if err == nil {
			err = s.operations.close(force)
		}
		if err == nil {
			defer s.Shutdown()
		}
		return struct{}{}, err
	}))
}

// undo cancels the operation and returns when what it made is undone. One that was cancelled before is no error.
// Errors: ErrConflict when it has ended, or can't be cancelled; what it failed by when it could not be undone; ErrInterrupted.
func (o *operation) undo(ctx context.Context) (api.Operation, error) {
	info := o.snapshot()
	fault := &banger.Error{Kind: banger.ErrConflict, Op: "cancel operation", Subject: info.ID}
	if info.State == api.OperationRunning && o.insists {
		fault.Err, fault.Hint = fmt.Errorf("%s can't be undone halfway", info.Kind), "banger ops wait "+info.ID
		if info.Kind == "start vm" || info.Kind == "restart vm" {
			fault.Hint = "banger vm stop " + info.Subject
		}
		return info, fault
	}
	o.stop(errCancelled)
	for {
		_, _, changed, ended := o.since(0)
		if ended {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return info, &banger.Error{Kind: banger.ErrInterrupted, Err: ctx.Err()}
		}
	}
	switch info = o.snapshot(); info.State {
	case api.OperationDone:
		fault.Err = errors.New("it is done")
		return info, fault
	case api.OperationFailed:
		fault.Kind, fault.Err = nil, fmt.Errorf("it failed: %w", o.failure())
		return info, fault
	}
	return info, nil
}
