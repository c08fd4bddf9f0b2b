package download_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/download"
)

// server serves one file with faults.
type server struct {
	content []byte
	cut     int64                                                            // bytes of one answer; 0: all
	before  func(w http.ResponseWriter, r *http.Request, request int64) bool // true: it has answered
	noRange bool

	requests, sent atomic.Int64
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := s.requests.Add(1)
	if s.before != nil && s.before(w, r, n) {
		return
	}
	first := int64(0)
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &first); err == nil && !s.noRange {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, len(s.content)-1, len(s.content)))
		w.Header().Set("Content-Length", fmt.Sprint(int64(len(s.content))-first))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		first = 0
		w.Header().Set("Content-Length", fmt.Sprint(len(s.content)))
	}
	rest := s.content[first:]
	if s.cut > 0 && int64(len(rest)) > s.cut {
		s.sent.Add(s.cut) // before: the client may look as soon as it has them
		w.Write(rest[:s.cut])
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	s.sent.Add(int64(len(rest)))
	w.Write(rest)
}

func random(n int) []byte {
	source, b := rand.New(rand.NewPCG(1, uint64(n))), make([]byte, n)
	for i := range b {
		b[i] = byte(source.Uint32())
	}
	return b
}

func fileOf(t *testing.T, url string, content []byte) download.File {
	sum := sha256.Sum256(content)
	return download.File{URL: url, SizeBytes: int64(len(content)), SHA256: hex.EncodeToString(sum[:]), Path: filepath.Join(t.TempDir(), "file")}
}

func start(t *testing.T, s *server) (url string, c download.Client) {
	web := httptest.NewUnstartedServer(s)
	web.Config.ErrorLog = nil
	web.Start()
	t.Cleanup(web.Close)
	return web.URL, download.Client{HTTP: web.Client(), Pause: time.Millisecond, Idle: 5 * time.Second}
}

func wantFile(t *testing.T, file download.File, content []byte) {
	t.Helper()
	got, err := os.ReadFile(file.Path)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("the file has %d bytes (%v), want %d", len(got), err, len(content))
	}
	if _, err := os.Stat(file.Path + download.Partial); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a part is left: %v", err)
	}
}

func TestFetch(t *testing.T) {
	content := random(1 << 20)
	fail := func(status int, until int64) func(http.ResponseWriter, *http.Request, int64) bool {
		return func(w http.ResponseWriter, _ *http.Request, n int64) bool {
			if n > until {
				return false
			}
			w.WriteHeader(status)
			return true
		}
	}
	for name, tc := range map[string]struct {
		s       *server
		content []byte
		most    int64 // bytes that may be sent
	}{
		"at once":                    {&server{}, content, 1 << 20},
		"empty":                      {&server{}, nil, 0},
		"cut every 64 KiB":           {&server{cut: 64 << 10}, content, 1 << 20},
		"cut in odd places":          {&server{cut: 100_001}, content, 1 << 20},
		"503 at first":               {&server{before: fail(503, 4)}, content, 1 << 20},
		"429 at first":               {&server{before: fail(429, 1)}, content, 1 << 20},
		"no ranges, one cut":         {&server{noRange: true, before: cutOnce(200_000)}, content, 1<<20 + 200_000},
		"a redirect":                 {&server{before: redirectOnce()}, content, 1 << 20},
		"ranges that are not wanted": {&server{before: lieAboutRange()}, content, 2 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			tc.s.content = tc.content
			url, c := start(t, tc.s)
			file := fileOf(t, url, tc.content)
			last := int64(-1)
			if err := c.Fetch(t.Context(), file, func(done int64) { last = done }); err != nil {
				t.Fatal(err)
			}
			wantFile(t, file, tc.content)
			if last != int64(len(tc.content)) {
				t.Errorf("the last report was of %d bytes", last)
			}
			if sent := tc.s.sent.Load(); sent > tc.most {
				t.Errorf("%d bytes were sent, want at most %d", sent, tc.most)
			}
		})
	}
}

// cutOnce cuts the first answer without telling what the file's size is.
func cutOnce(n int) func(http.ResponseWriter, *http.Request, int64) bool {
	return func(w http.ResponseWriter, _ *http.Request, request int64) bool {
		if request > 1 {
			return false
		}
		w.Write(random(1 << 20)[:n])
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func redirectOnce() func(http.ResponseWriter, *http.Request, int64) bool {
	return func(w http.ResponseWriter, r *http.Request, request int64) bool {
		if request == 1 {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}
		return request == 1
	}
}

// lieAboutRange cuts the first answer and gives the second from another byte on.
func lieAboutRange() func(http.ResponseWriter, *http.Request, int64) bool {
	cut := cutOnce(200_000)
	return func(w http.ResponseWriter, r *http.Request, request int64) bool {
		if request == 2 {
			w.Header().Set("Content-Range", "bytes 7-99/100")
			w.WriteHeader(http.StatusPartialContent)
			return true
		}
		return cut(w, r, request)
	}
}

func TestFetchFails(t *testing.T) {
	content := random(300_000)
	always := func(answer func(w http.ResponseWriter, r *http.Request)) *server {
		return &server{content: content, before: func(w http.ResponseWriter, r *http.Request, _ int64) bool { answer(w, r); return true }}
	}
	status := func(code int) *server {
		return always(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	other := bytes.Clone(content)
	other[len(other)/2] ^= 1
	for name, tc := range map[string]struct {
		s    *server
		want error
		most int64 // requests
		part bool  // stays
	}{
		"not found":        {status(404), banger.ErrNotFound, 1, true},
		"forbidden":        {status(403), banger.ErrRefused, 1, true},
		"no password":      {status(401), banger.ErrRefused, 1, true},
		"teapot":           {status(418), banger.ErrUnavailable, 1, true},
		"always 500":       {status(500), banger.ErrUnavailable, 6, true},
		"redirect loop":    {always(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", 302) }), banger.ErrUnavailable, 11, true},
		"wrong digest":     {&server{content: other}, banger.ErrCorrupt, 1, false},
		"too long":         {&server{content: append(bytes.Clone(content), 1)}, banger.ErrCorrupt, 1, false},
		"too short":        {&server{content: content[:len(content)-1]}, banger.ErrCorrupt, 1, false},
		"too long, untold": {always(func(w http.ResponseWriter, _ *http.Request) { w.Write(content); w.Write(content) }), banger.ErrCorrupt, 1, false},
		"no ranges, cuts":  {&server{content: content, cut: 64 << 10, noRange: true}, banger.ErrUnavailable, 8, true},
	} {
		t.Run(name, func(t *testing.T) {
			url, c := start(t, tc.s)
			file := fileOf(t, url, content)
			if err := c.Fetch(t.Context(), file, func(int64) {}); !errors.Is(err, tc.want) {
				t.Errorf("Fetch: %v, want %v", err, tc.want)
			}
			if n := tc.s.requests.Load(); n > tc.most {
				t.Errorf("%d requests, want at most %d", n, tc.most)
			}
			if _, err := os.Stat(file.Path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a file is there: %v", err)
			}
			if _, err := os.Stat(file.Path + download.Partial); (err == nil) != tc.part {
				t.Errorf("the part: %v, want it to stay: %v", err, tc.part)
			}
		})
	}
}

// A later call goes on with what an earlier one left; what is wrong in that is fetched again.
func TestFetchGoesOn(t *testing.T) {
	content := random(1 << 20)
	other := bytes.Clone(content[:500_000])
	other[1] ^= 1
	for name, tc := range map[string]struct {
		part []byte
		sent int64
	}{
		"good part":  {content[:500_000], 1<<20 - 500_000},
		"all of it":  {content, 0},
		"wrong part": {other, 1<<20 - 500_000 + 1<<20},
		"too much":   {append(bytes.Clone(content), 1), 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			s := &server{content: content}
			url, c := start(t, s)
			file := fileOf(t, url, content)
			if err := os.WriteFile(file.Path+download.Partial, tc.part, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := c.Fetch(t.Context(), file, func(int64) {}); err != nil {
				t.Fatal(err)
			}
			wantFile(t, file, content)
			if sent := s.sent.Load(); sent != tc.sent {
				t.Errorf("%d bytes were sent, want %d", sent, tc.sent)
			}
		})
	}
}

// A server that says nothing for long is asked again; cancelling does not wait for it.
func TestFetchFromSlowServer(t *testing.T) {
	content := random(300_000)
	quiet := make(chan struct{})
	t.Cleanup(func() { close(quiet) })
	s := &server{content: content, before: func(w http.ResponseWriter, r *http.Request, n int64) bool {
		if n == 1 {
			w.Write(content[:100_000])
			http.NewResponseController(w).Flush()
		}
		if n < 3 {
			select {
			case <-quiet:
			case <-r.Context().Done():
			}
		}
		return n < 3
	}}
	url, c := start(t, s)
	c.Idle = 50 * time.Millisecond
	file := fileOf(t, url, content)
	if err := c.Fetch(t.Context(), file, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	wantFile(t, file, content)
	if sent := s.sent.Load(); sent != 200_000 {
		t.Errorf("%d bytes were sent after the break, want 200000", sent)
	}

	s.requests.Store(0)
	c.Idle = time.Hour
	file = fileOf(t, url, content)
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Fetch(ctx, file, func(done int64) {
		if done > 0 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Fetch: %v", err)
	}
	if info, err := os.Stat(file.Path + download.Partial); err != nil || info.Size() == 0 {
		t.Errorf("what had come is gone: %v", err)
	}
}

// A full disk is told at once, and what has come stays.
func TestFetchOntoFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skipf("needs root: mounts a small file system")
	}
	content := random(1 << 20)
	s := &server{content: content}
	url, c := start(t, s)
	file := fileOf(t, url, content)
	dir := filepath.Dir(file.Path)
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("needs to mount tmpfs: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	if err := c.Fetch(t.Context(), file, func(int64) {}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Fetch: %v", err)
	}
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// Errors of the client's transport that have a kind are final.
func TestFetchRefusedByTransport(t *testing.T) {
	refused := &banger.Error{Kind: banger.ErrRefused, Op: "ask"}
	c := download.Client{HTTP: &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, refused })}}
	if err := c.Fetch(t.Context(), fileOf(t, "http://host.invalid/x", []byte("x")), func(int64) {}); !errors.Is(err, banger.ErrRefused) {
		t.Errorf("Fetch: %v", err)
	}
	broken := roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, ContentLength: -1, Body: io.NopCloser(strings.NewReader(""))}, nil
	})
	c = download.Client{HTTP: &http.Client{Transport: broken}, Pause: time.Microsecond}
	if err := c.Fetch(t.Context(), fileOf(t, "http://host.invalid/x", []byte("x")), func(int64) {}); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Fetch of nothing: %v", err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
