package entry

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"banger"
)

// vms are those that run, by name; one server answers for port 3000 of all of them.
type vms map[string]banger.VMID

func newEntry(t testing.TB, app http.Handler, running vms) *Entry {
	t.Helper()
	server := httptest.NewServer(app)
	t.Cleanup(server.Close)
	find := func(_ context.Context, name string) (banger.VMID, error) {
		if id, ok := running[name]; ok {
			return id, nil
		}
		if name == "stopped" {
			return "", &banger.Error{Kind: banger.ErrConflict, Op: "vm", Subject: name, Hint: "banger vm start stopped"}
		}
		return "", &banger.Error{Kind: banger.ErrNotFound, Op: "vm", Subject: name}
	}
	e, err := Listen(Config{Log: slog.New(slog.DiscardHandler), Find: find, Dial: func(_ context.Context, _ banger.VMID, port uint16) (net.Conn, error) {
		if port != 3000 {
			return nil, &banger.Error{Kind: banger.ErrUnavailable, Err: errors.New("nobody listens")}
		}
		return net.Dial("tcp", server.Listener.Addr().String())
	}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func dial(t testing.TB, e *Entry) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", e.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, bufio.NewReader(conn)
}

func read(t testing.TB, r *bufio.Reader) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body) // a server that is told too much ends the connection by a reset
	return resp, string(body)
}

func TestEntry(t *testing.T) {
	e := newEntry(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.URL, body)
	}), vms{"devbox": "0123456789ab"})
	for _, tc := range []struct {
		name, request string
		status        int
		body          string
	}{
		{"known", "GET /x?a;b=%zz HTTP/1.1\r\nHost: 3000.devbox.localhost:42080\r\nConnection: close\r\n\r\n", 200, "GET 3000.devbox.localhost:42080 /x?a;b=%zz "},
		{"upper case", "GET /x HTTP/1.1\r\nHost: 3000.DevBox.LocalHost\r\nConnection: close\r\n\r\n", 200, "GET 3000.DevBox.LocalHost /x "},
		{"with a body", "POST / HTTP/1.1\r\nHost: 3000.devbox.localhost\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody", 200, "POST 3000.devbox.localhost / body"},
		{"in chunks", "POST / HTTP/1.1\r\nHost: 3000.devbox.localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nbody\r\n0\r\n\r\n", 200, "POST 3000.devbox.localhost / body"},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: 3000.devbox.localhost\r\n\r\n", 200, "GET 3000.devbox.localhost / "},
		{"the name in the first line", "GET http://3000.devbox.localhost/y HTTP/1.1\r\nHost: evil.example\r\n\r\n", 200, "GET 3000.devbox.localhost /y "},
		{"unknown VM", "GET / HTTP/1.1\r\nHost: 3000.other.localhost\r\n\r\n", 421, "other"},
		{"a name that leads here", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "evil.example"},
		{"a name that leads here, in the first line", "GET http://evil.example/ HTTP/1.1\r\nHost: 3000.devbox.localhost\r\n\r\n", 421, "evil.example"},
		{"a VM without a port", "GET / HTTP/1.1\r\nHost: devbox.localhost\r\n\r\n", 421, "PORT.NAME"},
		{"an address", "GET / HTTP/1.1\r\nHost: 127.0.0.1:42080\r\n\r\n", 421, ""},
		{"no Host", "GET / HTTP/1.0\r\n\r\n", 421, ""},
		{"two Hosts", "GET / HTTP/1.1\r\nHost: 3000.devbox.localhost\r\nHost: evil.example\r\n\r\n", 400, ""},
		{"no HTTP", "\x16\x03\x01\r\n\r\n", 400, ""},
		{"endless headers", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 2*maxHead), 431, ""},
		{"stopped", "GET / HTTP/1.1\r\nHost: 3000.stopped.localhost\r\n\r\n", 503, "banger vm start stopped"},
		{"nobody listens", "GET / HTTP/1.1\r\nHost: 3001.devbox.localhost\r\n\r\n", 502, "3001.devbox.localhost: nobody listens"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, r := dial(t, e)
			for _, part := range []string{tc.request[:5], tc.request[5:]} {
				if _, err := io.WriteString(conn, part); err != nil {
					t.Fatal(err)
				}
			}
			if resp, body := read(t, r); resp.StatusCode != tc.status || !strings.Contains(body, tc.body) {
				t.Errorf("%.60q = %s, %q; want %d with %q", tc.request, resp.Status, body, tc.status, tc.body)
			}
		})
	}
}

// Every request of a connection is judged: what names no VM reaches none, and what names another one goes there.
func TestEveryRequest(t *testing.T) {
	const evil = "GET /evil HTTP/1.1\r\nHost: evil.example\r\n\r\n"
	get := func(name, path string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: 3000." + name + ".localhost\r\n\r\n"
	}
	running := vms{"devbox": "0123456789ab", "other": "ba9876543210"}
	var seen atomic.Int32
	e := newEntry(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := parseHost(r.Host); !ok || r.URL.Path == "/evil" {
			seen.Add(1)
		}
		io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, r.Host, r.URL.Path)
	}), running)
	want := []struct {
		status int
		body   string
	}{{200, "3000.devbox.localhost/1"}, {421, "evil.example"}, {200, "3000.other.localhost/2"}, {421, "evil.example"}, {421, "nobody"}, {200, "3000.devbox.localhost/3"}, {421, "evil.example"}}
	requests := []string{get("devbox", "/1"), evil, get("other", "/2"), evil, get("nobody", "/"),
		"POST /3 HTTP/1.1\r\nHost: 3000.devbox.localhost\r\nContent-Length: " + fmt.Sprint(len(evil)) + "\r\n\r\n" + evil, evil}
	for _, pipelined := range []bool{false, true} {
		conn, r := dial(t, e)
		if pipelined {
			go io.WriteString(conn, strings.Join(requests, ""))
		}
		for i, w := range want {
			if !pipelined {
				io.WriteString(conn, requests[i])
			}
			if resp, body := read(t, r); resp.StatusCode != w.status || !strings.Contains(body, w.body) {
				t.Errorf("pipelined %v, request %d: %s, %q, want %d with %q", pipelined, i, resp.Status, body, w.status, w.body)
			}
		}
	}
	if n := seen.Load(); n > 0 {
		t.Errorf("%d requests for other names came to a guest", n)
	}
}

// A request after which a connection carries something else passes both ways as it is.
func TestUpgrade(t *testing.T) {
	e := newEntry(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if r.Header.Get("Upgrade") != "chat" {
			fmt.Fprint(conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
			return
		}
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nhello\n")
		io.Copy(conn, rw)
	}), vms{"devbox": "0123456789ab"})
	conn, r := dial(t, e)
	io.WriteString(conn, "GET /chat HTTP/1.1\r\nHost: 3000.devbox.localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: chat\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "chat" {
		t.Fatalf("the answer is %+v, %v", resp, err)
	}
	const raw = "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n\x00\xff"
	io.WriteString(conn, raw)
	got := make([]byte, len("hello\n"+raw))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != "hello\n"+raw {
		t.Errorf("afterwards %q, %v, want hello and what was sent", got[:n], err)
	}
}

// What a server says comes as it is said: when it is said, and nothing beside it.
func TestStreams(t *testing.T) {
	next := make(chan struct{})
	e := newEntry(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"], w.Header()["Content-Type"] = nil, nil
		w.Header().Set("X-Encoding", r.Header.Get("Accept-Encoding"))
		w.Header().Set("X-Proto", r.Header.Get("X-Forwarded-Proto")+r.Header.Get("X-Forwarded-For"))
		io.WriteString(w, "<html>event 1\n")
		w.(http.Flusher).Flush()
		<-next
		io.WriteString(w, "event 2\n")
	}), vms{"devbox": "0123456789ab"})
	conn, r := dial(t, e)
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: 3000.devbox.localhost\r\nX-Forwarded-Proto: https\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body := bufio.NewReader(resp.Body)
	if line, err := body.ReadString('\n'); err != nil || line != "<html>event 1\n" {
		t.Errorf("first %q, %v", line, err)
	}
	close(next)
	if rest, err := io.ReadAll(body); err != nil || string(rest) != "event 2\n" {
		t.Errorf("then %q, %v", rest, err)
	}
	for name, want := range map[string]string{"Date": "", "Content-Type": "", "X-Encoding": "", "X-Proto": "https", "Via": ""} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// A VM that takes over a name gets the requests that come from then on, on old connections too.
func TestRenamed(t *testing.T) {
	running := vms{"devbox": "0123456789ab"}
	var mu atomic.Pointer[vms]
	mu.Store(&running)
	servers := map[banger.VMID]*httptest.Server{}
	for _, id := range []banger.VMID{"0123456789ab", "ba9876543210"} {
		servers[id] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, id) }))
		defer servers[id].Close()
	}
	e, err := Listen(Config{Log: slog.New(slog.DiscardHandler),
		Find: func(_ context.Context, name string) (banger.VMID, error) { return (*mu.Load())[name], nil },
		Dial: func(_ context.Context, id banger.VMID, _ uint16) (net.Conn, error) {
			return net.Dial("tcp", servers[id].Listener.Addr().String())
		}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	conn, r := dial(t, e)
	for _, id := range []banger.VMID{"0123456789ab", "ba9876543210"} {
		mu.Store(&vms{"devbox": id})
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: 80.devbox.localhost\r\n\r\n")
		if _, body := read(t, r); body != string(id) {
			t.Errorf("devbox is %s and the answer comes from %s", id, body)
		}
	}
}

// Whatever comes on a connection, a guest sees only requests whose Host names it.
func FuzzRequests(f *testing.F) {
	var mu atomic.Pointer[testing.T]
	e := newEntry(f, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, port, ok := parseHost(r.Host); !ok || name != "devbox" || port != 3000 {
			mu.Load().Errorf("a request for %q came to the guest", r.Host)
		}
		io.Copy(io.Discard, r.Body)
	}), vms{"devbox": "0123456789ab"})
	const good = "POST / HTTP/1.1\r\nHost: 3000.devbox.localhost\r\n"
	for _, text := range []string{good + "\r\n", good + "Content-Length: 2\r\n\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
		good + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
		good + "Transfer-Encoding: chunked\r\n\r\n1;x\r\nG\r\n0\r\nHost: evil.example\r\n\r\n", good + " Host: evil.example\r\n\r\n",
		good + "Connection: Upgrade\r\nUpgrade: x\r\n\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", "GET //evil.example/ HTTP/1.1\nHost:3000.devbox.localhost\n\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		mu.Store(t)
		conn, _ := dial(t, e)
		conn.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(conn, bytes.NewReader(text)); err != nil {
			return // it was told so and cut off
		}
		conn.(*net.TCPConn).CloseWrite()
		var ne net.Error
		if _, err := io.Copy(io.Discard, conn); errors.As(err, &ne) && ne.Timeout() {
			t.Errorf("%q: the connection does not end", text)
		}
		conn.Close()
	})
}

// A host that is taken names one VM and one port, and no other text is taken for the same.
func FuzzParseHost(f *testing.F) {
	for _, host := range []string{"3000.devbox.localhost:42080", "80.a.localhost.", "evil.example", "80.a.b.localhost", "[::1]:80"} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		name, port, ok := parseHost(host)
		if !ok {
			return
		}
		if want := fmt.Sprintf("%d.%s.localhost", port, name); !strings.HasPrefix(strings.ToLower(host), want) || banger.ValidateVMName(name) != nil || port == 0 {
			t.Errorf("parseHost(%q) = %q, %d", host, name, port)
		}
	})
}
