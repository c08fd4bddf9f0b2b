package channel

import (
	"errors"
	"math"
	"net"
	"sync"
	"time"
)

const (
	maxBuffered  = 256 << 20 // a peer that asks and never reads ends its own connection
	keepBuffer   = 4 << 20   // larger buffers are given back when empty
	flushTimeout = 5 * time.Second
)

// NeverRekey is the RekeyThreshold of SSH's both ends on this channel. By itself x/crypto/ssh begins a new key exchange after a gigabyte
// with ChaCha20, 64 with AES, and holds back what is written until the peer's answer has been read. Its reading goroutine may be among those that
// wait, and then the connection stands still for good. Neither cipher needs new keys before the packets' numbers run out, at 2³² (x/crypto/ssh
// always begins at 2³¹: with packets of 1 KiB that is 2 TiB).
// A client that asks for new keys, as OpenSSH does, gets them: then the answer need not be read first.
const NeverRekey = math.MaxInt64

var errBufferFull = errors.New("the peer reads too slowly: write buffer full")

// Buffer gives conn writes that never block: they go into a buffer that one goroutine flushes. x/crypto's ssh needs that
// over a stream with a window: the goroutine that reads also writes, so that two ends with full windows wait for each
// other for good. Errors of conn show at a later Write. Close returns at once; what was written before is still
// sent for a few seconds.
func Buffer(conn net.Conn) net.Conn {
	return newBuffer(conn, maxBuffered)
}

func newBuffer(conn net.Conn, limit int) *bufferedConn {
	b := &bufferedConn{Conn: conn, limit: limit}
	b.wake.L = &b.mu
	go b.flush()
	return b
}

type bufferedConn struct {
	net.Conn
	limit int

	mu      sync.Mutex
	wake    sync.Cond
	pending []byte
	sending int // bytes that the flusher has taken
	closing bool
	err     error
}

func (b *bufferedConn) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.err != nil:
		return 0, b.err
	case b.closing:
		return 0, net.ErrClosed
	case b.sending+len(b.pending)+len(p) > b.limit:
		b.err = errBufferFull
		b.wake.Signal()
		b.Conn.Close()
		return 0, b.err
	}
	b.pending = append(b.pending, p...)
	b.wake.Signal()
	return len(p), nil
}

// Close ends reading at once and writing when the buffer is empty.
func (b *bufferedConn) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return net.ErrClosed
	}
	b.closing = true
	b.wake.Signal()
	b.Conn.SetReadDeadline(longAgo)
	b.Conn.SetWriteDeadline(time.Now().Add(flushTimeout))
	return nil
}

func (b *bufferedConn) flush() {
	defer b.Conn.Close()
	var buf []byte
	for {
		buf = b.next(buf)
		if len(buf) == 0 {
			return
		}
		if _, err := b.Conn.Write(buf); err != nil {
			b.mu.Lock()
			b.err = err
			b.pending = nil
			b.mu.Unlock()
			return
		}
	}
}

// next waits for bytes and swaps them for the buffer that was sent; empty means the end.
func (b *bufferedConn) next(sent []byte) []byte {
	if cap(sent) > keepBuffer {
		sent = nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sending = 0
	for len(b.pending) == 0 && !b.closing && b.err == nil {
		b.wake.Wait()
	}
	if b.err != nil {
		return nil
	}
	full := b.pending
	b.pending, b.sending = sent[:0], len(full)
	return full
}
