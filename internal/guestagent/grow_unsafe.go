package guestagent

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctlResizeFS is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64) (linux/ext4.h).
const ioctlResizeFS = 1<<30 | 8<<16 | 'f'<<8 | 16

// resizeExt4 grows the mounted ext4 file system that dir is in to so many blocks.
func resizeExt4(dir *os.File, blocks uint64) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), ioctlResizeFS, uintptr(unsafe.Pointer(&blocks))); errno != 0 {
		return fmt.Errorf("grow the file system to %d blocks: %w", blocks, errno)
	}
	return nil
}
