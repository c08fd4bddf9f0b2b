package channel

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"banger"
	"banger/internal/testenv"
)

func greet(t testing.TB, host, guest io.ReadWriteCloser) (h, g *Session) {
	t.Helper()
	got := make(chan error, 1)
	go func() {
		var err error
		g, err = Guest(guest)
		got <- err
	}()
	h, err := Host(t.Context(), host)
	if err := errors.Join(err, <-got); err != nil {
		t.Fatal(err)
	}
	return h, g
}

func echo(conn net.Conn) { io.Copy(conn, conn) }

func onPort(want uint32, h Handler) func(uint32) Handler {
	return func(port uint32) Handler {
		if port == want {
			return h
		}
		return nil
	}
}

func TestSession(t *testing.T) {
	host, guest := testenv.SocketPair(t)
	h, g := greet(t, host, guest)
	go g.Serve(onPort(7, echo))
	conn, err := h.Open(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, conn)
	if _, err := h.Open(t.Context(), 8); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Open(8) = %v, want ErrUnavailable", err)
	}
	g.Close()
	<-h.Done()
	if _, err := h.Open(t.Context(), 7); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Open after the end = %v, want ErrUnavailable", err)
	}
}

// exchange sends more than a window to an echo, half-closes, and wants the same back.
func exchange(t *testing.T, conn net.Conn) {
	t.Helper()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	go func() {
		conn.Write(data)
		conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("echo gave %d bytes, %v; want the %d sent", len(got), err, len(data))
	}
	conn.Close()
}

// lasting is a port that outlives the sessions on it, as the guest's virtio-serial port does.
type lasting struct{ net.Conn }

func (lasting) Close() error { return nil }

// What was read ahead of a client, by a reader with a small buffer, does not make what is sent on small.
func TestCopyIsLarge(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 8*maxFrame/16)
	r := bufio.NewReaderSize(struct{ io.Reader }{bytes.NewReader(data)}, maxConnectLine)
	if _, err := r.ReadByte(); err != nil {
		t.Fatal(err)
	}
	var got writes
	n, err := Copy(&got, r)
	if all := bytes.Join(got, nil); err != nil || n != int64(len(all)) || !bytes.Equal(all, data[1:]) {
		t.Errorf("Copy = %d, %v, and wrote %d bytes; want %d", n, err, len(all), len(data)-1)
	}
	if len(got) > 10 {
		t.Errorf("Copy wrote %d bytes by %d writes, want 10 at most", len(data), len(got))
	}
}

// A new host takes over a guest that has not noticed the end of the old one, in the middle of one of its frames.
func TestTakeOver(t *testing.T) {
	header := []byte{0, yamuxData, 0, 1, 0, 0, 0, 1, 0, 0, 0xff, 0xff}
	largest := []byte{0, yamuxData, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0}
	for _, tc := range []struct {
		name string
		left []byte // written by the old host last
	}{
		{"between frames", nil},
		{"1 byte into a header", header[:1]},
		{"2 bytes into a header", header[:2]},
		{"4 bytes into a header", header[:4]},
		{"8 bytes into a header", header[:8]},
		{"10 bytes into a header", header[:10]},
		{"10 bytes into the header of a frame of 64 KiB", largest[:10]},
		{"11 bytes into the header of a frame of 64 KiB", largest[:11]},
		{"into the header of a window update", []byte{0, 1, 0}},
		{"in a body", append(header, "begin"...)},
		{"garbage", []byte("\xb4bang\xb4banger?")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			host, guest := testenv.SocketPair(t)
			sessions := make(chan *Session)
			go func() {
				defer close(sessions)
				for {
					s, err := Guest(lasting{guest})
					if err != nil {
						return
					}
					sessions <- s
					s.Serve(onPort(7, echo))
				}
			}()
			if err := hostHello(bufio.NewReader(host), host); err != nil {
				t.Fatal(err)
			}
			<-sessions
			host.Write(tc.left)
			next := make(chan *Session, 1)
			go func() {
				s, err := Host(t.Context(), host)
				if err != nil {
					t.Error(err)
				}
				next <- s
			}()
			<-sessions
			h := <-next
			conn, err := h.Open(t.Context(), 7)
			if err != nil {
				t.Fatal(err)
			}
			exchange(t, conn)
		})
	}
}

// What the host wrote before the guest opened its port may be lost; the guest's first answers may come late.
func TestHelloSurvivesLoss(t *testing.T) {
	host, guest := testenv.SocketPair(t)
	lost := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(guest, make([]byte, helloSize+3))
		lost <- err
		s, err := Guest(guest)
		if err != nil {
			t.Error(err)
			return
		}
		s.Serve(onPort(7, echo))
	}()
	h, err := Host(t.Context(), host)
	if err := errors.Join(err, <-lost); err != nil {
		t.Fatal(err)
	}
	conn, err := h.Open(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, conn)
}

func TestHelloIgnoresOldAnswers(t *testing.T) {
	host, guest := testenv.SocketPair(t)
	for _, kind := range []byte{kindAnswer, kindWelcome} {
		guest.Write(helloFrame{kind, ProtocolVersion + 1, 12345}.encode())
	}
	greet(t, host, guest)
}

// A guest that is slow answers two hellos in turn. Its welcome to the first is of a session that the hello between has ended.
func TestWelcomeCountsForTheLastGo(t *testing.T) {
	var sent bytes.Buffer
	c := hostGreeter{w: &sent, interval: time.Hour, patience: time.Hour, timer: time.NewTimer(time.Hour)}
	c.attempt() // nonce 0
	c.attempt()
	for _, step := range []struct {
		kind  byte
		nonce uint64
		want  bool
	}{
		{kindAnswer, 0, false},
		{0, 0, false}, // its patience ends
		{kindAnswer, 1, false},
		{kindWelcome, 0, false},
		{kindWelcome, 1, true},
	} {
		if step.kind == 0 {
			c.attempt()
		} else if got, err := c.answer(helloFrame{step.kind, ProtocolVersion, step.nonce}); got != step.want || err != nil {
			t.Errorf("%c %d counts as the welcome: %v, %v; want %v", step.kind, step.nonce, got, err, step.want)
		}
	}
	for i, want := range []byte{kindHello, kindHello, kindGo, kindHello, kindGo} {
		if got := sent.Bytes()[i*helloSize+offKind]; got != want {
			t.Errorf("frame %d is %c, want %c", i, got, want)
		}
	}
}

// A guest that has left its session writes one byte and waits.
func TestOneByteEndsASession(t *testing.T) {
	host, guest := testenv.SocketPair(t)
	h, _ := greet(t, host, lasting{guest})
	guest.Write([]byte{'\n'})
	<-h.Done()
}

func TestHelloVersion(t *testing.T) {
	t.Run("host refuses", func(t *testing.T) {
		host, guest := testenv.SocketPair(t)
		go func() {
			f, err := (&helloReader{r: bufio.NewReader(guest)}).next()
			if err != nil {
				t.Error(err)
			}
			guest.Write(helloFrame{kindAnswer, 9, f.Nonce}.encode())
		}()
		_, err := Host(t.Context(), host)
		checkVersions(t, err, VersionError{Host: ProtocolVersion, Guest: 9})
	})
	t.Run("guest refuses", func(t *testing.T) {
		host, guest := testenv.SocketPair(t)
		host.Write(helloFrame{kindHello, 9, 1}.encode())
		_, err := Guest(guest)
		checkVersions(t, err, VersionError{Host: 9, Guest: ProtocolVersion})
		if f, err := (&helloReader{r: bufio.NewReader(host)}).next(); err != nil || f != (helloFrame{kindAnswer, ProtocolVersion, 1}) {
			t.Errorf("the guest answers %+v, %v; want its version", f, err)
		}
	})
}

func checkVersions(t *testing.T, err error, want VersionError) {
	t.Helper()
	var got *VersionError
	if !errors.As(err, &got) || *got != want || !errors.Is(err, banger.ErrUnsupported) {
		t.Errorf("got %v, want %+v of kind unsupported", err, want)
	}
}

func TestHostEndsWithContext(t *testing.T) {
	host, guest := testenv.SocketPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		io.ReadFull(guest, make([]byte, helloSize))
		cancel()
	}()
	if _, err := Host(ctx, host); !errors.Is(err, context.Canceled) {
		t.Errorf("Host = %v, want context.Canceled", err)
	}
	if _, err := io.Copy(io.Discard, guest); err != nil {
		t.Errorf("reading the other end: %v, want its end", err)
	}
}

func TestTooManyStreams(t *testing.T) {
	host, guest := testenv.SocketPair(t)
	h, g := greet(t, host, guest)
	ended := make(chan error, 1)
	go func() { ended <- g.Serve(onPort(7, echo)) }()
	for range maxStreams {
		if _, err := h.Open(t.Context(), 7); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Open(t.Context(), 7); !errors.Is(err, errTooManyStreams) {
		t.Errorf("Open of one stream too many = %v, want %v", err, errTooManyStreams)
	}
	h.mu.Lock()
	clear(h.opened) // the bound of a hostile peer
	h.mu.Unlock()
	h.Open(t.Context(), 7)
	if err := <-ended; !errors.Is(err, errTooManyStreams) {
		t.Errorf("Serve = %v, want %v", err, errTooManyStreams)
	}
}

// world is a guest that serves echo on port 7 behind guest.sock.
func world(t *testing.T) (guestSock string, server *Server, guest *Session) {
	t.Helper()
	dir := t.TempDir()
	guestSock = filepath.Join(dir, "guest.sock")
	hostEnd, guestEnd := testenv.SocketPair(t)
	server, err := Serve(hostEnd, guestSock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	guest, err = Guest(guestEnd)
	if err != nil {
		t.Fatal(err)
	}
	go guest.Serve(onPort(7, echo))
	return guestSock, server, guest
}

func TestServe(t *testing.T) {
	guestSock, server, guest := world(t)
	conn, err := Dial(t.Context(), guestSock, 7)
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, conn)

	if _, err := Dial(t.Context(), guestSock, 8); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Dial of a port without a server = %v, want ErrUnavailable", err)
	}
	if info, err := os.Stat(guestSock); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("guest.sock: %v, %v; want mode 0600", info.Mode(), err)
	}
	guest.Close()
	<-server.Done()
	if server.Err() == nil {
		t.Error("Err after the guest ended the session = nil")
	}
	if _, err := Dial(t.Context(), guestSock, 7); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Dial after the end = %v, want ErrUnavailable", err)
	}
}

func TestServeFromGuest(t *testing.T) {
	guestSock, _, guest := world(t)
	if _, err := guest.Open(t.Context(), 5); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Open without a listener = %v, want ErrUnavailable", err)
	}
	listener, err := Listen(GuestPort(guestSock, 5))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				echo(conn)
				conn.Close()
			}()
		}
	}()
	conn, err := guest.Open(t.Context(), 5)
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, conn)
}

// A client that goes away, with the guest sending on, frees the stream.
func TestServeClientGone(t *testing.T) {
	guestSock, server, guest := world(t)
	conn, err := Dial(t.Context(), guestSock, 7)
	if err != nil {
		t.Fatal(err)
	}
	conn.Write(make([]byte, 1<<20))
	conn.Close()
	other, err := Dial(t.Context(), guestSock, 7)
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, other)
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	<-guest.Done()
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.sock")
	for _, when := range []string{"new", "stale"} {
		l, err := Listen(path)
		if err != nil {
			t.Fatalf("Listen, %s: %v", when, err)
		}
		l.(ownListener).SetUnlinkOnClose(false)
		l.Close()
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("Listen in place of a file = %v, want ErrConflict", err)
	}
	if _, err := Listen(filepath.Join(dir, "none", "a.sock")); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Listen without a directory = %v, want ErrUnavailable", err)
	}
}

func TestParseConnect(t *testing.T) {
	for _, tc := range []struct {
		line string
		port uint32
		ok   bool
	}{
		{"CONNECT 22\n", 22, true},
		{"CONNECT 0\n", 0, true},
		{"CONNECT 4294967295\n", 4294967295, true},
		{"CONNECT 4294967296\n", 0, false},
		{"CONNECT 22", 0, false},
		{"CONNECT  22\n", 0, false},
		{"CONNECT +22\n", 0, false},
		{"CONNECT 022\n", 0, false},
		{"CONNECT -1\n", 0, false},
		{"CONNECT \n", 0, false},
		{"connect 22\n", 0, false},
		{"CONNECT 22\r\n", 0, false},
		{"\n", 0, false},
	} {
		port, err := parseConnect(tc.line)
		if port != tc.port || (err == nil) != tc.ok {
			t.Errorf("parseConnect(%q) = %d, %v, want %d, ok %v", tc.line, port, err, tc.port, tc.ok)
		}
	}
}

func TestRequestPortAnswers(t *testing.T) {
	for _, tc := range []struct {
		answer string
		ok     bool
	}{
		{"OK 1073741824\nrest", true},
		{"OK 22\n", true},
		{"OK\n", false},
		{"ERROR\n", false},
		{"", false},
		{strings.Repeat("x", 1000), false},
	} {
		host, guest := testenv.SocketPair(t)
		guest.Write([]byte(tc.answer))
		guest.CloseWrite()
		if err := requestPort(host, 22); (err == nil) != tc.ok {
			t.Errorf("answer %q: %v, want ok %v", tc.answer, err, tc.ok)
		}
		if rest, _ := io.ReadAll(host); tc.ok && !strings.HasSuffix(tc.answer, "\n"+string(rest)) {
			t.Errorf("answer %q leaves %q", tc.answer, rest)
		}
	}
}

func TestReadLine(t *testing.T) {
	for _, tc := range []struct {
		name, line string
		want       error
	}{
		{"one field", `{"going":{}}` + "\n", nil},
		{"two fields", `{"going":{},"ready":{}}` + "\n", banger.ErrInvalid},
		{"none", "{}\n", banger.ErrInvalid},
		{"no JSON", "hello\n", banger.ErrInvalid},
		{"too long", `{"hello":{"kernel":"` + strings.Repeat("x", 100) + `"}}` + "\n", banger.ErrInvalid},
		{"cut", `{"going":`, io.ErrUnexpectedEOF},
		{"end", "", io.EOF},
	} {
		var m FromGuest
		err := ReadLine(bufio.NewReaderSize(strings.NewReader(tc.line), 64), &m, 64)
		if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

func FuzzReadHello(f *testing.F) {
	f.Add([]byte(nil), byte(kindHello), uint32(1), uint64(1))
	f.Add([]byte(helloMagic), byte(kindGo), uint32(2), uint64(0))
	f.Fuzz(func(t *testing.T, noise []byte, kind byte, version uint32, nonce uint64) {
		want := helloFrame{kind, version, nonce}
		r := bytes.NewReader(append(noise, want.encode()...))
		for frames := (&helloReader{r: r}); ; {
			got, err := frames.next()
			if err != nil {
				t.Fatalf("%+v after %x is not found", want, noise)
			}
			if got == want && r.Len() == 0 {
				return
			}
		}
	})
}

func FuzzParseConnect(f *testing.F) {
	f.Add("CONNECT 22\n")
	f.Add("CONNECT 99999999999\n")
	f.Fuzz(func(t *testing.T, line string) {
		if port, err := parseConnect(line); err == nil && fmt.Sprintf("CONNECT %d\n", port) != line {
			t.Errorf("parseConnect(%q) = %d", line, port)
		}
	})
}

func FuzzReadLine(f *testing.F) {
	f.Add([]byte(`{"hello":{"version":1,"boot_id":"x","kernel":"6.1"}}` + "\n"))
	f.Add([]byte(`{"ready":{"timings":[{"side":"guest","step":"kernel","elapsed_ns":5}]}}` + "\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		var m FromGuest
		if ReadLine(bufio.NewReaderSize(bytes.NewReader(line), MaxFromGuest), &m, MaxFromGuest) != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var m2 FromGuest
		if err := json.Unmarshal(again, &m2); err != nil || !cmp.Equal(m, m2, cmpopts.EquateEmpty()) {
			t.Errorf("%s decodes to %+v, again to %+v, %v", line, m, m2, err)
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 'x', 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte(helloMagic + "Hxxxxxxxxxxxxx"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		whole, errWhole := io.ReadAll(&frameReader{r: bytes.NewReader(stream)})
		pieces, errPieces := io.ReadAll(&frameReader{r: iotest.OneByteReader(bytes.NewReader(stream))})
		if (errWhole == nil) != (errPieces == nil) {
			t.Fatalf("at once: %v, byte by byte: %v", errWhole, errPieces)
		}
		if errWhole == nil && (!bytes.Equal(whole, stream) || !bytes.Equal(pieces, stream)) {
			t.Errorf("%x became %x and %x", stream, whole, pieces)
		}
	})
}

// writes keeps each write apart.
type writes [][]byte

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, bytes.Clone(p))
	return len(p), nil
}

func TestHeadersGoWithTheirBodies(t *testing.T) {
	data := []byte{0, yamuxData, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5}
	empty := []byte{0, yamuxData, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0}
	update := []byte{0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9}
	var got writes
	w := &frameWriter{w: &got}
	for _, p := range [][]byte{update, data, []byte("hello"), empty, data, []byte("again"), update} {
		if n, err := w.Write(p); n != len(p) || err != nil {
			t.Fatalf("%d of %d, %v", n, len(p), err)
		}
	}
	want := writes{update, append(bytes.Clone(data), "hello"...), empty, append(bytes.Clone(data), "again"...), update}
	if !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLongBodiesAreWrittenWhole(t *testing.T) {
	for _, size := range []int{maxJoined - yamuxHeader, maxJoined - yamuxHeader + 1, maxFrame} {
		header := binary.BigEndian.AppendUint32([]byte{0, yamuxData, 0, 0, 0, 0, 0, 1}, uint32(size))
		body := make([]byte, size)
		rand.Read(body)
		var got bytes.Buffer
		w := &frameWriter{w: &got}
		for range 2 {
			for _, p := range [][]byte{header, body} {
				if n, err := w.Write(p); n != len(p) || err != nil {
					t.Fatalf("%d of %d, %v", n, len(p), err)
				}
			}
		}
		if want := bytes.Repeat(slices.Concat(header, body), 2); !bytes.Equal(got.Bytes(), want) {
			t.Errorf("a body of %d bytes arrives changed", size)
		}
	}
}
