package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"banger"
	"banger/api"
)

func (s *Server) operationRoutes(rs *routes) {
	answer(rs, api.RouteOperationList, func(*http.Request, none) ([]api.Operation, error) { return s.operations.snapshots(), nil })
	answer(rs, api.RouteOperationShow, func(r *http.Request, _ none) (api.Operation, error) {
		o, err := s.operations.get(r.PathValue("ref"))
		if err != nil {
			return api.Operation{}, err
		}
		return o.snapshot(), nil
	})
	rs.raw(api.RouteOperationFollow, func(w http.ResponseWriter, r *http.Request) {
		o, err := s.operations.get(r.PathValue("ref"))
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		w.Header().Set(api.OpIDHeader, o.snapshot().ID)
		s.follow(w, r, o)
	})
	answer(rs, api.RouteOperationCancel, func(r *http.Request, _ none) (api.Operation, error) {
		o, err := s.operations.get(r.PathValue("ref"))
		if err != nil {
			return api.Operation{}, err
		}
		return o.undo(r.Context())
	})
	answer(rs, api.RouteShutdown, func(r *http.Request, _ none) (api.Empty, error) {
		force, err := boolParam(r, api.ForceParam)
		if err == nil {
			err = s.operations.close(force)
		}
		if err == nil {
			defer s.Shutdown()
		}
		return api.Empty{}, err
	})
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
