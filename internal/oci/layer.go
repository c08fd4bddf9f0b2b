package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"banger"
	"banger/internal/tree"
)

// layer is one layer of an image.
type layer struct {
	name   string // for errors: its digest
	limits tree.Limits
	diffID string                                           // sha256 of its tar, hexadecimal
	open   func(ctx context.Context) (io.ReadCloser, error) // as stored, packed or not
}

// source gives a layer's entries and then checks that its content has its digest.
func (l layer) source(ctx context.Context) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		stored, err := l.open(ctx)
		if err != nil {
			cancel()
			yield(tree.Entry{}, fmt.Errorf("open layer %s: %w", l.name, err))
			return
		}
		defer stored.Close()
		content, done := readAhead(func() (io.Reader, func() error, error) { return Unpack(stored) })
		defer done()
		defer cancel() // first: a server may have nothing to give
		sum := sha256.New()
		stream := io.TeeReader(content, sum)
		for e, err := range tree.FromLayer(stream, l.limits) {
			if err != nil {
				err = fmt.Errorf("layer %s: %w", l.name, err)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
		if err := sameDigest(stream, sum, l.diffID); err != nil {
			yield(tree.Entry{}, fmt.Errorf("layer %s: %w", l.name, err))
		}
	}
}

func sameDigest(rest io.Reader, sum hash.Hash, want string) error {
	if _, err := io.Copy(io.Discard, rest); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("%w: its content has digest sha256:%s, want sha256:%s", banger.ErrCorrupt, got, want)
	}
	return nil
}

const (
	chunkSize   = 256 << 10
	chunksAhead = 16
)

// chunk is a part of a stream, or its end.
type chunk struct {
	bytes []byte
	err   error
}

// aheadReader gives what another goroutine has read.
type aheadReader struct {
	chunks <-chan chunk
	free   chan<- []byte
	now    []byte // the buffer that is being read
	rest   []byte // of it
	err    error
}

// readAhead opens a stream and reads it in a goroutine of its own, a few chunks ahead of its reader. done ends that and closes the stream; it waits.
func readAhead(open func() (io.Reader, func() error, error)) (r io.Reader, done func()) {
	chunks, free, stop, ended := make(chan chunk, chunksAhead), make(chan []byte, chunksAhead), make(chan struct{}), make(chan struct{})
	for range chunksAhead {
		free <- nil
	}
	go func() {
		defer close(ended)
		defer close(chunks)
		stream, closer, err := open()
		if err != nil {
			chunks <- chunk{err: err}
			return
		}
		defer closer()
		for {
			var buffer []byte
			select {
			case buffer = <-free:
			case <-stop:
				return
			}
			if buffer == nil {
				buffer = make([]byte, chunkSize)
			}
			n, err := fill(stream, buffer[:chunkSize])
			select {
			case chunks <- chunk{buffer[:n], err}:
			case <-stop:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return &aheadReader{chunks: chunks, free: free}, func() { close(stop); <-ended }
}

// fill reads until p is full or the stream ends; the error is the stream's own.
func fill(stream io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = stream.Read(p[n:])
		n += more
	}
	return n, err
}

func (r *aheadReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if r.now != nil {
			r.free <- r.now
		}
		c := <-r.chunks
		r.now, r.rest, r.err = c.bytes, c.bytes, c.err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
