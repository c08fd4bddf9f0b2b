package initrd

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// The newc format (Documentation/driver-api/early-userspace/buffer-format.rst): a header of 13 hexadecimal numbers, the name with
// its NUL, the content; name and content are each padded to 4 bytes.
const (
	cpioMagic   = "070701"
	cpioTrailer = "TRAILER!!!"
	cpioAlign   = 4

	typeFile = 0o100000
	typeDir  = 0o040000
	typeChar = 0o020000
)

// cpioWriter writes members and keeps the first error. Owner is root, times are zero.
type cpioWriter struct {
	w     io.Writer
	inode uint32
	err   error
}

func (c *cpioWriter) dir(name string) { c.header(name, typeDir|0o755, 0, 0, 0) }

func (c *cpioWriter) charDevice(name string, perm, major, minor uint32) {
	c.header(name, typeChar|perm, 0, major, minor)
}

func (c *cpioWriter) file(name string, perm uint32, content Content) {
	if content.Size < 0 || content.Size > math.MaxUint32 {
		c.fail(fmt.Errorf("%s: %d bytes do not fit the format", name, content.Size))
	}
	c.header(name, typeFile|perm, uint32(content.Size), 0, 0)
	if c.err != nil {
		return
	}
	if _, err := io.CopyN(c.w, content.Reader, content.Size); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		c.fail(fmt.Errorf("%s: %w", name, err))
		return
	}
	if n, err := io.CopyN(io.Discard, content.Reader, 1); n > 0 || !errors.Is(err, io.EOF) {
		c.fail(fmt.Errorf("%s: longer than its %d bytes: %v", name, content.Size, err))
	}
	c.pad(content.Size)
}

// close writes the trailer.
func (c *cpioWriter) close() error {
	c.inode = math.MaxUint32 // the trailer has number 0
	c.header(cpioTrailer, 0, 0, 0, 0)
	return c.err
}

func (c *cpioWriter) header(name string, mode, size, major, minor uint32) {
	c.inode++
	header := cpioMagic
	for _, n := range [...]uint32{c.inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, uint32(len(name) + 1), 0} {
		header += fmt.Sprintf("%08x", n)
	}
	header += name + "\x00"
	c.write(header)
	c.pad(int64(len(header)))
}

func (c *cpioWriter) pad(written int64) {
	c.write(strings.Repeat("\x00", int(-written&(cpioAlign-1))))
}

func (c *cpioWriter) write(s string) {
	if c.err == nil {
		_, c.err = io.WriteString(c.w, s)
	}
}

func (c *cpioWriter) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}
