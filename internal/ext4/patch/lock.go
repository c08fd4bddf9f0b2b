package patch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
)

// lock opens an image for this process alone. Users of images take one of two kinds of lock: flock, or QEMU's locks on
// ranges of bytes. A loop device takes none, so those are looked at.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, unsupported("it is a symbolic link")
	case errors.Is(err, os.ErrNotExist):
		return nil, &banger.Error{Kind: banger.ErrNotFound, Err: err}
	case err != nil:
		return nil, err
	}
	if err := take(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func take(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := regular(info); err != nil {
		return err
	}
	inUse := &banger.Error{Kind: banger.ErrConflict, Err: errors.New("the image is in use"), Hint: "stop the machine or program that uses it"}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return inUse
	} else if err != nil {
		return err
	}
	whole := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &whole); errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return inUse
	} else if err != nil {
		return err
	}
	if onLoop(info) {
		return &banger.Error{Kind: banger.ErrConflict, Err: errors.New("the image is in use by a loop device"), Hint: "unmount it first"}
	}
	return nil
}

// onLoop tells whether a loop device of this computer stands on the file.
func onLoop(info os.FileInfo) bool {
	names, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range names {
		backing, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		other, err := os.Stat(strings.TrimSuffix(string(backing), "\n"))
		if err == nil && os.SameFile(info, other) {
			return true
		}
	}
	return false
}
