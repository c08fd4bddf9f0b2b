package guestagent

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
)

// fillable says whether a bind begins with what the image has at its target: the host seeds /root, and what is in /tmp is
// not meant to stay.
func fillable(bind banger.DiskBind) bool { return bind.Target != "/root" && bind.Target != "/tmp" }

// fill copies the tree at source into the directory dir, which is empty. It appears there whole or not at all.
func fill(dir, source string) error {
	if empty, err := isEmpty(source); err != nil || empty {
		return err
	}
	if empty, err := isEmpty(dir); err != nil || !empty {
		return err
	}
	staging := dir + ".new"
	if err := os.RemoveAll(staging); err != nil {
		return err
	}
	if err := copyTree(staging, source); err != nil {
		return err
	}
	return unix.Rename(staging, dir) // os.Rename refuses a directory that is there
}

func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// copyTree copies a tree with owners, modes, times and links. Hard links become files of their own.
func copyTree(to, from string) error {
	var dirs []func() error // times of directories, set when their content is there
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if err := copyEntry(target, path, &st); err != nil {
			return err
		}
		if d.IsDir() {
			dirs = append(dirs, func() error { return setTimes(target, &st) })
			return nil
		}
		return setTimes(target, &st)
	})
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		err = dirs[i]()
	}
	return err
}

func copyEntry(target, path string, st *unix.Stat_t) error {
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = os.Mkdir(target, 0o700)
	case unix.S_IFREG:
		err = copyFile(target, path)
	case unix.S_IFLNK:
		var link string
		if link, err = os.Readlink(path); err == nil {
			err = os.Symlink(link, target)
		}
	default:
		err = unix.Mknod(target, st.Mode, int(st.Rdev))
	}
	if err != nil {
		return err
	}
	if err := os.Lchown(target, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	return unix.Chmod(target, st.Mode&0o7777)
}

func copyFile(target, path string) error {
	from, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

func setTimes(target string, st *unix.Stat_t) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, target, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}
