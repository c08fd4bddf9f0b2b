package transfer

import (
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/tree"
)

// mover moves a tree that is whole to its place. It looks first whether all of it can go there, then renames; a rename takes no time that
// ctx would have to end.
type mover struct {
	ctx    context.Context
	looked bool
}

// merge joins what is in one directory with what is in another, which in messages is at.
func (m *mover) merge(from, to int, at string) error {
	if !m.looked {
		if err := m.look(from, to, at); err != nil {
			return err
		}
		m.looked = true
	}
	if err := unix.Fchmod(from, 0o700); err != nil { // a copied mode may forbid to take things out; this directory goes away
		return err
	}
	names, err := namesIn(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := m.move(from, name, to, name, path.Join(at, name)); err != nil {
			return err
		}
	}
	return nil
}

// look finds what is in the way, before anything has been moved.
func (m *mover) look(from, to int, at string) error {
	names, err := namesIn(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := m.lookAt(from, name, to, name, path.Join(at, name)); err != nil {
			return err
		}
	}
	return nil
}

func (m *mover) lookAt(from int, name string, to int, final, at string) error {
	kind, err := clash(from, name, to, final)
	if err != nil || kind != bothDirs {
		return inTheWay(at, err)
	}
	a, b, err := openBoth(from, name, to, final)
	if err != nil {
		return inTheWay(at, err)
	}
	defer unix.Close(a)
	defer unix.Close(b)
	return m.look(a, b, at)
}

func inTheWay(at string, err error) error {
	if err != nil {
		err = fmt.Errorf("%.300q: %w", at, err)
	}
	return err
}

// move gives what is name in one directory the name final in another.
func (m *mover) move(from int, name string, to int, final, at string) error {
	if !m.looked {
		if err := m.lookAt(from, name, to, final, at); err != nil {
			return err
		}
		m.looked = true
	}
	kind, err := clash(from, name, to, final)
	if err != nil {
		return inTheWay(at, err)
	}
	if kind == bothDirs {
		a, b, err := openBoth(from, name, to, final)
		if err != nil {
			return inTheWay(at, err)
		}
		defer unix.Close(a)
		defer unix.Close(b)
		return m.merge(a, b, at)
	}
	err = rename(from, name, to, final, kind == nothing)
	if errors.Is(err, unix.EXDEV) { // another file system is mounted there
		return m.across(from, name, to, final)
	}
	return inTheWay(at, err)
}

// What a name that is to be taken stands for.
const (
	nothing = iota
	aFile
	bothDirs
)

// clash tells what final is now. Errors: ErrConflict for what is not to be replaced.
func clash(from int, name string, to int, final string) (int, error) {
	var old, fresh unix.Stat_t
	err := unix.Fstatat(to, final, &old, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nothing, nil
	}
	if err == nil {
		err = unix.Fstatat(from, name, &fresh, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return nothing, err
	}
	isDir := func(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }
	reason := ""
	switch kind := old.Mode & unix.S_IFMT; {
	case isDir(&old) && isDir(&fresh):
		return bothDirs, nil
	case isDir(&old):
		reason = "a file can't replace a directory"
	case isDir(&fresh) && kind == unix.S_IFLNK:
		reason = "a directory can't replace a symbolic link, and none is followed"
	case isDir(&fresh):
		reason = "a directory can't replace a file"
	case kind != unix.S_IFREG && kind != unix.S_IFLNK:
		reason = "it is no regular file"
	default:
		return aFile, nil
	}
	return nothing, &banger.Error{Kind: banger.ErrConflict, Err: errors.New(reason)}
}

func openBoth(from int, name string, to int, final string) (a, b int, err error) {
	if err := unix.Fchmodat(from, name, 0o700, 0); err != nil { // a directory of ours
		return -1, -1, err
	}
	if a, err = openDir(from, name, unix.O_NOFOLLOW); err != nil {
		return -1, -1, err
	}
	if b, err = openDir(to, final, unix.O_NOFOLLOW); err != nil {
		unix.Close(a)
	}
	return a, b, err
}

// rename moves a file or directory. A directory that its owner may not change can't be moved until its mode allows it.
func rename(from int, name string, to int, final string, vacant bool) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	forbidden := st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Mode&0o300 != 0o300
	if forbidden {
		if err := unix.Fchmodat(from, name, st.Mode&allModes|0o300, 0); err != nil {
			return err
		}
	}
	flags := uint(0)
	if vacant {
		flags = unix.RENAME_NOREPLACE
	}
	err := unix.Renameat2(from, name, to, final, flags)
	if vacant && errors.Is(err, unix.EINVAL) { // a file system that can't; nothing was there a moment ago
		err = unix.Renameat(from, name, to, final)
	}
	if err == nil && forbidden {
		err = unix.Fchmodat(to, final, st.Mode&allModes, 0)
	}
	return err
}

// across copies what can't be renamed to another file system, by a staging directory there.
func (m *mover) across(from int, name string, to int, final string) error {
	here, there := fmt.Sprintf("/proc/self/fd/%d/%s", from, name), fmt.Sprintf("/proc/self/fd/%d/.", to)
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	o := Origin{Name: []byte(final), Dir: st.Mode&unix.S_IFMT == unix.S_IFDIR}
	_, err := write(m.ctx, Place{there, final}, o, tree.FromPath(here, final, false, nil), Options{Archive: true})
	return err
}
