package kernel

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"

	"banger"
)

// maxWindow bounds what a decoder remembers of its output. Kernels are packed with up to 128 MiB (zstd --ultra -22).
const maxWindow = 128 << 20

// formats are the compressions of kernels and modules by the bytes that they begin with.
var formats = []struct {
	name, magic string
	open        func(io.Reader) (io.ReadCloser, error)
}{
	{"gzip", "\x1f\x8b\x08", openGzip},
	{"xz", "\xfd7zXZ\x00", func(r io.Reader) (io.ReadCloser, error) { return plain(openXZ(r)) }},
	{"zstd", "\x28\xb5\x2f\xfd", openZstd},
	{"lz4", "\x02\x21\x4c\x18", func(r io.Reader) (io.ReadCloser, error) { return plain(lz4.NewReader(r), nil) }},
	{"lz4", "\x04\x22\x4d\x18", func(r io.Reader) (io.ReadCloser, error) { return plain(lz4.NewReader(r), nil) }},
	{"bzip2", "BZh", func(r io.Reader) (io.ReadCloser, error) { return plain(bzip2.NewReader(r), nil) }},
	{"lzma", "\x5d\x00\x00", openLZMA},
}

// decompress gives the content of r, packed or not; of packed ones, the first stream or more.
// Errors: ErrUnsupported, and ErrCorrupt from its reads too.
func decompress(r io.Reader) (io.ReadCloser, error) {
	packed := bufio.NewReaderSize(r, 64<<10)
	head, err := packed.Peek(8)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if bytes.HasPrefix(head, []byte(elfMagic)) {
		return io.NopCloser(packed), nil
	}
	for _, f := range formats {
		if !bytes.HasPrefix(head, []byte(f.magic)) {
			continue
		}
		content, err := f.open(packed)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", kindOf(err), f.name, err)
		}
		return &unpacker{content, f.name}, nil
	}
	return nil, fmt.Errorf("%w: unknown compression (begins with % x)", banger.ErrUnsupported, head)
}

// unpacker names the format in the errors of its reads.
type unpacker struct {
	io.ReadCloser
	format string
}

func (u *unpacker) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %s: %w", kindOf(err), u.format, err)
	}
	return n, err
}

func kindOf(err error) error {
	if errors.Is(err, banger.ErrUnsupported) {
		return banger.ErrUnsupported
	}
	return banger.ErrCorrupt
}

func plain(r io.Reader, err error) (io.ReadCloser, error) { return io.NopCloser(r), err }

func openGzip(r io.Reader) (io.ReadCloser, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return z, nil
}

func openZstd(r io.Reader) (io.ReadCloser, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

func openLZMA(r io.Reader) (io.ReadCloser, error) {
	const headerSize = 13 // properties, dictionary size, unpacked size
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	if _, err := dictionary(int64(le.Uint32(header[1:]))); err != nil {
		return nil, err
	}
	return plain(lzma.NewReader(io.MultiReader(bytes.NewReader(header), r)))
}

// dictionary checks the size of an LZMA dictionary, which is allocated at once.
func dictionary(size int64) (int, error) {
	if size > maxWindow {
		return 0, fmt.Errorf("%w: a dictionary of %s", banger.ErrUnsupported, banger.FormatSize(size))
	}
	return max(int(size), lzma.MinDictCap), nil
}
