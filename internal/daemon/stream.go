package daemon

import (
	"encoding/json"
	"net/http"
	"sync"

	"banger"
	"banger/internal/api"
)

// events writes one event a line, at once. An operation may outlive the request that it reports to: after end it writes nothing.
type events struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	ended bool
	sent  bool
}

func (e *events) send(event api.Event, last bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return
	}
	if !e.sent {
		e.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	e.sent, e.ended = true, last
	line, err := json.Marshal(event)
	if err != nil {
		return // no event holds what JSON can't say
	}
	if _, err := e.w.Write(append(line, '\n')); err == nil {
		_ = http.NewResponseController(e.w).Flush()
	}
}

// end stops the stream.
func (e *events) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
}

// endIfEmpty stops a stream on which nothing was sent and tells whether that is so.
func (e *events) endIfEmpty() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = e.ended || !e.sent
	return !e.sent
}

// operation does what a request asks for and gives the last event.
type operation func(http.ResponseWriter, *http.Request, banger.ProgressFunc) (api.Event, error)

// vmEvent is an operation on one VM.
func vmEvent(s *Server, fn func(http.ResponseWriter, *http.Request, banger.ProgressFunc) (banger.VM, error)) operation {
	return func(w http.ResponseWriter, r *http.Request, progress banger.ProgressFunc) (api.Event, error) {
		vm, err := fn(w, r, progress)
		if err != nil {
			return api.Event{}, err
		}
		detail := s.VMs.Detail(r.Context(), vm)
		return api.Event{VM: &detail}, nil
	}
}

// stream runs an operation and streams its events. An error before the first event is an ordinary one.
func stream(s *Server, fn operation) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out := &events{w: w}
		last, err := fn(w, r, func(p banger.Progress) { out.send(api.Event{Progress: &p}, false) })
		if err == nil {
			out.send(last, true)
			return
		}
		if r.Context().Err() != nil {
			out.end()
			s.Log.InfoContext(r.Context(), "the client left", "request", r.Method+" "+r.URL.Path, "err", err)
			return
		}
		if out.endIfEmpty() {
			s.refuse(w, r, err)
			return
		}
		s.Log.WarnContext(r.Context(), "failed", "request", r.Method+" "+r.URL.Path, "kind", banger.KindName(err), "err", err)
		body := banger.EncodeError(err, operationOf(r.Context()))
		out.send(api.Event{Error: &body}, true)
	}
}
