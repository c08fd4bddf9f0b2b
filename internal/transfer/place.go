package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/tree"
)

// Place is where an origin goes: a name in a directory that is there, or into that directory.
type Place struct {
	Dir  string
	Name string // empty: what comes is joined with what is in Dir
}

// Resolve decides where an origin goes as cp does: into dest when that is a directory, else to dest itself, whose parent must be there.
// Symbolic links in dest are followed. Errors: ErrNotFound, ErrConflict, ErrInvalid, ErrRefused.
func Resolve(dest string, o Origin) (Place, error) {
	place, err := resolve(dest, o)
	if err != nil {
		return Place{}, &banger.Error{Subject: dest, Err: describe(err, dest)}
	}
	return place, nil
}

func resolve(dest string, o Origin) (Place, error) {
	conflict := func(text string) error { return &banger.Error{Kind: banger.ErrConflict, Err: errors.New(text)} }
	if dest == "" || strings.ContainsRune(dest, 0) || len(dest) >= unix.PathMax {
		return Place{}, banger.Invalidf("%d bytes are no path", len(dest))
	}
	info, err := os.Stat(dest)
	switch {
	case err == nil && info.IsDir():
		return Place{dest, string(o.Name)}, nil
	case err == nil && o.Dir:
		return Place{}, conflict("a directory can't replace a file")
	case err == nil && !info.Mode().IsRegular():
		return Place{}, conflict("it is no regular file and no directory")
	case err == nil:
		if dest, err = filepath.EvalSymlinks(dest); err != nil {
			return Place{}, err
		}
		return Place{filepath.Dir(dest), filepath.Base(dest)}, nil
	case !errors.Is(err, fs.ErrNotExist):
		return Place{}, err
	}
	if _, err := os.Lstat(dest); err == nil {
		return Place{}, conflict("it is a symbolic link to what is not there")
	}
	base := path.Base(dest)
	if !o.Dir && strings.HasSuffix(dest, "/") || base == "." || base == ".." {
		return Place{}, &banger.Error{Kind: banger.ErrNotFound, Err: errors.New("no such directory"), Hint: "make it first"}
	}
	parent := filepath.Dir(strings.TrimRight(dest, "/"))
	if info, err := os.Stat(parent); err != nil || !info.IsDir() {
		return Place{}, &banger.Error{Kind: banger.ErrNotFound, Err: fmt.Errorf("there is no directory %s", parent), Hint: "make it first"}
	}
	return Place{parent, base}, nil
}

// Owner is whom copies belong to.
type Owner struct{ UID, GID uint32 }

// Options say how a tree is written. Modes, but for set-id bits, times and symbolic links are kept always; devices, FIFOs and sockets are
// left out always.
type Options struct {
	Owner    *Owner        // nil: who writes
	Archive  bool          // keep set-id bits and extended attributes, and as root the owners
	Sync     bool          // all of it is on the disk when it gets its name; else only a file that is copied alone
	Progress func(n int64) // optional: so many bytes more were written
}

// stagingPrefix begins the name of the directory beside the copy in which it grows.
const stagingPrefix = ".banger-cp-"

// Write puts what src yields of an origin into its place. It grows in a directory of its own beside the place and moves there once it is
// whole; on error, and when ctx ends before that, nothing of it is left. A directory that is there already keeps its own mode and
// what it has; a file is replaced; a file never replaces a directory, nor the other way round.
// Errors: those of src; ErrConflict, ErrRefused, ErrNotFound, ErrInvalid; ErrUnavailable when there is no space; ErrInterrupted.
func Write(ctx context.Context, place Place, o Origin, src tree.Source, opts Options) (Report, error) {
	report, err := write(ctx, place, o, src, opts)
	if err == nil {
		return report, nil
	}
	if ctx.Err() != nil {
		return Report{}, &banger.Error{Kind: banger.ErrInterrupted, Op: "copy", Err: context.Cause(ctx)}
	}
	return Report{}, describe(err, place.Dir)
}

func write(ctx context.Context, place Place, o Origin, src tree.Source, opts Options) (report Report, err error) {
	to, err := openDir(unix.AT_FDCWD, place.Dir, 0)
	if err != nil {
		return report, &os.PathError{Op: "open", Path: place.Dir, Err: err}
	}
	defer unix.Close(to)
	name := o.Root()
	if name == "." && place.Name != "" {
		src, name = tree.Under(place.Name, src), place.Name
	}
	s, err := newStaging(to)
	if err != nil {
		return report, &os.PathError{Op: "make a directory in", Path: place.Dir, Err: err}
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	w := &writer{ctx: ctx, root: s.fd, opts: opts, report: &report, parent: -1, alone: !o.Dir}
	if err := w.write(src); err != nil {
		return report, err
	}
	if report.Entries == 0 {
		return report, &banger.Error{Kind: banger.ErrUnsupported, Err: fmt.Errorf("%q is a device, a FIFO or a socket: there is nothing to copy", name)}
	}
	if opts.Sync && o.Dir { // a file that comes alone has been synced, and what else is dirty is not ours to wait for
		if err := unix.Syncfs(s.fd); err != nil {
			return report, fmt.Errorf("write to the disk: %w", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return report, err
	}
	m := &mover{ctx: ctx}
	if name == "." {
		return report, m.merge(s.fd, to, ".")
	}
	return report, m.move(s.fd, name, to, place.Name, place.Name)
}

// staging is a directory of our own beside a place.
type staging struct {
	parent int
	name   string
	fd     int
}

func newStaging(parent int) (*staging, error) {
	s := &staging{parent: parent, name: stagingPrefix + rand.Text()}
	err := unix.Mkdirat(parent, s.name, 0o700)
	if err != nil {
		return nil, err
	}
	if s.fd, err = openDir(parent, s.name, unix.O_NOFOLLOW); err != nil {
		return nil, errors.Join(err, unix.Unlinkat(parent, s.name, unix.AT_REMOVEDIR))
	}
	return s, nil
}

// remove takes away what is left of it.
func (s *staging) remove() error {
	err := empty(s.fd)
	unix.Close(s.fd)
	return errors.Join(err, unix.Unlinkat(s.parent, s.name, unix.AT_REMOVEDIR))
}

// empty removes all that is in a directory of ours. Copied modes may forbid it until they are changed.
func empty(dir int) error {
	if err := unix.Fchmod(dir, 0o700); err != nil {
		return err
	}
	names, err := namesIn(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		err := unix.Unlinkat(dir, name, 0)
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
			err = emptyChild(dir, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func emptyChild(dir int, name string) error {
	_ = unix.Fchmodat(dir, name, 0o700, 0) // what may not be opened can't be emptied; the next step tells if that failed
	fd, err := openDir(dir, name, unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return errors.Join(empty(fd), unix.Unlinkat(dir, name, unix.AT_REMOVEDIR))
}

func openDir(at int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// namesIn lists a directory from its start.
func namesIn(dir int) ([]string, error) {
	fd, err := openDir(dir, ".", 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), ".")
	defer file.Close()
	return file.Readdirnames(-1)
}
