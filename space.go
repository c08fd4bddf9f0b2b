package banger

import (
	"errors"
	"syscall"
)

// SpaceError gives an error that comes from a full disk or quota its kind and hint; every other one is returned as it is.
func SpaceError(err error, dir string) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return &Error{Kind: ErrUnavailable, Err: err, Hint: SpaceHint(dir)}
}

// SpaceHint is what to do when a directory's file system is full.
func SpaceHint(dir string) string { return "make space on the file system of " + dir }
