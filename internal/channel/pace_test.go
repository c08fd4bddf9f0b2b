package channel

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// link is one direction of a byte stream whose reader gets its turn late, and then a part of what there is.
type link struct {
	chunks chan []byte
	pause  time.Duration // the longest before a chunk

	mu   sync.Mutex // held while reading
	rest []byte
	rnd  *rand.Rand
}

func newLink(seed uint64, pause time.Duration) *link {
	return &link{chunks: make(chan []byte, 64), pause: pause, rnd: rand.New(rand.NewPCG(seed, 0))}
}

// end is one end of two links. Another may take its place when it is closed.
type end struct {
	in, out *link
	closed  chan struct{}
	once    sync.Once
}

func newEnd(in, out *link) *end { return &end{in: in, out: out, closed: make(chan struct{})} }

func (e *end) Read(p []byte) (int, error) {
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	if len(e.in.rest) == 0 {
		select {
		case <-e.closed:
			return 0, net.ErrClosed
		case e.in.rest = <-e.in.chunks:
		}
		if e.in.pause > 0 {
			time.Sleep(time.Duration(e.in.rnd.Int64N(int64(e.in.pause))))
		}
	}
	n := copy(p, e.in.rest[:1+e.in.rnd.IntN(len(e.in.rest))])
	e.in.rest = e.in.rest[n:]
	return n, nil
}

func (e *end) Write(p []byte) (int, error) {
	select {
	case <-e.closed:
		return 0, net.ErrClosed
	case e.out.chunks <- bytes.Clone(p):
		return len(p), nil
	}
}

func (e *end) Close() error {
	e.once.Do(func() { close(e.closed) })
	return nil
}

// seeds are some, or the one that the environment names.
func seeds(t *testing.T, some int) []uint64 {
	if s := os.Getenv("BANGER_CHANNEL_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return []uint64{seed}
	}
	list := make([]uint64, some)
	for i := range list {
		list[i] = rand.Uint64()
	}
	return list
}

// However late each end gets its turn, when the host has begun its session the guest is in that session, too, and not waiting for a
// hello. The time of this test is not the clock's.
func TestHelloPace(t *testing.T) {
	for _, pause := range []time.Duration{0, 20 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, 3 * time.Second} {
		for _, seed := range seeds(t, 200) {
			synctest.Test(t, func(t *testing.T) {
				if err := meet(seed, pause); err != nil {
					t.Errorf("BANGER_CHANNEL_SEED=%d, pauses up to %v: %v", seed, pause, err)
				}
			})
		}
	}
}

// meet lets a host begin a session and send a frame, and wants the guest to get it.
func meet(seed uint64, pause time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	toGuest, toHost := newLink(seed, pause), newLink(seed+1, pause)
	frames := make(chan struct{})
	var guest sync.WaitGroup
	defer guest.Wait()
	defer cancel()
	guest.Go(func() {
		time.Sleep(time.Duration(rand.New(rand.NewPCG(seed, 2)).Int64N(int64(5 * time.Second)))) // it boots
		for ctx.Err() == nil {
			greetAndRead(ctx, newEnd(toGuest, toHost), frames)
		}
	})
	host := newEnd(toHost, toGuest)
	defer context.AfterFunc(ctx, func() { host.Close() })()
	if err := hostHello(bufio.NewReader(host), host); err != nil {
		return fmt.Errorf("the host was not answered: %w", err)
	}
	host.Write(ping)
	select {
	case <-frames:
		return nil
	case <-ctx.Done():
		return errors.New("the host is in a session of its own")
	}
}

var ping = []byte{yamuxVersion, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}

// greetAndRead is what a guest's agent does in one session, which begins with a frame of its own.
func greetAndRead(ctx context.Context, e *end, frames chan<- struct{}) {
	defer context.AfterFunc(ctx, func() { e.Close() })()
	e.Write([]byte{'\n'})
	r := bufio.NewReader(e)
	if guestHello(r, e) != nil {
		return
	}
	e.Write(ping)
	if _, err := io.ReadFull(&frameReader{r: r}, make([]byte, yamuxHeader)); err == nil {
		close(frames)
		<-ctx.Done()
	}
}

// Many streams at once carry what is written, in pieces of all sizes, whoever pauses.
func TestStreamsPace(t *testing.T) {
	const streams, size = 40, 3 * maxFrame
	for _, seed := range seeds(t, 3) {
		toGuest, toHost := newLink(seed, time.Millisecond), newLink(seed+1, time.Millisecond)
		h, g := greet(t, newEnd(toHost, toGuest), newEnd(toGuest, toHost))
		go g.Serve(onPort(7, echo))
		var moved sync.WaitGroup
		for n := range streams {
			moved.Go(func() {
				if err := exchangePieces(t.Context(), h, rand.New(rand.NewPCG(seed, uint64(n))), size); err != nil {
					t.Errorf("BANGER_CHANNEL_SEED=%d, stream %d: %v", seed, n, err)
				}
			})
		}
		stalled := time.AfterFunc(2*time.Minute, func() { h.Close() })
		moved.Wait()
		if !stalled.Stop() {
			t.Errorf("BANGER_CHANNEL_SEED=%d: stalled", seed)
		}
		h.Close()
		g.Close()
	}
}

// exchangePieces sends size bytes in pieces of all sizes to the guest's echo, reads them in others, and pauses now and then.
func exchangePieces(ctx context.Context, h *Session, rnd *rand.Rand, size int) error {
	conn, err := h.Open(ctx, 7)
	if err != nil {
		return err
	}
	defer conn.Close()
	writes, reads := rand.New(rand.NewPCG(rnd.Uint64(), 0)), rand.New(rand.NewPCG(rnd.Uint64(), 0))
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	go func() {
		for rest := data; len(rest) > 0; {
			n := min(len(rest), piece(writes))
			conn.Write(rest[:n])
			rest = rest[n:]
		}
		closeWrite(conn)
	}()
	var got []byte
	for buf := make([]byte, maxPiece); ; {
		n, err := conn.Read(buf[:piece(reads)])
		got = append(got, buf[:n]...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("%d bytes came back that are not the %d sent", len(got), len(data))
	}
	return nil
}

const maxPiece = 1 << 18

// piece is a size, one byte as likely as all of a window, now and then after a pause.
func piece(rnd *rand.Rand) int {
	if rnd.IntN(8) == 0 {
		time.Sleep(time.Duration(rnd.IntN(int(3 * time.Millisecond))))
	}
	return 1 + rnd.IntN(1<<(6+rnd.IntN(13)))
}
