package api

import (
	"errors"
	"net/http"

	"banger"
)

// statuses maps error kinds to HTTP statuses, both ways.
var statuses = []struct {
	kind   error
	status int
}{
	{banger.ErrInvalid, http.StatusBadRequest},
	{banger.ErrNotFound, http.StatusNotFound},
	{banger.ErrConflict, http.StatusConflict},
	{banger.ErrUnavailable, http.StatusServiceUnavailable},
	{banger.ErrRefused, http.StatusForbidden},
	{banger.ErrUnsupported, http.StatusNotImplemented},
}

// StatusOf is the HTTP status that carries err; 500 for an error without a kind.
func StatusOf(err error) int {
	for _, s := range statuses {
		if errors.Is(err, s.kind) {
			return s.status
		}
	}
	return http.StatusInternalServerError
}
