package oci

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"banger"
	"banger/internal/tree"
)

// maxZstdWindow bounds what a decoder remembers of its output.
const maxZstdWindow = 128 << 20

// Unpack gives the content of a stream that may be compressed. Errors of its reads: ErrCorrupt, or those of r.
func Unpack(r io.Reader) (*bufio.Reader, func() error, error) {
	const bufferSize = 128 << 10
	packed := &errorKeeper{r: r}
	in := bufio.NewReaderSize(packed, bufferSize)
	head, err := in.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	closer := func() error { return nil }
	var content io.Reader
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		content, err = gzip.NewReader(in)
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		var z *zstd.Decoder
		z, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
		content, closer = z, func() error { z.Close(); return nil }
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		content, err = xz.NewReader(in)
	case bytes.HasPrefix(head, []byte("BZh")):
		content = bzip2.NewReader(in)
	default:
		return in, closer, nil
	}
	decoded := &decoder{content, packed}
	if err != nil {
		return nil, nil, decoded.kind(err)
	}
	return bufio.NewReaderSize(decoded, bufferSize), closer, nil
}

// entryOverhead is more than what a tar has for an entry beside its content, but for extended headers.
const entryOverhead = 8 << 10

// Bounded ends a tar that has more bytes than limits let it have, also behind its last entry: few bytes can unpack to any number.
func Bounded(r io.Reader, limits tree.Limits) io.Reader {
	most := limits.Bytes + int64(min(limits.Entries, 1<<30))*entryOverhead
	if limits.Bytes <= 0 || limits.Entries <= 0 || most < 0 {
		return r // no limit
	}
	return &boundedReader{r: r, most: most, left: most}
}

type boundedReader struct {
	r          io.Reader
	most, left int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, &banger.Error{Kind: banger.ErrInvalid, Err: fmt.Errorf("it unpacks to more than %s", banger.FormatSize(b.most)), Hint: "if that is meant: images.max_bytes in the configuration"}
	}
	return n, err
}

// errorKeeper remembers why a stream ended.
type errorKeeper struct {
	r   io.Reader
	err error
}

func (k *errorKeeper) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	if err != nil {
		k.err = err
	}
	return n, err
}

// decoder tells errors of the packed stream from errors in it.
type decoder struct {
	r      io.Reader
	packed *errorKeeper
}

func (d *decoder) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = d.kind(err)
	}
	return n, err
}

func (d *decoder) kind(err error) error {
	if d.packed.err != nil && !errors.Is(d.packed.err, io.EOF) {
		return d.packed.err
	}
	return fmt.Errorf("%w: the compressed data: %w", banger.ErrCorrupt, err)
}
