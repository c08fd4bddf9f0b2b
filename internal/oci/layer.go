package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"runtime"

	"banger"
	"banger/internal/tree"
)

// layer is one layer of an image.
type layer struct {
	name   string                                           // for errors: its digest
	diffID string                                           // sha256 of its tar, hexadecimal
	open   func(ctx context.Context) (io.ReadCloser, error) // as stored, packed or not
}

// unpacking is a layer that is unpacked and hashed ahead of its reader.
type unpacking struct {
	layer
	*aheadReader
	sum hash.Hash // of the content, complete at its end
}

// start begins to unpack. The caller closes what it gives.
func (l layer) start(ctx context.Context, opts Options) unpacking {
	ctx, cancel := context.WithCancel(ctx)
	sum := sha256.New()
	return unpacking{l, readAhead(opts.Spool, cancel, func() (io.Reader, func(), error) {
		stored, err := l.open(ctx)
		if err != nil {
			return nil, nil, err
		}
		content, closer, err := Unpack(stored)
		if err != nil {
			stored.Close()
			return nil, nil, err
		}
		return io.TeeReader(Bounded(content, opts.Limits), sum), func() { closer(); stored.Close() }, nil
	}), sum}
}

// entries gives a layer's entries and then checks that its content has its digest.
func (u unpacking) entries(limits tree.Limits) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		for e, err := range tree.FromLayer(u, limits) {
			if err != nil {
				err = fmt.Errorf("layer %s: %w", u.name, err)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
		if err := u.check(); err != nil {
			yield(tree.Entry{}, fmt.Errorf("layer %s: %w", u.name, err))
		}
	}
}

// check reads what is left and compares digests.
func (u unpacking) check() error {
	if _, err := io.Copy(io.Discard, u); err != nil {
		return err
	}
	if got := hex.EncodeToString(u.sum.Sum(nil)); got != u.diffID {
		return fmt.Errorf("%w: its content has digest sha256:%s, want sha256:%s", banger.ErrCorrupt, got, u.diffID)
	}
	return nil
}

// merged gives the entries of all layers, the lowest first. While one is read the next are unpacked, as many as there are processors: one
// less leaves some idle when the last layer's turn comes.
func merged(ctx context.Context, layers []layer, opts Options) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		ahead := runtime.GOMAXPROCS(0)
		started := make([]unpacking, 0, len(layers))
		defer func() {
			for _, r := range started {
				r.close()
			}
		}()
		for i := range layers {
			for len(started) < min(i+1+ahead, len(layers)) {
				started = append(started, layers[len(started)].start(ctx, opts))
			}
			for e, err := range started[i].entries(opts.Limits) {
				if !yield(e, err) || err != nil {
					return
				}
			}
			started[i].close()
		}
	}
}
