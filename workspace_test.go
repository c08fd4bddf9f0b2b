package banger

import (
	"errors"
	"strings"
	"testing"
)

func TestValidateGuestPath(t *testing.T) {
	for path, want := range map[string]error{
		"/root/repo": nil, "/workspaces/a b": nil, "/root": ErrInvalid, "/": ErrInvalid, "": ErrInvalid, "root/repo": ErrInvalid, "/root/../etc": ErrInvalid,
		"/root/repo/": ErrInvalid, "/root//repo": ErrInvalid, "/root/a\x00b": ErrInvalid, "/root/" + strings.Repeat("x", 1024): ErrInvalid,
	} {
		if err := ValidateGuestPath(path); !errors.Is(err, want) || (want == nil) != (err == nil) {
			t.Errorf("ValidateGuestPath(%q) = %v, want %v", path, err, want)
		}
	}
}
