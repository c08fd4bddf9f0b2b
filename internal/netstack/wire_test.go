package netstack

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"banger/internal/testenv"
)

func newTestWire(t *testing.T) (*wire, net.Conn) {
	t.Helper()
	far, near := testenv.SocketPair(t)
	w, err := newWire(near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	far.SetDeadline(time.Now().Add(patience))
	return w, far
}

// TestWireIsFull holds that a reader that comes late gets all in order: small and large frames, and more pieces than one call takes.
func TestWireIsFull(t *testing.T) {
	w, far := newTestWire(t)
	defer w.close()
	random := rand.New(rand.NewPCG(1, 2))
	var all []byte
	var frames []net.Buffers
	for _, pieces := range []int{1, 3, 2 * maxPieces} {
		for _, size := range []int{1, 70, smallWrite, 100 << 10} {
			for range 8 {
				var frame net.Buffers
				for range pieces {
					piece := make([]byte, max(1, size/pieces))
					for i := range piece {
						piece[i] = byte(random.Uint32())
					}
					frame, all = append(frame, piece), append(all, piece...)
				}
				frames = append(frames, frame)
			}
		}
	}
	written := make(chan error, 1)
	go func() {
		for _, frame := range frames {
			size := 0
			for _, piece := range frame {
				size += len(piece)
			}
			if err := w.write(frame, size); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	select {
	case err := <-written:
		t.Fatalf("%d bytes found room: %v", len(all), err)
	case <-time.After(50 * time.Millisecond):
	}
	got := make([]byte, len(all))
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, all) {
		t.Errorf("%d bytes arrive in another way: %v", len(all), err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}

// TestWireHangsUp holds that a reader and a writer that wait end with the wire, and leave no descriptor.
func TestWireHangsUp(t *testing.T) {
	before := descriptors(t)
	for range 20 {
		w, far := newTestWire(t)
		wrote := make(chan error, 1)
		go func() {
			for {
				if err := w.write(net.Buffers{make([]byte, smallWrite)}, smallWrite); err != nil {
					wrote <- err
					return
				}
			}
		}()
		go w.hangUp()
		if n, err := w.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("Read = %d, %v", n, err)
		}
		w.close()
		w.hangUp()
		if err := <-wrote; err == nil {
			t.Error("the writer goes on")
		}
		if err := w.write(net.Buffers{{1}}, 1); err == nil {
			t.Error("a closed wire is written")
		}
		far.Close()
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestSocketIsFull holds that a small write to a connection that takes no more waits and loses nothing.
func TestSocketIsFull(t *testing.T) {
	near, far := testenv.SocketPair(t)
	defer near.Close()
	far.SetDeadline(time.Now().Add(patience))
	s := newSocket(near)
	const pieces, size = 4000, 1000
	written := make(chan error, 1)
	go func() {
		for i := range pieces {
			if n, err := s.Write(bytes.Repeat([]byte{byte(i)}, size)); n != size || err != nil {
				written <- errors.Join(err, io.ErrShortWrite)
				return
			}
		}
		written <- near.Close()
	}()
	select {
	case err := <-written:
		t.Fatalf("all found room: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	got, err := io.ReadAll(far)
	if err != nil || len(got) != pieces*size {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	for i := range pieces {
		if !bytes.Equal(got[i*size:(i+1)*size], bytes.Repeat([]byte{byte(i)}, size)) {
			t.Fatalf("piece %d is another one", i)
		}
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	far.Close()
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("a closed socket is written")
	}
}
