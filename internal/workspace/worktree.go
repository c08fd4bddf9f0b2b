package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/tree"
)

// worktree reads a directory of the host below its root: no symbolic link on the way is followed, whoever changes the directory
// meanwhile.
type worktree struct{ root int }

func openWorktree(root string) (*worktree, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	return &worktree{fd}, nil
}

func (w *worktree) close() error { return unix.Close(w.root) }

// open opens a path below the root; flags as for open(2).
func (w *worktree) open(name string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(w.root, name, &how)
		if err == nil {
			return fd, nil
		}
		if err != unix.EAGAIN && err != unix.EINTR { // EAGAIN: something was renamed meanwhile
			return -1, &os.PathError{Op: "open", Path: name, Err: err}
		}
	}
}

// errChanged is for a path that is no longer what it was when the plan was made.
var errChanged = errors.New("it changed meanwhile")

// entry gives a file or a symbolic link. The caller closes what it returns beside it, which may be nil. Errors: fs.ErrNotExist for
// a path that has gone, or is neither by now.
func (w *worktree) entry(name string) (tree.Entry, *os.File, error) {
	dirFD, err := w.open(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return tree.Entry{}, nil, gone(err)
	}
	defer unix.Close(dirFD)
	base := path.Base(name)
	var st unix.Stat_t
	if err := unix.Fstatat(dirFD, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return tree.Entry{}, nil, gone(&os.PathError{Op: "stat", Path: name, Err: err})
	}
	e := tree.Entry{Path: name, Mode: st.Mode & 0o777, ModTime: timeOf(st.Mtim)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		e.Kind, e.Mode = tree.Symlink, 0o777
		e.Link, err = readLink(dirFD, base, name)
		return e, nil, err
	case unix.S_IFREG:
	default:
		return tree.Entry{}, nil, gone(&os.PathError{Op: "read", Path: name, Err: errChanged})
	}
	fd, err := w.open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return tree.Entry{}, nil, gone(err)
	}
	f := os.NewFile(uintptr(fd), name)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "read", Path: name, Err: errChanged}
	}
	if err != nil {
		f.Close()
		return tree.Entry{}, nil, gone(err)
	}
	e.Kind, e.Size, e.ModTime, e.Mode = tree.File, info.Size(), info.ModTime(), uint32(info.Mode().Perm())
	e.Content = f
	return e, f, nil
}

// gone gives what a path that is not there any more fails with.
func gone(err error) error {
	for _, cause := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV, errChanged} {
		if errors.Is(err, cause) {
			return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		}
	}
	return err
}

func readLink(dirFD int, base, name string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dirFD, base, b)
	if err != nil {
		return "", gone(&os.PathError{Op: "readlink", Path: name, Err: err})
	}
	return string(b[:n]), nil
}

// parents gives the directories above name that seen does not hold yet, the outermost first, and notes them there.
func parents(name string, seen map[string]bool) (dirs []string) {
	for i, r := range name {
		if r == '/' && !seen[name[:i]] {
			seen[name[:i]] = true
			dirs = append(dirs, name[:i])
		}
	}
	return dirs
}

// dirMode is the mode of a directory of the work tree, 0755 where it is no directory.
func (w *worktree) dirMode(name string) uint32 {
	fd, err := w.open(name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return 0o755
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0o755
	}
	return st.Mode & 0o777
}

// spaceIn tells a full file system of the host as such.
func spaceIn(dir string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return banger.SpaceError(err, dir)
	}
	return err
}

// configValue writes a value for git's configuration file.
func configValue(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`, "\x00", "").Replace(value) + `"`
}

func timeOf(ts unix.Timespec) time.Time { return time.Unix(ts.Unix()) }
