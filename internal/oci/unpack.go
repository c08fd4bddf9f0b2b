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
