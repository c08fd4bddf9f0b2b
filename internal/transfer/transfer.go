// Package transfer carries files and trees between host and guest: as one stream (stream.go), from one side to the other (message.go),
// and into a directory that ends up with all of it or nothing (place.go, write.go, move.go). Host and guest agent run the same code.
//
// What comes is not trusted, whichever side it comes from: names stay below the directory that the receiver chose, no symbolic link is
// followed on the way, and nothing has its final name before it is whole.
package transfer

import (
	"errors"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/tree"
)

// Origin is what is copied.
type Origin struct {
	Name []byte `json:"name,omitempty"` // empty: what is in a directory, not the directory itself
	Dir  bool   `json:"dir,omitempty"`
}

// OriginOf gives the origin that a path of a file or directory stands for: one that ends in "/." stands for what is in the directory.
func OriginOf(name string, dir bool) Origin {
	base := path.Base(name)
	if base == "/" || base == ".." || base == "." || strings.HasSuffix(name, "/.") {
		base = ""
	}
	return Origin{Name: []byte(base), Dir: dir}
}

// Root is how the origin's own entry is named in its tree.
func (o Origin) Root() string {
	if len(o.Name) == 0 {
		return "."
	}
	return string(o.Name)
}

// check refuses a name that is none. Errors: ErrCorrupt.
func (o Origin) check() error {
	name := string(o.Name)
	if len(name) > maxName || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." || name == "" && !o.Dir {
		return &banger.Error{Kind: banger.ErrCorrupt, Err: errors.New("the name of what comes is none")}
	}
	return nil
}

const maxName = 255

// Report tells what was copied.
type Report struct {
	Entries int      `json:"entries"`            // files, directories and links, the origin among them
	Bytes   int64    `json:"bytes"`              // content of files
	Skipped int      `json:"skipped,omitempty"`  // devices, FIFOs, sockets and other file systems
	Left    []string `json:"left_out,omitempty"` // the first of those, by path
}

// maxLeft bounds how many paths a report names.
const maxLeft = 20

func (r *Report) leave(at string) {
	if r.Skipped++; len(r.Left) < maxLeft {
		r.Left = append(r.Left, at)
	}
}

// Limits bound what a stream asks for beside the space that it takes.
var Limits = tree.Limits{Entries: 20_000_000, Bytes: 64 << 40, Strict: true}

// describe gives an error of the file system a kind, and a next step where there is one.
func describe(err error, dir string) error {
	if err == nil || banger.KindName(err) != "internal" {
		return err
	}
	kind, hint := error(nil), ""
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		kind, hint = banger.ErrUnavailable, "make space on the file system of "+dir
	case errors.Is(err, unix.EROFS), errors.Is(err, fs.ErrPermission):
		kind = banger.ErrRefused
	case errors.Is(err, fs.ErrNotExist):
		kind = banger.ErrNotFound
	case errors.Is(err, fs.ErrExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EBUSY), errors.Is(err, unix.ETXTBSY):
		kind = banger.ErrConflict
	case errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EINVAL):
		kind = banger.ErrInvalid
	default:
		return err
	}
	return &banger.Error{Kind: kind, Err: err, Hint: hint}
}
