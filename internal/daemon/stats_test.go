package daemon_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/api"
)

func (v *vms) Stats(_ context.Context, refs []string) (api.Stats, error) {
	stats := api.Stats{At: time.Unix(1e9, 0).UTC()}
	for _, ref := range refs {
		vm, err := v.get(ref)
		if err != nil {
			stats.Errors = append(stats.Errors, banger.EncodeError(err, ""))
			continue
		}
		stats.VMs = append(stats.VMs, api.VMStats{Name: vm.Spec.Name})
	}
	return stats, nil
}

func TestStats(t *testing.T) {
	s := serve(t, os.Getuid())
	for _, tc := range []struct {
		refs, names []string
		missing     int
	}{
		{nil, nil, 0},
		{[]string{"devbox", "a b&ref=x", "devbox"}, []string{"devbox", "devbox"}, 1},
	} {
		stats, err := s.Stats(t.Context(), tc.refs...)
		var names []string
		for _, vm := range stats.VMs {
			names = append(names, vm.Name)
		}
		if err != nil || stats.At.Unix() != 1e9 || !slices.Equal(names, tc.names) || len(stats.Errors) != tc.missing {
			t.Errorf("Stats(%q) = %+v, %v", tc.refs, stats, err)
		}
		for _, body := range stats.Errors {
			if err := body.Decode(); !errors.Is(err, banger.ErrNotFound) || !strings.Contains(err.Error(), "a b&ref=x") {
				t.Errorf("Stats(%q) tells %v", tc.refs, err)
			}
		}
	}
}
