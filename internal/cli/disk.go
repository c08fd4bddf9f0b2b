package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/ext4"
	"banger/internal/ext4/read"
)

func (a *app) diskGroup() *cobra.Command {
	return a.group("disk", "make, read and change ext4 images", `
These commands work on plain files, without root, mounts or the daemon. Reading never changes an image, not even one
that was not unmounted. Changing one happens as a whole or not at all, also when the computer crashes.`, `
  banger disk create out.ext4 --size 8G --from-dir ./tree --owner 0:0
  tar -c . | banger disk create out.ext4 --size 2G --from-tar -
  banger disk ls out.ext4 /etc                 what is in it
  banger disk cat out.ext4 /etc/hostname
  banger disk cp out.ext4 /var/log ./log       out of the image
  echo web | banger disk write out.ext4 /etc/hostname
  banger disk check out.ext4`,
		a.diskCreate(), a.diskList(), a.diskCat(), a.diskStat(), a.diskCopy(), a.diskWrite(), a.diskUsage(), a.diskCheck())
}

// image is an image that is open for reading.
type image struct {
	*read.FS
	file *os.File
	size int64
}

func (i *image) Close() error { return i.file.Close() }

// openFile opens an image and gives its size. Errors: ErrNotFound, ErrUnsupported for what is neither a file nor a block device.
func openFile(name string) (*os.File, int64, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, hostError("open image", name, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && info.Mode().Type() != fs.ModeDevice {
		err = &banger.Error{Kind: banger.ErrUnsupported, Err: errors.New("it is no file")}
	}
	var size int64
	if err == nil {
		size, err = f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		f.Close()
		return nil, 0, hostError("open image", name, err)
	}
	return f, size, nil
}

func openImage(name string) (*image, error) {
	f, size, err := openFile(name)
	if err != nil {
		return nil, err
	}
	fsys, err := read.Open(f, size)
	if err != nil {
		f.Close()
		return nil, hostError("open image", name, err)
	}
	return &image{fsys, f, size}, nil
}

// hostError gives an error of the host's file system its kind.
func hostError(op, subject string, err error) error {
	kind := banger.KindByName(banger.KindName(err))
	switch {
	case kind != nil:
	case errors.Is(err, fs.ErrNotExist):
		kind = banger.ErrNotFound
	case errors.Is(err, fs.ErrExist):
		kind = banger.ErrConflict
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG), errors.Is(err, unix.EROFS):
		kind = banger.ErrUnavailable
	}
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		err = at.Err
	}
	return &banger.Error{Kind: kind, Op: op, Subject: subject, Err: err, Hint: banger.HintOf(err)}
}

// diskArgs checks for an image and between least and most paths.
func diskArgs(least, most int, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < 1+least || len(args) > 1+most {
			return inputError(cmd, "want %s, got %d arguments", want, len(args))
		}
		for _, arg := range args {
			if arg == "" {
				return inputError(cmd, "an argument is empty")
			}
		}
		return nil
	}
}

// completeImage offers files for the image and nothing for paths in it.
func completeImage(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// diskEntry is a file in an image.
type diskEntry struct {
	Name    string    `json:"name"`            // the name alone; of "disk stat" the whole path in the image
	Type    string    `json:"type"`            // "file", "directory", "symlink", "char-device", "block-device", "fifo" or "socket"
	Mode    string    `json:"mode"`            // octal
	UID     uint32    `json:"uid"`             // owner
	GID     uint32    `json:"gid"`             // group
	Size    int64     `json:"size"`            // bytes that its content has, holes included
	ModTime time.Time `json:"mod_time"`        // of its content
	Link    string    `json:"link,omitempty"`  // text of a symbolic link
	Major   uint32    `json:"major,omitempty"` // of a device; absent: 0, or none
	Minor   uint32    `json:"minor,omitempty"` // likewise
	perm    string
}

var typeNames = map[uint16]string{ext4.TypeFile: "file", ext4.TypeDir: "directory", ext4.TypeSymlink: "symlink", ext4.TypeChar: "char-device",
	ext4.TypeBlock: "block-device", ext4.TypeFIFO: "fifo", ext4.TypeSocket: "socket"}

func entryOf(name string, n *read.Node) (diskEntry, error) {
	s := n.Stat()
	e := diskEntry{Name: name, Type: typeNames[s.Mode&0xF000], Mode: fmt.Sprintf("%04o", s.Mode&0o7777), UID: s.UID, GID: s.GID, Size: s.Size, ModTime: s.Mod,
		Major: s.Major, Minor: s.Minor, perm: read.FileMode(s.Mode).String()}
	var err error
	if n.IsSymlink() {
		e.Link, err = n.Link()
	}
	return e, err
}

// inImage is a path in an image as it is shown.
func inImage(name string) string { return path.Join("/", name) }

// ownerFlag is UID:GID.
type ownerFlag struct {
	uid, gid uint32
	given    bool
}

func (o *ownerFlag) Set(text string) error {
	user, group, both := strings.Cut(text, ":")
	if !both {
		group = user
	}
	uid, err := strconv.ParseUint(user, 10, 32)
	if err != nil {
		return banger.Invalidf("%q: want UID:GID in numbers", text)
	}
	gid, err := strconv.ParseUint(group, 10, 32)
	if err != nil {
		return banger.Invalidf("%q: want UID:GID in numbers", text)
	}
	*o = ownerFlag{uint32(uid), uint32(gid), true}
	return nil
}

func (o *ownerFlag) String() string { return "" }
func (o *ownerFlag) Type() string   { return "UID:GID" }

// modeFlag is a mode in octal.
type modeFlag struct {
	mode  uint32
	given bool
}

func (m *modeFlag) Set(text string) error {
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil || mode > 0o7777 {
		return banger.Invalidf("%q: want an octal mode up to 7777", text)
	}
	*m = modeFlag{uint32(mode), true}
	return nil
}

func (m *modeFlag) String() string { return "" }
func (m *modeFlag) Type() string   { return "mode" }
