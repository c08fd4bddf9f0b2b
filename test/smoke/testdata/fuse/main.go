// Command fuse mounts a file system with one file and reads that through the kernel: the smallest use of FUSE there is
// (Documentation/filesystems/fuse.rst, include/uapi/linux/fuse.h).
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
)

const (
	opLookup, opForget, opGetattr, opOpen, opRead, opInit = 1, 2, 3, 14, 15, 26

	content = "through FUSE\n"
	file    = 2 // its inode; the root has 1
)

var le = binary.LittleEndian

func main() {
	if err := run("/tmp/fuse"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func run(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	dev, err := syscall.Open("/dev/fuse", syscall.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open /dev/fuse: %w", err)
	}
	if err := syscall.Mount("test", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev)); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	go serve(dev)
	text, err := read(dir + "/hello")
	if err == nil && text != content {
		err = fmt.Errorf("read %q", text)
	}
	fmt.Print(text)
	return err
}

// read does without package os: that asks the kernel to poll the file in a way that keeps serve from answering on one processor.
func read(path string) (string, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer syscall.Close(fd)
	text := make([]byte, 100)
	n, err := syscall.Read(fd, text)
	return string(text[:max(n, 0)]), err
}

func serve(dev int) {
	request := make([]byte, 1<<20)
	for {
		n, err := syscall.Read(dev, request)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n < 40 {
			return
		}
		if op := le.Uint32(request[4:]); op != opForget {
			syscall.Write(dev, reply(op, le.Uint64(request[8:]), le.Uint64(request[16:]), request[40:n]))
		}
	}
}

// reply is the answer's header and body.
func reply(op uint32, unique, node uint64, in []byte) []byte {
	body, errno := answer(op, node, in)
	out := make([]byte, 16, 16+len(body))
	le.PutUint32(out, uint32(16+len(body)))
	le.PutUint32(out[4:], uint32(-int32(errno)))
	le.PutUint64(out[8:], unique)
	return append(out, body...)
}

func answer(op uint32, node uint64, in []byte) ([]byte, syscall.Errno) {
	switch op {
	case opInit:
		out := make([]byte, 64) // the form of protocol 7.23 and later
		le.PutUint32(out, 7)
		le.PutUint32(out[4:], 31)
		le.PutUint32(out[20:], 4096)
		return out, 0
	case opLookup:
		if string(in[:len(in)-1]) != "hello" {
			return nil, syscall.ENOENT
		}
		out := make([]byte, 40)
		le.PutUint64(out, file)
		return append(out, attributes(file)...), 0
	case opGetattr:
		return append(make([]byte, 16), attributes(node)...), 0
	case opOpen:
		return make([]byte, 16), 0
	case opRead:
		offset := min(le.Uint64(in[8:]), uint64(len(content)))
		return []byte(content[offset:]), 0
	}
	return nil, syscall.ENOSYS
}

func attributes(node uint64) []byte {
	out := make([]byte, 88)
	le.PutUint64(out, node)
	mode, size := uint32(syscall.S_IFREG|0o444), uint64(len(content))
	if node == 1 {
		mode, size = syscall.S_IFDIR|0o555, 0
	}
	le.PutUint64(out[8:], size)
	le.PutUint32(out[60:], mode)
	le.PutUint32(out[64:], 1)
	return out
}
