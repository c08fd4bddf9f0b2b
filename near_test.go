package banger_test

import (
	"slices"
	"testing"

	"banger"
)

func TestNear(t *testing.T) {
	names := []string{"debian-bookworm-slim", "devbox", "web", "web-2"}
	for _, tc := range []struct {
		name string
		want []string
	}{
		{"debain-bookworm-slim", []string{"debian-bookworm-slim"}},
		{"debian", []string{"debian-bookworm-slim"}},
		{"bookworm", []string{"debian-bookworm-slim"}},
		{"debian-bookwrm-slm", []string{"debian-bookworm-slim"}},
		{"dexbox", []string{"devbox"}},
		{"wbe", []string{"web"}},
		{"Web", []string{"web"}},
		{"we", []string{"web", "web-2"}},
		{"zzzz", nil},
		{"", nil},
	} {
		if got := banger.Near(tc.name, names); !slices.Equal(got, tc.want) {
			t.Errorf("Near(%q) = %v, want %v", tc.name, got, tc.want)
		}
	}
}
