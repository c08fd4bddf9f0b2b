package guestagent

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const maxEntropy = 512

// poolInfo is struct rand_pool_info of linux/random.h.
type poolInfo struct {
	bits, size int32
	buf        [maxEntropy]byte
}

// addEntropy credits bytes of the host to the kernel's generator and makes it use them now: a restored or forked guest
// must not repeat the numbers of another.
func addEntropy(seed []byte) error {
	if len(seed) == 0 {
		return nil
	}
	fd, err := unix.Open("/dev/urandom", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var info poolInfo
	n := copy(info.buf[:], seed)
	info.bits, info.size = int32(n*8), int32(n)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info))); errno != 0 {
		return fmt.Errorf("add: %w", errno)
	}
	return unix.IoctlSetInt(fd, unix.RNDRESEEDCRNG, 0)
}
