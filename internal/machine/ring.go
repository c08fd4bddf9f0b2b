package machine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"banger"
)

// A ring file is a header and ringSize bytes of data; byte n of all that was ever written is at n modulo ringSize.
const (
	ringMagic    = "bngrrng1"
	offWritten   = 8 // 64 bits, little endian: bytes ever written
	ringHeader   = 16
	ringSize     = 1 << 20
	maxRingWrite = 32 << 10 // one step: so many of the oldest bytes may be half overwritten and are not read
)

// Ring keeps the newest part of what is written to it in a file, through restarts of the process that writes. It is safe
// for concurrent use.
type Ring struct {
	f       *os.File
	writing sync.Mutex // taken before mu
	changed sync.Cond

	mu      sync.Mutex
	written uint64
	closed  bool
}

// OpenRing opens the ring at path for writing, and makes it (0600) when there is none or its content is damaged.
func OpenRing(path string) (*Ring, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open console ring: %w", err)
	}
	r := &Ring{f: f}
	r.changed.L = &r.mu
	if r.written, err = readWritten(f); errors.Is(err, banger.ErrCorrupt) {
		err = format(f)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open console ring: %w", err)
	}
	return r, nil
}

func format(f *os.File) error {
	header := make([]byte, ringHeader)
	copy(header, ringMagic)
	if err := f.Truncate(0); err != nil {
		return err
	}
	if err := f.Truncate(ringHeader + ringSize); err != nil {
		return err
	}
	_, err := f.WriteAt(header, 0)
	return err
}

// readWritten reads the header.
func readWritten(f io.ReaderAt) (uint64, error) {
	var header [ringHeader]byte
	_, err := f.ReadAt(header[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if err != nil || string(header[:offWritten]) != ringMagic {
		return 0, fmt.Errorf("%w: console ring has no header", banger.ErrCorrupt)
	}
	return binary.LittleEndian.Uint64(header[offWritten:]), nil
}

// Write appends p.
func (r *Ring) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		step := p[n:min(len(p), n+maxRingWrite)]
		if err = r.write(step); err == nil {
			n += len(step)
		}
	}
	return n, err
}

func (r *Ring) write(p []byte) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	written := r.Written()
	offset := written % ringSize
	first := min(uint64(len(p)), ringSize-offset)
	if _, err := r.f.WriteAt(p[:first], ringHeader+int64(offset)); err != nil {
		return err
	}
	if _, err := r.f.WriteAt(p[first:], ringHeader); err != nil {
		return err
	}
	written += uint64(len(p))
	if _, err := r.f.WriteAt(binary.LittleEndian.AppendUint64(nil, written), offWritten); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written = written
	r.changed.Broadcast()
	return nil
}

// Written is how many bytes were ever written.
func (r *Ring) Written() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.written
}

// Close ends Follow when all is copied. The content stays.
func (r *Ring) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.changed.Broadcast()
}

// Start is where a request begins: what it asks for may not be there any more.
func (r *Ring) Start(req ConsoleRequest) (uint64, error) { return start(r.f, r.Written(), req) }

// Copy writes what the ring holds from position from on to w.
func (r *Ring) Copy(from uint64, w io.Writer) error {
	end := r.Written()
	return copyRing(w, r.f, from, func(pos uint64) (uint64, bool) { return r.Written(), pos < end })
}

// Follow writes what the ring holds from position from on to w, and then what comes, until Close or the end of ctx. A reader that
// is too slow misses what has been overwritten.
func (r *Ring) Follow(ctx context.Context, from uint64, w io.Writer) error {
	defer context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.changed.Broadcast()
	})()
	return copyRing(w, r.f, from, func(pos uint64) (uint64, bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for pos >= r.written && !r.closed && ctx.Err() == nil {
			r.changed.Wait()
		}
		return r.written, pos < r.written && ctx.Err() == nil
	})
}

// Tail is the end of what was written since the ring had so many bytes, at most limit bytes.
func (r *Ring) Tail(since uint64, limit int) ([]byte, error) {
	end := r.Written()
	if end-min(since, end) > uint64(limit) {
		since = end - uint64(limit)
	}
	tail := &limited{limit: limit}
	err := copyRing(tail, r.f, since, func(pos uint64) (uint64, bool) { return r.Written(), pos < end })
	return tail.buf, err
}

// copyRing copies from position pos on. more is asked before each step: how much has been written by now, and whether to
// go on. It may be asked again without a step between.
func copyRing(w io.Writer, f io.ReaderAt, pos uint64, more func(pos uint64) (written uint64, goOn bool)) error {
	buf := make([]byte, maxRingWrite)
	for {
		written, goOn := more(pos)
		if !goOn {
			return nil
		}
		pos = max(pos, oldest(written))
		offset := pos % ringSize
		n := min(uint64(len(buf)), written-pos, ringSize-offset)
		if _, err := f.ReadAt(buf[:n], ringHeader+int64(offset)); err != nil {
			return fmt.Errorf("read console ring: %w", err)
		}
		if written, _ = more(pos); oldest(written) > pos {
			continue // overwritten meanwhile
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		pos += n
	}
}

// oldest is the first position that can be read without a doubt.
func oldest(written uint64) uint64 {
	if written <= ringSize-maxRingWrite {
		return 0
	}
	return written - (ringSize - maxRingWrite)
}

type limited struct {
	buf   []byte
	limit int
}

func (l *limited) Write(p []byte) (int, error) {
	l.buf = append(l.buf, p...)
	if excess := len(l.buf) - l.limit; excess > 0 {
		l.buf = append(l.buf[:0], l.buf[excess:]...)
	}
	return len(p), nil
}
