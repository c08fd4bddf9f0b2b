package guestagent

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// Where ext4's superblock lies and what of it tells the size of the file system (https://docs.kernel.org/filesystems/ext4/).
const (
	superOffset   = 1024
	superSize     = 1024
	superBlocksLo = 0x4
	superLogBlock = 0x18 // of 1024 bytes
	superMagic    = 0x38
	superIncompat = 0x60
	superBlocksHi = 0x150

	ext4Magic       = 0xEF53
	incompat64Bit   = 0x80
	maxLogBlockSize = 6
)

// growDisk makes the mounted file system of a device as large as the device: the host has made that larger. It tells whether it did.
func growDisk(device, mounted string) (grown bool, err error) {
	file, err := os.Open(device)
	if err != nil {
		return false, err
	}
	defer file.Close()
	bytes, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	super := make([]byte, superSize)
	if _, err := file.ReadAt(super, superOffset); err != nil {
		return false, err
	}
	now, fits, err := blocksOf(super, uint64(bytes))
	if err != nil || fits <= now {
		return false, err
	}
	dir, err := os.Open(mounted)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	return true, resizeExt4(dir, fits)
}

// blocksOf gives how many blocks a file system has, and how many fit into bytes.
func blocksOf(super []byte, bytes uint64) (now, fits uint64, err error) {
	le := binary.LittleEndian
	log := le.Uint32(super[superLogBlock:])
	if magic := le.Uint16(super[superMagic:]); magic != ext4Magic || log > maxLogBlockSize {
		return 0, 0, fmt.Errorf("no ext4 file system: magic %#x, block size 1024<<%d", magic, log)
	}
	now = uint64(le.Uint32(super[superBlocksLo:]))
	if le.Uint32(super[superIncompat:])&incompat64Bit != 0 {
		now |= uint64(le.Uint32(super[superBlocksHi:])) << 32
	}
	return now, bytes / (1024 << log), nil
}
