package entry

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"banger"
)

func newEntry(t *testing.T, app http.Handler) *Entry {
	t.Helper()
	server := httptest.NewServer(app)
	t.Cleanup(server.Close)
	e, err := Listen(Config{Log: slog.New(slog.DiscardHandler), Dial: func(_ context.Context, name string, port uint16) (net.Conn, error) {
		switch {
		case name == "stopped":
			return nil, &banger.Error{Kind: banger.ErrConflict, Op: "vm", Subject: name, Hint: "banger vm start stopped"}
		case name != "devbox":
			return nil, &banger.Error{Kind: banger.ErrNotFound, Op: "vm", Subject: name}
		case port != 3000:
			return nil, banger.ErrUnavailable
		}
		return net.Dial("tcp", server.Listener.Addr().String())
	}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func TestEntry(t *testing.T) {
	e := newEntry(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.URL, body)
	}))
	for _, tc := range []struct {
		name, request string
		status        int
		body          string
	}{
		{"known", "GET /x HTTP/1.1\r\nHost: 3000.devbox.localhost:42080\r\nConnection: close\r\n\r\n", 200, "GET 3000.devbox.localhost:42080 /x "},
		{"upper case", "GET /x HTTP/1.1\r\nHost: 3000.DevBox.LocalHost\r\nConnection: close\r\n\r\n", 200, "GET 3000.DevBox.LocalHost /x "},
		{"with a body", "POST / HTTP/1.1\r\nHost: 3000.devbox.localhost\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody", 200, "POST 3000.devbox.localhost / body"},
		{"unknown VM", "GET / HTTP/1.1\r\nHost: 3000.other.localhost\r\n\r\n", 421, "other"},
		{"a name that leads here", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "evil.example"},
		{"a VM without a port", "GET / HTTP/1.1\r\nHost: devbox.localhost\r\n\r\n", 421, "PORT.NAME"},
		{"an address", "GET / HTTP/1.1\r\nHost: 127.0.0.1:42080\r\n\r\n", 421, ""},
		{"no Host", "GET / HTTP/1.0\r\n\r\n", 421, ""},
		{"two Hosts", "GET / HTTP/1.1\r\nHost: 3000.devbox.localhost\r\nHost: evil.example\r\n\r\n", 400, ""},
		{"no HTTP", "\x16\x03\x01\r\n\r\n", 400, ""},
		{"endless headers", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", maxHead), 400, ""},
		{"stopped", "GET / HTTP/1.1\r\nHost: 3000.stopped.localhost\r\n\r\n", 503, "banger vm start stopped"},
		{"nobody listens", "GET / HTTP/1.1\r\nHost: 3001.devbox.localhost\r\n\r\n", 502, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", e.Address())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for _, part := range []string{tc.request[:5], tc.request[5:]} {
				if _, err := io.WriteString(conn, part); err != nil {
					t.Fatal(err)
				}
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if resp.StatusCode != tc.status || err != nil || !strings.Contains(string(body), tc.body) {
				t.Errorf("%q = %s, %q, %v; want %d with %q", tc.request[:40%len(tc.request)], resp.Status, body, err, tc.status, tc.body)
			}
		})
	}
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
