package daemon

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"banger"
	"banger/api"
)

// events writes one event a line, at once.
type events struct {
	w    http.ResponseWriter
	sent bool
}

func (e *events) send(event api.Event) {
	if !e.sent {
		e.w.Header().Set("Content-Type", api.MediaEvents)
	}
	e.sent = true
	line, err := json.Marshal(event)
	if err != nil {
		return // no event holds what JSON can't say
	}
	if _, err := e.w.Write(append(line, '\n')); err == nil {
		_ = http.NewResponseController(e.w).Flush()
	}
}

// stream serves a route that runs what a request asks for as an operation, and answers with its events. A request that is refused is
// none. An operation ends with its client, unless that detaches it or its work goes on anyhow.
func stream[Q any](rs *routes, pattern string, plan func(*http.Request, Q) (work, error)) {
	s := rs.s
	rs.serve(pattern, reflect.TypeFor[Q](), func(route api.Route) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			detach, err := boolParam(r, api.DetachParam)
			var req Q
			if err == nil {
				req, err = decode[Q](w, r)
			}
			var todo work
			if err == nil {
				todo, err = plan(r, req)
			}
			if err != nil {
				s.refuse(w, r, err)
				return
			}
			pid, _ := r.Context().Value(peerKey{}).(int)
			o, err := s.operations.start(api.Operation{ID: banger.OperationOf(r.Context()), Kind: route.Operation, ClientPID: pid, Detached: detach}, todo)
			switch {
			case err != nil:
				s.refuse(w, r, err)
			case detach:
				s.takeOn(w, r, o)
			case !s.follow(w, r, o) && !o.insists:
				o.stop(errLeft)
			}
		}
	})
}

// imageWork is work that makes an image.
func imageWork(subject string, do func(context.Context, banger.ProgressFunc) (banger.Image, error)) work {
	return work{subject: subject, do: func(ctx context.Context, progress banger.ProgressFunc) (api.Event, error) {
		image, err := do(ctx, progress)
		return api.Event{Image: &image}, err
	}}
}

// kernelWork is work that makes a kernel.
func kernelWork(subject string, do func(context.Context, banger.ProgressFunc) (banger.Kernel, error)) work {
	return work{subject: subject, do: func(ctx context.Context, progress banger.ProgressFunc) (api.Event, error) {
		kernel, err := do(ctx, progress)
		return api.Event{Kernel: &kernel}, err
	}}
}

// follow sends an operation's events from the first that is kept to the last, and tells whether the client stayed. An error before
// the first event is an ordinary one.
func (s *Server) follow(w http.ResponseWriter, r *http.Request, o *operation) (stayed bool) {
	out := &events{w: w}
	for seen := 0; ; {
		news, newest, changed, ended := o.since(seen)
		for _, p := range news {
			out.send(api.Event{Progress: &p})
		}
		if seen = newest; ended {
			s.finish(out, o)
			return true
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return false
		}
	}
}

// firstStep bounds how long a client that detaches waits for a refusal.
const firstStep = time.Second

// takeOn answers with an operation that goes on, once it has made its first step: most of what can be refused was refused then.
func (s *Server) takeOn(w http.ResponseWriter, r *http.Request, o *operation) {
	out := &events{w: w}
	_, told, changed, _ := o.since(0)
	if told == 0 {
		select {
		case <-changed:
		case <-time.After(firstStep):
		case <-r.Context().Done():
			return
		}
	}
	info := o.snapshot()
	if info.Error != nil {
		s.finish(out, o)
		return
	}
	out.send(api.Event{Operation: &info})
}

// finish sends the last event of an operation that ended.
func (s *Server) finish(out *events, o *operation) {
	info := o.snapshot()
	switch {
	case info.Error == nil:
		out.send(*info.Result)
	case out.sent:
		out.send(api.Event{Error: info.Error})
	default:
		writeError(out.w, o.failure(), info.ID)
	}
}

// boolParam reads a query parameter that is false when it is left out.
func boolParam(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, banger.Invalidf("%s=%q: want true or false", name, text)
	}
	return value, nil
}
