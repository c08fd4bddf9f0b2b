package kernel

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ulikunitz/xz/lzma"

	"banger"
)

// The .xz format (https://tukaani.org/xz/xz-file-format.txt) as far as kernels and modules use it: one stream of one block,
// LZMA2, before it perhaps the filter for x86 machine code, which Go's package does not know.
const (
	xzStreamHeaderSize = 12
	xzMaxBlockHeader   = 1024
	xzFilterX86        = 0x04
	xzFilterLZMA2      = 0x21
	xzHasPackedSize    = 0x40
	xzHasUnpackedSize  = 0x80
	xzReservedFlags    = 0x3c
)

// openXZ reads the first block of a stream, which xz makes only one of unless it is told otherwise. Its checksum is left
// unread: a kernel's ELF is checked by size and headers, a module's by the kernel that loads it.
func openXZ(r io.Reader) (io.Reader, error) {
	var stream [xzStreamHeaderSize]byte
	if _, err := io.ReadFull(r, stream[:]); err != nil {
		return nil, err
	}
	var size [1]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	header := make([]byte, (int(size[0])+1)*4)
	header[0] = size[0]
	if _, err := io.ReadFull(r, header[1:]); err != nil {
		return nil, err
	}
	body := header[:len(header)-4]
	if size[0] == 0 || crc32.ChecksumIEEE(body) != le.Uint32(header[len(body):]) {
		return nil, errors.New("its block header is damaged")
	}
	x86, dict, err := parseXZFilters(body[1:])
	if err != nil {
		return nil, err
	}
	content, err := lzma.Reader2Config{DictCap: dict}.NewReader2(r)
	if err != nil {
		return nil, err
	}
	if x86 {
		return &x86Reader{r: content}, nil
	}
	return content, nil
}

// parseXZFilters reads a block header from its flags on.
func parseXZFilters(b []byte) (x86 bool, dict int, err error) {
	flags := b[0]
	p := xzFields{b: b[1:]}
	if flags&xzHasPackedSize != 0 {
		p.number()
	}
	if flags&xzHasUnpackedSize != 0 {
		p.number()
	}
	var ids []uint64
	for range flags&3 + 1 {
		id, size := p.number(), p.number()
		properties := p.take(size)
		ids = append(ids, id)
		if id == xzFilterLZMA2 && len(properties) == 1 {
			capacity, err := lzma.DecodeDictCap(properties[0])
			if err != nil {
				return false, 0, err
			}
			if dict, err = dictionary(capacity); err != nil {
				return false, 0, err
			}
		}
	}
	x86 = len(ids) == 2 && ids[0] == xzFilterX86
	switch {
	case p.short || flags&xzReservedFlags != 0:
		return false, 0, errors.New("its block header can't be read")
	case len(ids) > 1 && !x86 || ids[len(ids)-1] != xzFilterLZMA2 || dict == 0:
		return false, 0, fmt.Errorf("%w: filters %#x", banger.ErrUnsupported, ids)
	}
	return x86, dict, nil
}

// xzFields takes fields off a header; past its end they are zero and short is set.
type xzFields struct {
	b     []byte
	short bool
}

// number takes a number of 7 bits a byte, the lowest first.
func (f *xzFields) number() (n uint64) {
	for shift := 0; shift < 63; shift += 7 {
		b := f.take(1)
		if b == nil {
			return 0
		}
		n |= uint64(b[0]&0x7f) << shift
		if b[0]&0x80 == 0 {
			return n
		}
	}
	f.short = true
	return 0
}

func (f *xzFields) take(n uint64) []byte {
	if n > uint64(len(f.b)) {
		f.short, f.b = true, nil
		return nil
	}
	taken := f.b[:n]
	f.b = f.b[n:]
	return taken
}
