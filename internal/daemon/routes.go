package daemon

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"

	"banger"
	"banger/api"
)

// routes is what the daemon serves as it comes together: exactly api.Routes, with bodies of the types that stand there.
type routes struct {
	s    *Server
	mux  *http.ServeMux
	left map[string]api.Route // not served yet
}

func (s *Server) routes() http.Handler {
	rs := &routes{s: s, mux: http.NewServeMux(), left: map[string]api.Route{}}
	for _, route := range api.Routes {
		rs.left[route.Pattern] = route
	}
	s.ownRoutes(rs)
	s.operationRoutes(rs)
	s.vmRoutes(rs)
	s.fileRoutes(rs)
	s.imageRoutes(rs)
	s.kernelRoutes(rs)
	s.catalogRoutes(rs)
	s.saveRoutes(rs)
	for pattern := range rs.left {
		panic("nobody serves " + pattern)
	}
	rs.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, r, &banger.Error{Kind: banger.ErrUnsupported, Op: "route", Subject: r.Method + " " + r.URL.Path, Hint: staleDaemon})
	})
	return rs.mux
}

// none is the body of a request that has none.
type none struct{}

// serve has handler answer a route whose request has a body of type body.
func (rs *routes) serve(pattern string, body reflect.Type, handler func(api.Route) http.HandlerFunc) {
	route, ok := rs.left[pattern]
	if !ok {
		panic(pattern + " is not in api.Routes, or served twice")
	}
	delete(rs.left, pattern)
	if body == reflect.TypeFor[none]() {
		body = nil
	}
	if body != route.Body {
		panic(fmt.Sprintf("%s takes %v, and api.Routes says %v", pattern, body, route.Body))
	}
	h := handler(route)
	if !route.AnyClient {
		h = versioned(rs.s, h)
	}
	rs.mux.HandleFunc(pattern, h)
}

// raw serves what is not JSON.
func (rs *routes) raw(pattern string, handler http.HandlerFunc) {
	rs.serve(pattern, reflect.TypeFor[none](), func(api.Route) http.HandlerFunc { return handler })
}

// answer serves a route that takes one JSON value, or none, and sends one.
func answer[Q, A any](rs *routes, pattern string, do func(*http.Request, Q) (A, error)) {
	rs.serve(pattern, reflect.TypeFor[Q](), func(route api.Route) http.HandlerFunc {
		if gives := reflect.TypeFor[A](); gives != route.Answer {
			panic(fmt.Sprintf("%s gives %v, and api.Routes says %v", pattern, gives, route.Answer))
		}
		return func(w http.ResponseWriter, r *http.Request) {
			req, err := decode[Q](w, r)
			var value A
			if err == nil {
				value, err = do(r, req)
			}
			if err != nil {
				rs.s.refuse(w, r, err)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			if err := json.NewEncoder(w).Encode(value); err != nil {
				rs.s.Log.DebugContext(r.Context(), "send answer", "err", err)
			}
		}
	})
}
