package channel

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"banger"
)

// A hello frame is helloSize bytes: magic, kind, protocol version and nonce, big endian. The layout never changes, so
// that any two versions can name each other. The magic's first byte is no version of yamux: a session that still
// believes in its old peer ends at once when it reads one.
const (
	helloMagic = "\xb4banger"
	offKind    = len(helloMagic)
	offVersion = offKind + 1
	offNonce   = offVersion + 4
	helloSize  = offNonce + 8
)

// Kinds of hello frames, in the order of the conversation. The host repeats kindHello with a fresh nonce until the guest
// answers one of them; bytes of an earlier session that are still on the way match no nonce. After kindWelcome yamux
// begins in both directions.
const (
	kindHello   = 'H' // host: my version
	kindAnswer  = 'A' // guest: my version, your nonce
	kindGo      = 'G' // host: the nonce that counts; no hello follows
	kindWelcome = 'W' // guest: what follows is yamux
)

// readAhead is as much as yamux reads ahead itself, in bytes: larger reads then go past both buffers.
const readAhead = 4 << 10

const (
	helloInterval    = 100 * time.Millisecond // between the first attempts
	helloIntervalMax = 2 * time.Second
	welcomePatience  = 2 * time.Second // for the first welcome: a guest that answers reads what follows; it doubles
	fillerAttempt    = 5               // by then a guest that lives and has read everything would have answered
)

type helloFrame struct {
	Kind    byte
	Version uint32
	Nonce   uint64
}

func (f helloFrame) encode() []byte {
	b := make([]byte, helloSize)
	copy(b, helloMagic)
	b[offKind] = f.Kind
	binary.BigEndian.PutUint32(b[offVersion:], f.Version)
	binary.BigEndian.PutUint64(b[offNonce:], f.Nonce)
	return b
}

// helloReader finds hello frames among other bytes, also where a frame that was cut short runs into the next.
type helloReader struct {
	r      io.ByteReader
	window [helloSize]byte
}

func (h *helloReader) next() (helloFrame, error) {
	for {
		b, err := h.r.ReadByte()
		if err != nil {
			return helloFrame{}, err
		}
		w := h.window[:]
		copy(w, w[1:])
		w[helloSize-1] = b
		if string(w[:offKind]) == helloMagic {
			return helloFrame{w[offKind], binary.BigEndian.Uint32(w[offVersion:]), binary.BigEndian.Uint64(w[offNonce:])}, nil
		}
	}
}

// VersionError says that host and guest speak different versions of the channel's protocol. Its kind is ErrUnsupported.
type VersionError struct{ Host, Guest uint32 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("the host speaks version %d of the guest channel, the guest version %d", e.Host, e.Guest)
}

func (e *VersionError) Is(target error) bool { return target == banger.ErrUnsupported }

// Host greets the guest on the other end of rwc until it answers, however long it takes to boot, and begins the session.
// It owns rwc: an error or the end of ctx closes it. Errors: [VersionError].
func Host(ctx context.Context, rwc io.ReadWriteCloser) (*Session, error) {
	stop := context.AfterFunc(ctx, func() { rwc.Close() })
	r := bufio.NewReaderSize(rwc, readAhead)
	err := hostHello(r, rwc)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		rwc.Close()
		return nil, fmt.Errorf("greet guest: %w", err)
	}
	return newSession(r, rwc, true)
}

func hostHello(r io.ByteReader, w io.Writer) error {
	var first [8]byte
	rand.Read(first[:])
	c := hostGreeter{w: w, first: binary.BigEndian.Uint64(first[:]), interval: helloInterval, patience: welcomePatience}
	c.mu.Lock()
	c.timer = time.AfterFunc(0, c.attempt)
	c.mu.Unlock()
	err := c.read(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer.Stop()
	c.done = true
	if c.err != nil {
		return c.err
	}
	return err
}

// hostGreeter is the host's half of the hello: a timer writes attempts while read looks for answers.
type hostGreeter struct {
	w io.Writer

	mu       sync.Mutex
	timer    *time.Timer
	interval time.Duration
	first    uint64 // nonce of attempt 0; each attempt takes the next
	attempts uint64
	going    bool          // kindGo was written last: no hello may follow before patience has ended
	goNonce  uint64        // of that kindGo
	patience time.Duration // with the guest's welcome
	done     bool
	err      error // of a write
}

// attempt writes the next hello. A guest that missed the end of an earlier session, because the host came back too fast,
// may still wait for the rest of one of its frames: one attempt is preceded by enough bytes to end any frame.
func (c *hostGreeter) attempt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done || c.err != nil {
		return
	}
	b := helloFrame{kindHello, ProtocolVersion, c.first + c.attempts}.encode()
	c.attempts++
	c.going = false
	if c.attempts == fillerAttempt {
		b = append(filler(), b...)
	}
	_, c.err = c.w.Write(b)
	c.timer.Reset(c.interval)
	c.interval = min(c.interval*5/4, helloIntervalMax)
}

func filler() []byte {
	b := make([]byte, maxFrame+yamuxHeader)
	for i := range b {
		b[i] = 0xff
	}
	return b
}

// read handles answers until the guest's welcome. Bytes after it stay in r.
func (c *hostGreeter) read(r io.ByteReader) error {
	for frames := (&helloReader{r: r}); ; {
		f, err := frames.next()
		if err != nil {
			return err
		}
		welcome, err := c.answer(f)
		if welcome || err != nil {
			return err
		}
	}
}

func (c *hostGreeter) answer(f helloFrame) (welcome bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ours := f.Nonce-c.first < c.attempts
	switch {
	case !ours:
		return false, nil
	case f.Version != ProtocolVersion:
		return false, &VersionError{Host: ProtocolVersion, Guest: f.Version}
	case f.Kind == kindWelcome && c.going && f.Nonce == c.goNonce:
		return true, nil
	case f.Kind == kindAnswer && !c.going:
		c.going, c.goNonce = true, f.Nonce
		c.timer.Reset(c.patience)
		c.patience *= 2
		_, err = c.w.Write(helloFrame{kindGo, ProtocolVersion, f.Nonce}.encode())
	}
	return false, err
}

// Guest waits for the host's hello on rwc and begins the session. It owns rwc: an error closes it.
// Errors: [VersionError], when the host has been told the guest's version and speaks another.
func Guest(rwc io.ReadWriteCloser) (*Session, error) {
	r := bufio.NewReaderSize(rwc, readAhead)
	if err := guestHello(r, rwc); err != nil {
		rwc.Close()
		return nil, fmt.Errorf("greet host: %w", err)
	}
	return newSession(r, rwc, false)
}

func guestHello(r io.ByteReader, w io.Writer) error {
	answered := map[uint64]bool{}
	for frames := (&helloReader{r: r}); ; {
		f, err := frames.next()
		if err != nil {
			return err
		}
		switch {
		case f.Kind == kindHello:
			if _, err := w.Write(helloFrame{kindAnswer, ProtocolVersion, f.Nonce}.encode()); err != nil {
				return err
			}
			if f.Version != ProtocolVersion {
				return &VersionError{Host: f.Version, Guest: ProtocolVersion}
			}
			answered[f.Nonce] = true
		case f.Kind == kindGo && answered[f.Nonce]:
			_, err := w.Write(helloFrame{kindWelcome, ProtocolVersion, f.Nonce}.encode())
			return err
		}
	}
}
