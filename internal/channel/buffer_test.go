package channel

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"banger/internal/testenv"
)

func TestBuffer(t *testing.T) {
	a, b := testenv.SocketPair(t)
	w := Buffer(a)
	data := bytes.Repeat([]byte("x"), 4<<20) // far more than the pair holds
	for range 4 {
		if n, err := w.Write(data); n != len(data) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after Close = %v, want net.ErrClosed", err)
	}
	if got, err := io.Copy(io.Discard, b); got != 4*int64(len(data)) || err != nil {
		t.Errorf("the other end read %d bytes, %v; want %d", got, err, 4*len(data))
	}
}

func TestBufferFull(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	const limit = 1 << 20
	w := newBuffer(a, limit)
	data := make([]byte, limit/16)
	var err error
	for n := 0; n <= limit && err == nil; n += len(data) {
		_, err = w.Write(data)
	}
	if !errors.Is(err, errBufferFull) {
		t.Errorf("Write = %v, want %v", err, errBufferFull)
	}
}

func TestBufferError(t *testing.T) {
	a, b := net.Pipe()
	w := Buffer(a)
	b.Close()
	var err error
	for err == nil {
		_, err = w.Write([]byte("x"))
	}
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Write = %v, want io.ErrClosedPipe", err)
	}
}

// Without the buffer both mux loops of x/crypto/ssh wait within seconds for the other end to read: bulk in both
// directions, closes that cross it, and short channels on one connection over a stream with a window. In tier soak it goes on for ten minutes.
func TestSSHDoesNotStall(t *testing.T) {
	shortChannels, end := 150, time.Time{} // enough to stall in some runs, quick enough for each commit
	if testenv.Tier() == "soak" {
		shortChannels, end = 1<<30, time.Now().Add(10*time.Minute)
	}
	client := sshPair(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { bulk(t, client, stop) })
	}
	progress := make(chan error)
	wg.Go(func() {
		defer close(progress)
		for n := 0; n < shortChannels && (end.IsZero() || time.Now().Before(end)); n++ {
			progress <- echoOnce(client, n)
		}
	})
	for n, more := 0, true; more; n++ {
		select {
		case err, ok := <-progress:
			if err != nil {
				t.Fatalf("short channel %d: %v", n, err)
			}
			if more = ok; !more {
				t.Logf("%d short channels", n)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("stalled after %d short channels", n)
		}
	}
	close(stop)
	wg.Wait()
}

// bulk echoes through one channel after another and closes each while both directions are full.
func bulk(t *testing.T, client ssh.Conn, stop chan struct{}) {
	data := make([]byte, 64<<10)
	for {
		select {
		case <-stop:
			return
		default:
		}
		ch, reqs, err := client.OpenChannel("echo", nil)
		if err != nil {
			t.Errorf("bulk channel: %v", err)
			return
		}
		go ssh.DiscardRequests(reqs)
		var writer sync.WaitGroup
		writer.Go(func() {
			for {
				if _, err := ch.Write(data); err != nil {
					return // closed below
				}
			}
		})
		if _, err := io.CopyN(io.Discard, ch, 256<<10); err != nil {
			t.Errorf("bulk read: %v", err)
		}
		ch.Close()
		writer.Wait()
	}
}

func echoOnce(client ssh.Conn, n int) error {
	ch, reqs, err := client.OpenChannel("echo", nil)
	if err != nil {
		return err
	}
	go ssh.DiscardRequests(reqs)
	want := fmt.Sprint("hello ", n)
	io.WriteString(ch, want)
	ch.CloseWrite()
	got, err := io.ReadAll(ch)
	if err == nil && string(got) != want {
		err = fmt.Errorf("echo gave %q, want %q", got, want)
	}
	ch.Close()
	return err
}

// sshPair is a client whose server echoes every channel, over a session and buffers on both ends.
func sshPair(t *testing.T) ssh.Conn {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &ssh.ServerConfig{NoClientAuth: true}
	cfg.AddHostKey(signer)
	hostEnd, guestEnd := testenv.SocketPair(t)
	h, g := greet(t, hostEnd, guestEnd)
	go g.Serve(func(uint32) Handler {
		return func(conn net.Conn) {
			server, chans, reqs, err := ssh.NewServerConn(Buffer(conn), cfg)
			if err != nil {
				return
			}
			go ssh.DiscardRequests(reqs)
			for newChan := range chans {
				go echoChannel(newChan)
			}
			server.Wait()
		}
	})
	conn, err := h.Open(t.Context(), PortSSH)
	if err != nil {
		t.Fatal(err)
	}
	client, chans, reqs, err := ssh.NewClientConn(Buffer(conn), "guest", &ssh.ClientConfig{HostKeyCallback: ssh.FixedHostKey(signer.PublicKey())})
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(reqs)
	go func() {
		for range chans {
		}
	}()
	t.Cleanup(func() { h.Close() })
	return client
}

func echoChannel(newChan ssh.NewChannel) {
	ch, reqs, err := newChan.Accept()
	if err != nil {
		return
	}
	go ssh.DiscardRequests(reqs)
	io.Copy(ch, ch)
	ch.CloseWrite()
	ch.Close()
}
