package daemon

import (
	"net/http"

	"banger/api"
)

func (s *Server) statsRoutes(mux *http.ServeMux) {
	mux.HandleFunc(api.RouteStats, versioned(s, answer(s, func(r *http.Request) (any, error) {
		return s.VMs.Stats(r.Context(), r.URL.Query()[api.RefParam])
	})))
}
