package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"banger"
)

func TestServers(t *testing.T) {
	key := newKey(1)
	dir, _ := published(t, key)
	files := http.FileServer(http.Dir(dir))
	for _, tc := range []struct {
		name    string
		handler func(requests int, w http.ResponseWriter, r *http.Request)
		kind    error // nil: it works
	}{
		{"5xx at first", func(n int, w http.ResponseWriter, r *http.Request) {
			if n < 3 {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			files.ServeHTTP(w, r)
		}, nil},
		{"5xx", func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, banger.ErrUnavailable},
		{"404", func(_ int, w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, banger.ErrUnavailable},
		{"403", func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, banger.ErrRefused},
		{"redirect", func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				http.Redirect(w, r, r.URL.Path+"?again", http.StatusFound)
				return
			}
			files.ServeHTTP(w, r)
		}, nil},
		{"redirect loop", func(_ int, w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, banger.ErrUnavailable},
		{"redirect to another computer without encryption", func(_ int, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/index.json", http.StatusFound)
		}, banger.ErrRefused},
		{"cut", func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("x"))
		}, banger.ErrUnavailable},
	} {
		var requests, others atomic.Int64
		c := reader(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.UserAgent() != "banger" {
				others.Add(1)
			}
			tc.handler(int(requests.Add(1)), w, r)
		})), key)
		if _, err := c.Index(t.Context()); tc.kind == nil && err != nil || tc.kind != nil && !errors.Is(err, tc.kind) {
			t.Errorf("%s: Index: %v, want %v", tc.name, err, tc.kind)
		}
		if n := requests.Load(); others.Load() > 0 || n > maxRedirects+5 {
			t.Errorf("%s: %d requests, %d by others", tc.name, n, others.Load())
		}
	}
	c := reader(t, "http://192.0.2.1/", key)
	if _, err := c.Index(t.Context()); !errors.Is(err, banger.ErrRefused) || !strings.Contains(err.Error(), "without encryption") {
		t.Errorf("plain http: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	hanging := reader(t, serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })), key)
	if _, err := hanging.Index(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a server that hangs: %v", err)
	}
	slow := reader(t, serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })), key)
	slow = New(Config{URL: slow.URL, Keys: slow.Keys, Seen: slow.Seen, Idle: 10 * time.Millisecond, Pause: time.Millisecond})
	if _, err := slow.Index(t.Context()); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("a server that does not answer: %v", err)
	}
}

func TestFetchResumes(t *testing.T) {
	key := newKey(1)
	dir, index := published(t, key)
	b := index.Images[0].Bundle
	content, err := os.ReadFile(filepath.Join(dir, b.URL))
	if err != nil {
		t.Fatal(err)
	}
	var sent, requests atomic.Int64
	c := reader(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		from := 0
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
		w.Header().Set("Content-Length", fmt.Sprint(len(content)-from))
		if from > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
			w.WriteHeader(http.StatusPartialContent)
		}
		n, _ := w.Write(content[from:min(from+64<<10, len(content))])
		sent.Add(int64(n))
	})), key)
	if _, err := fetchAndUnpack(t, c, b); err != nil {
		t.Fatal(err)
	}
	if int(sent.Load()) != len(content) || int(requests.Load()) != (len(content)+64<<10-1)/(64<<10) {
		t.Errorf("%d requests gave %d bytes of %d", requests.Load(), sent.Load(), len(content))
	}
	wantEmpty(t, c.Cache)
}

func TestFetchWithoutSpace(t *testing.T) {
	key := newKey(1)
	dir, index := published(t, key)
	for _, url := range []string{dir, serve(t, http.FileServer(http.Dir(dir)))} {
		c := reader(t, url, key)
		if err := os.Mkdir(c.Cache, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", c.Cache, "tmpfs", 0, "size=64k"); err != nil {
			t.Skipf("needs to mount a tmpfs: %v", err)
		}
		_, err := c.Fetch(t.Context(), index.Images[0].Bundle, func(int64) {})
		if !errors.Is(err, banger.ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(banger.HintOf(err), c.Cache) {
			t.Errorf("%s: Fetch = %v (hint %q)", url, err, banger.HintOf(err))
		}
		wantEmpty(t, c.Cache)
		if err := syscall.Unmount(c.Cache, 0); err != nil {
			t.Error(err)
		}
	}
}

func TestFetchRefuses(t *testing.T) {
	key := newKey(1)
	dir, index := published(t, key)
	good := index.Images[0].Bundle
	content, err := os.ReadFile(filepath.Join(dir, good.URL))
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "changed"), append([]byte{content[0] ^ 1}, content[1:]...))
	put(t, filepath.Join(dir, "short"), content[:len(content)-1])
	put(t, filepath.Join(dir, "long"), append(bytes.Clone(content), 0))
	put(t, filepath.Join(dir, "empty"), nil)
	if err := os.Mkdir(filepath.Join(dir, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		url        string
		kind, http error
	}{
		{"changed", banger.ErrCorrupt, banger.ErrCorrupt}, {"short", banger.ErrCorrupt, banger.ErrCorrupt}, {"long", banger.ErrCorrupt, banger.ErrCorrupt},
		{"empty", banger.ErrCorrupt, banger.ErrCorrupt}, {"nosuch", banger.ErrUnavailable, banger.ErrUnavailable}, {"dir", banger.ErrCorrupt, banger.ErrCorrupt},
		{"http://192.0.2.1/x", banger.ErrRefused, banger.ErrRefused},
	} {
		b := good
		b.URL = tc.url
		for url, kind := range map[string]error{dir: tc.kind, serve(t, http.FileServer(http.Dir(dir))): tc.http} {
			c := reader(t, url, key)
			if f, err := c.Fetch(t.Context(), b, func(int64) {}); !errors.Is(err, kind) {
				t.Errorf("Fetch %s from %s = %v, %v, want %v", tc.url, url, f, err, kind)
			}
			if kind == banger.ErrCorrupt {
				wantEmpty(t, c.Cache)
			}
		}
	}
}

func TestFetchGoesOn(t *testing.T) {
	key := newKey(1)
	dir, index := published(t, key)
	b := index.Images[0].Bundle
	var sent atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	files := http.FileServer(http.Dir(dir))
	c := reader(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ctx.Err() != nil {
			files.ServeHTTP(&counting{w, &sent}, r)
			return
		}
		content, _ := os.ReadFile(filepath.Join(dir, b.URL))
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		w.Write(content[:300<<10])
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})), key)
	_, err := c.Fetch(ctx, b, func(int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
	entries, err := os.ReadDir(c.Cache)
	if err != nil || len(entries) != 1 {
		t.Fatalf("left: %v, %v", entries, err)
	}
	part, err := entries[0].Info()
	if err != nil || part.Size() < reportEvery {
		t.Fatalf("left: %v, %v", part, err)
	}
	if _, err := fetchAndUnpack(t, c, b); err != nil || sent.Load() != b.SizeBytes-part.Size() {
		t.Errorf("gone on: %v, %d bytes of %d", err, sent.Load(), b.SizeBytes)
	}
	put(t, filepath.Join(c.Cache, entries[0].Name()), make([]byte, 1000))
	if _, err := fetchAndUnpack(t, c, b); err != nil {
		t.Errorf("after damage: %v", err)
	}
	wantEmpty(t, c.Cache)
}

type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

func TestCleanUp(t *testing.T) {
	c := reader(t, t.TempDir())
	if err := c.CleanUp(); err != nil {
		t.Errorf("without a cache: %v", err)
	}
	if err := os.Mkdir(c.Cache, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(c.Cache, "whole"), []byte("x"))
	put(t, filepath.Join(c.Cache, "part.partial"), []byte("x"))
	if err := c.CleanUp(); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(c.Cache + "/*"); err != nil || len(left) != 1 || filepath.Base(left[0]) != "part.partial" {
		t.Errorf("left: %v, %v", left, err)
	}
}
