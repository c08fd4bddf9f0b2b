package oci

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"

	"banger/internal/download"
)

// blobs is the cache of what registries gave, by digest. What is being downloaded is shared by all who want it, and read while it
// comes.
type blobs struct {
	dir string

	mu      sync.Mutex
	coming  map[string]*blob
	readers map[string]int // of each digest
	changed *sync.Cond     // a blob has grown or ended
}

func newBlobs(dir string) *blobs {
	b := &blobs{dir: dir, coming: map[string]*blob{}, readers: map[string]int{}}
	b.changed = sync.NewCond(&b.mu)
	return b
}

// blob is one download; its fields are under blobs.mu.
type blob struct {
	cancel  context.CancelFunc
	done    int64
	ended   bool
	err     error
	waiting int
}

// remoteBlob is a file of a registry.
type remoteBlob struct {
	digest string // sha256, hexadecimal
	size   int64  // bytes
	fetch  func(ctx context.Context, path string, report func(done int64)) error
}

func (b *blobs) path(digest string) string { return filepath.Join(b.dir, digest) }

// has tells whether all of a blob is here. Whether its content is right shows when it is read.
func (b *blobs) has(want remoteBlob) bool {
	info, err := os.Stat(b.path(want.digest))
	return err == nil && info.Mode().IsRegular() && info.Size() == want.size
}

// hasPart tells whether anything of a blob was here before this call.
func (b *blobs) hasPart(want remoteBlob) bool {
	_, err := os.Stat(b.path(want.digest) + download.Partial)
	return b.has(want) || err == nil
}

// drop removes a blob whose content is wrong.
func (b *blobs) drop(digest string) error {
	err := os.Remove(b.path(digest))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (b *blobs) run(ctx context.Context, d *blob, want remoteBlob) {
	defer d.cancel()
	err := want.fetch(ctx, b.path(want.digest), func(done int64) {
		b.mu.Lock()
		d.done = done
		b.changed.Broadcast()
		b.mu.Unlock()
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	d.ended, d.err = true, err
	delete(b.coming, want.digest)
	b.changed.Broadcast()
}

// reader reads a blob from its first byte on, as it comes.
type reader struct {
	b    *blobs
	ctx  context.Context // of who reads
	stop func() bool
	want remoteBlob
	file *os.File // once there is one
	at   int64

	d     *blob // under b.mu; nil for a blob that was here
	first bool  // whether the download is of our making
}

// open gives the content of a blob, whose digest has not been checked before the last byte is read: what is read can be wrong.
// Reads end with ctx. The caller closes it.
func (b *blobs) open(ctx context.Context, want remoteBlob) *reader {
	r := &reader{b: b, ctx: ctx, want: want}
	r.stop = context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.changed.Broadcast()
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.readers[want.digest]++
	r.join()
	return r
}

// join takes part in the download of a blob that is not here, and starts it when nobody has. It holds the lock.
func (r *reader) join() {
	b := r.b
	r.d = b.coming[r.want.digest]
	if r.first = false; r.d == nil {
		if b.has(r.want) { // opened now, for the cache may be emptied at any time
			if r.file, _ = os.Open(b.path(r.want.digest)); r.file != nil {
				return
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		r.d, r.first = &blob{cancel: cancel}, true
		b.coming[r.want.digest] = r.d
		go b.run(ctx, r.d, r.want)
	}
	r.d.waiting++
}

// leave ends a download that nobody else waits for, and waits for its end: another may begin then. It holds the lock.
func (r *reader) leave() {
	d := r.d
	if r.d = nil; d == nil {
		return
	}
	if d.waiting--; d.waiting > 0 {
		return
	}
	if d.done < r.want.size { // else all has come, and has only to be given its name
		d.cancel()
	}
	for !d.ended {
		r.b.changed.Wait()
	}
}

// Close ends the download unless others wait for it. What has come stays.
func (r *reader) Close() error {
	r.stop()
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	r.leave()
	if r.b.readers[r.want.digest]--; r.b.readers[r.want.digest] <= 0 {
		delete(r.b.readers, r.want.digest)
	}
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// await waits until more than at bytes are here and gives how many. When a download that another asked for fails, we ask ourselves.
func (r *reader) await(at int64) (int64, error) {
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	for {
		for r.d != nil && r.d.done <= at && !r.d.ended && r.ctx.Err() == nil {
			r.b.changed.Wait()
		}
		switch {
		case r.ctx.Err() != nil:
			return 0, r.ctx.Err()
		case r.d == nil, r.d.ended && r.d.err == nil:
			return r.want.size, nil
		case !r.d.ended:
			return r.d.done, nil
		case r.first:
			return 0, r.d.err
		}
		r.leave()
		if r.file != nil {
			r.file.Close()
			r.file = nil
		}
		r.join()
	}
}

// all waits until the whole blob is here.
func (r *reader) all() error {
	for at := int64(0); at < r.want.size; {
		n, err := r.await(at)
		if err != nil {
			return err
		}
		at = n
	}
	return nil
}

func (r *reader) Read(p []byte) (int, error) {
	for r.at < r.want.size {
		have, err := r.await(r.at)
		if err != nil {
			return 0, err
		}
		if r.file == nil {
			if r.file, err = r.b.openFile(r.want.digest); err != nil {
				return 0, err
			}
		}
		n, err := r.file.ReadAt(p[:min(int64(len(p)), have-r.at)], r.at)
		r.at += int64(n)
		switch {
		case n > 0:
			return n, nil
		case err != nil && !errors.Is(err, io.EOF):
			return 0, err
		case r.whole():
			return 0, io.ErrUnexpectedEOF
		} // else the download has just begun anew
	}
	return 0, io.EOF
}

func (r *reader) whole() bool {
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	return r.d == nil || r.d.ended
}

// openFile opens a blob or the part of it that is here.
func (b *blobs) openFile(digest string) (*os.File, error) {
	f, err := os.Open(b.path(digest) + download.Partial)
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.Open(b.path(digest))
	}
	return f, err
}
