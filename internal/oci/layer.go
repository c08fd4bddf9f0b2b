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

// start opens a layer and unpacks it ahead of its reader. The caller closes what it gives.
func (l layer) start(ctx context.Context, spool string) *aheadReader {
	ctx, cancel := context.WithCancel(ctx)
	return readAhead(spool, cancel, func() (io.Reader, func(), error) {
		stored, err := l.open(ctx)
		if err != nil {
			return nil, nil, err
		}
		content, closer, err := Unpack(stored)
		if err != nil {
			stored.Close()
			return nil, nil, err
		}
		return content, func() { closer(); stored.Close() }, nil
	})
}

// entries gives a layer's entries and then checks that its content has its digest.
func (l layer) entries(content io.Reader, limits tree.Limits) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		sum := sha256.New()
		stream := io.TeeReader(content, sum)
		for e, err := range tree.FromLayer(stream, limits) {
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

// merged gives the entries of all layers, the lowest first. While one is read the next are unpacked.
func merged(ctx context.Context, layers []layer, opts Options) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		ahead := max(runtime.GOMAXPROCS(0)-1, 1)
		started := make([]*aheadReader, 0, len(layers))
		defer func() {
			for _, r := range started {
				r.close()
			}
		}()
		for i, l := range layers {
			for len(started) < min(i+1+ahead, len(layers)) {
				started = append(started, layers[len(started)].start(ctx, opts.Spool))
			}
			for e, err := range l.entries(started[i], opts.Limits) {
				if !yield(e, err) || err != nil {
					return
				}
			}
			started[i].close()
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
