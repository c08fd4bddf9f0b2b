package statedir

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"banger"
)

// File systems by their magic number (statfs(2)).
const (
	magicNFS     = 0x6969
	magicCIFS    = 0xff534d42
	magicSMB2    = 0xfe534d42
	magicSMB     = 0x517b
	magicAFS     = 0x5346414f
	magic9P      = 0x01021997
	magicCeph    = 0x00c36400
	magicFUSE    = 0x65735546
	magicOverlay = 0x794c7630
	magicTmpfs   = 0x01021994
	magicRamfs   = 0x858458f6
)

// network are file systems of other hosts: unix sockets, the database's log in shared memory and the daemon's lock need one of this host.
var network = map[uint32]string{magicNFS: "NFS", magicCIFS: "CIFS", magicSMB2: "SMB", magicSMB: "SMB", magicAFS: "AFS", magic9P: "9P", magicCeph: "Ceph"}

// doubtful are file systems on which all works, but not for long or not as well.
var doubtful = map[uint32]string{
	magicOverlay: "an overlay: what is in it may be gone with its container, and first writes copy whole files",
	magicFUSE:    "a FUSE file system: whether it keeps what is synced is up to its program",
	magicTmpfs:   "in memory: everything is gone with the next boot",
	magicRamfs:   "in memory: everything is gone with the next boot",
}

const anotherDisk = "set BANGER_STATE_DIR to a directory on a disk of this computer"

func checkFileSystem(path string) error {
	magic, err := fileSystem(path)
	if err != nil {
		return err
	}
	return judge(path, magic)
}

func judge(path string, magic uint32) error {
	if name := network[magic]; name != "" {
		return &banger.Error{Kind: banger.ErrRefused, Op: "state directory", Subject: path, Err: fmt.Errorf("is on %s", name), Hint: anotherDisk}
	}
	return nil
}

func fileSystem(path string) (magic uint32, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("ask for the file system of %s: %w", path, err)
	}
	return uint32(st.Type), nil
}

// Warning is what a person should know of the file system that the state directory is on; nil when there is nothing.
func (d Dir) Warning() error {
	magic, err := fileSystem(d.Root)
	if err != nil {
		return err
	}
	if text := doubtful[magic]; text != "" {
		return &banger.Error{Op: "state directory", Subject: d.Root, Err: errors.New("is " + text), Hint: anotherDisk}
	}
	return nil
}
