package catalog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/internal/testenv"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const lifetime = 90 * 24 * time.Hour

// newKey gives a key that is the same at each run.
func newKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(keys ...ed25519.PrivateKey) []ed25519.PublicKey {
	var all []ed25519.PublicKey
	for _, key := range keys {
		all = append(all, key.Public().(ed25519.PublicKey))
	}
	return all
}

// random is content that does not get smaller.
func random(n int) []byte {
	b := make([]byte, n)
	state := uint64(1)
	for i := range b {
		state = state*6364136223846793005 + 1442695040888963407
		b[i] = byte(state >> 56)
	}
	return b
}

var testParts = []Part{{"image.json", 1 << 20}, {"rootfs.ext4", 64 << 20}, {"boot-modules/*.ko", 1 << 20}}

func testFiles() []File {
	return []File{{Name: "image.json", Data: []byte("{}\n")}, {Name: "rootfs.ext4", Data: append(append(random(500<<10), make([]byte, 1<<20)...), "end"...)},
		{Name: "boot-modules/ext4.ko", Data: []byte("module")}}
}

// published makes a catalog with one image and one kernel.
func published(t testing.TB, key ed25519.PrivateKey) (dir string, index banger.Catalog) {
	t.Helper()
	dir = t.TempDir()
	b, err := Pack(t.Context(), dir, "app", testFiles(), func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	kernel := b
	kernel.Name = "debian"
	index, err = Publish(dir, []ed25519.PrivateKey{key}, Update{Now: now, Lifetime: lifetime,
		Images:  []banger.CatalogImage{{Bundle: b, Key: strings.Repeat("5eed", 16), Boot: banger.BootAgent, Kernel: "debian"}},
		Kernels: []banger.CatalogKernel{{Bundle: kernel, Version: "6.1.0-42-cloud-amd64"}}})
	if err != nil {
		t.Fatal(err)
	}
	return dir, index
}

func reader(t testing.TB, url string, keys ...ed25519.PrivateKey) *Catalog {
	t.Helper()
	state := t.TempDir()
	return New(Config{URL: url, Keys: public(keys...), Seen: filepath.Join(state, "catalog.json"), Cache: filepath.Join(state, "cache"), Now: func() time.Time { return now.Add(time.Hour) },
		Idle: 10 * time.Second, Pause: time.Millisecond})
}

func serve(t testing.TB, handler http.Handler) (url string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

func wantEmpty(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, entry := range entries {
		t.Errorf("left: %s", entry.Name())
	}
}

func fetchAndUnpack(t testing.TB, c *Catalog, b banger.Bundle) (dir string, err error) {
	t.Helper()
	f, err := c.Fetch(t.Context(), b, func(int64) {})
	if err != nil {
		return "", err
	}
	defer f.Close()
	dir = t.TempDir()
	return dir, Unpack(t.Context(), f, dir, testParts)
}

func TestRoundTrip(t *testing.T) {
	key := newKey(1)
	dir, want := published(t, key)
	files := http.FileServer(http.Dir(dir))
	for _, url := range []string{dir, filepath.Join(dir, "index.json"), serve(t, files), serve(t, files) + "/", serve(t, files) + "/index.json",
		serve(t, http.StripPrefix("/deep/er", files)) + "/deep/er"} {
		c := reader(t, url, newKey(9), key)
		got, err := c.Index(t.Context())
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Fatalf("%s: Index: %v\n%s", url, err, diff)
		}
		image, err := c.Image(t.Context(), "app")
		if err != nil {
			t.Fatal(err)
		}
		out, err := fetchAndUnpack(t, c, image.Bundle)
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		for _, f := range testFiles() {
			info, statErr := os.Stat(filepath.Join(out, f.Name))
			if got, err := os.ReadFile(filepath.Join(out, f.Name)); errors.Join(err, statErr) != nil || !bytes.Equal(got, f.Data) || info.Mode() != 0o444 {
				t.Errorf("%s: %s is not what was packed: %v", url, f.Name, errors.Join(err, statErr))
			}
		}
		wantEmpty(t, c.Cache)
		if _, err := c.Image(t.Context(), "ap"); !errors.Is(err, banger.ErrNotFound) || !strings.Contains(banger.HintOf(err), "app") {
			t.Errorf("unknown image: %v", err)
		}
		if kernel, err := c.Kernel(t.Context(), "debian"); err != nil || kernel.Version != "6.1.0-42-cloud-amd64" {
			t.Errorf("kernel: %+v, %v", kernel, err)
		}
		if _, err := c.Kernel(t.Context(), "app"); !errors.Is(err, banger.ErrNotFound) {
			t.Errorf("unknown kernel: %v", err)
		}
	}
	for _, c := range []*Catalog{nil, New(Config{})} {
		if _, err := c.Index(t.Context()); !errors.Is(err, banger.ErrNotFound) || banger.HintOf(err) == "" {
			t.Errorf("Index without a catalog: %v", err)
		}
	}
}

// rewrite publishes an index that Publish would not.
func rewrite(t *testing.T, dir string, key ed25519.PrivateKey, change func(map[string]any)) {
	t.Helper()
	path := filepath.Join(dir, indexName)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var index map[string]any
	if err := json.Unmarshal(text, &index); err != nil {
		t.Fatal(err)
	}
	change(index)
	if text, err = json.Marshal(index); err != nil {
		t.Fatal(err)
	}
	put(t, path, text)
	put(t, path+signatureEnding, formatSignatures(sign(text, []ed25519.PrivateKey{key})))
}

func put(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func first(index map[string]any, what string) map[string]any {
	return index[what].([]any)[0].(map[string]any)
}

func TestIndexIsRefused(t *testing.T) {
	key := newKey(1)
	set := func(name string, value any) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			rewrite(t, dir, key, func(index map[string]any) { index[name] = value })
		}
	}
	image := func(name string, value any) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			rewrite(t, dir, key, func(index map[string]any) { first(index, "images")[name] = value })
		}
	}
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, dir string)
		kind   error
		say    string
	}{
		{"tampered", func(t *testing.T, dir string) {
			text, err := os.ReadFile(filepath.Join(dir, indexName))
			if err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(dir, indexName), bytes.Replace(text, []byte("agent"), []byte("system"), 1))
		}, banger.ErrCorrupt, "changed after it was signed"},
		{"other key", func(t *testing.T, dir string) { rewrite(t, dir, newKey(2), func(map[string]any) {}) }, banger.ErrRefused, "not known here: " + KeyID(public(newKey(2))[0])},
		{"no signature", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, indexName+signatureEnding)) }, banger.ErrUnavailable, "index.json.sig"},
		{"empty signature", func(t *testing.T, dir string) { put(t, filepath.Join(dir, indexName+signatureEnding), nil) }, banger.ErrCorrupt, "signature"},
		{"bad signature", func(t *testing.T, dir string) { put(t, filepath.Join(dir, indexName+signatureEnding), []byte("x y\n")) }, banger.ErrCorrupt, "line 1"},
		{"many signatures", func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, indexName+signatureEnding), bytes.Repeat([]byte("\n"), maxSignatures+1))
		}, banger.ErrCorrupt, "lines"},
		{"long signature", func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, indexName+signatureEnding), make([]byte, maxSignatureFile+1))
		}, banger.ErrCorrupt, "16 KiB"},
		{"no index", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, indexName)) }, banger.ErrUnavailable, "index.json"},
		{"large index", func(t *testing.T, dir string) { put(t, filepath.Join(dir, indexName), make([]byte, maxIndex+1)) }, banger.ErrCorrupt, "8 MiB"},
		{"expired", set("expires", "2026-03-01T12:30:00Z"), banger.ErrRefused, "expired at 2026-03-01T12:30:00Z"},
		{"expires before it is made", set("expires", "2026-02-01T12:30:00Z"), banger.ErrCorrupt, "expires"},
		{"later version", set("version", 2), banger.ErrUnsupported, "version 2"},
		{"no version", set("version", nil), banger.ErrUnsupported, "version 0"},
		{"unknown field", set("mirrors", 1), banger.ErrCorrupt, "mirrors"},
		{"serial", set("serial", 0), banger.ErrCorrupt, "serial"},
		{"no object", func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, indexName), []byte("[]"))
			put(t, filepath.Join(dir, indexName+signatureEnding), formatSignatures(sign([]byte("[]"), []ed25519.PrivateKey{key})))
		}, banger.ErrCorrupt, ""},
		{"name", image("name", "../x"), banger.ErrCorrupt, "name"},
		{"digest", image("digest", "sha256:1"), banger.ErrCorrupt, "digest"},
		{"size", image("size_bytes", -1), banger.ErrCorrupt, "size"},
		{"huge size", image("size_bytes", int64(maxBundle)+1), banger.ErrCorrupt, "size"},
		{"boot", image("boot", "evil"), banger.ErrCorrupt, "boot"},
		{"key", image("key", "../../x"), banger.ErrCorrupt, "key"},
		{"kernel", image("kernel", "../x"), banger.ErrCorrupt, "kernel"},
		{"description", image("description", strings.Repeat("x", maxDescription+1)), banger.ErrCorrupt, "description"},
		{"url up", image("url", "../../etc/passwd"), banger.ErrCorrupt, "url"},
		{"url up, escaped", image("url", "%2e%2e/x"), banger.ErrCorrupt, "url"},
		{"absolute path", image("url", "/etc/passwd"), banger.ErrCorrupt, "url"},
		{"other host", image("url", "//evil.example/x"), banger.ErrCorrupt, "url"},
		{"scheme", image("url", "file:///etc/passwd"), banger.ErrCorrupt, "url"},
		{"credentials", image("url", "https://u:p@host/x"), banger.ErrCorrupt, "url"},
		{"kernel's version", func(t *testing.T, dir string) {
			rewrite(t, dir, key, func(index map[string]any) { first(index, "kernels")["version"] = "../6" })
		}, banger.ErrCorrupt, "version"},
		{"twice", func(t *testing.T, dir string) {
			rewrite(t, dir, key, func(index map[string]any) {
				index["images"] = append(index["images"].([]any), index["images"].([]any)...)
			})
		}, banger.ErrCorrupt, "twice"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, _ := published(t, key)
			tc.change(t, dir)
			for _, url := range []string{dir, serve(t, http.FileServer(http.Dir(dir)))} {
				c := reader(t, url, key)
				if index, err := c.Index(t.Context()); !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.say) {
					t.Errorf("%s: Index = %+v, %v, want %v with %q", url, index, err, tc.kind, tc.say)
				}
				wantEmpty(t, filepath.Dir(c.Seen))
			}
		})
	}
}

func TestOlderIndexIsRefused(t *testing.T) {
	key := newKey(1)
	keys := []ed25519.PrivateKey{key}
	dir, _ := published(t, key)
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	oldIndex, oldSignature := read(indexName), read(indexName+signatureEnding)
	c := reader(t, dir, key)
	want := func(serial int64, kind error, say string) {
		t.Helper()
		fresh := New(c.Config) // what is remembered survives the daemon
		index, err := fresh.Index(t.Context())
		if kind == nil && (err != nil || index.Serial != serial) || kind != nil && (!errors.Is(err, kind) || !strings.Contains(err.Error(), say) || !strings.Contains(banger.HintOf(err), c.Seen)) {
			t.Errorf("Index = serial %d, %v, want %d, %v %q", index.Serial, err, serial, kind, say)
		}
	}
	want(1, nil, "")
	want(1, nil, "")
	if _, err := Publish(dir, keys, Update{Now: now, Lifetime: lifetime}); err != nil {
		t.Fatal(err)
	}
	newSignature := read(indexName + signatureEnding)
	put(t, filepath.Join(dir, indexName), oldIndex) // a reader in the middle of a publication
	want(1, nil, "")
	put(t, filepath.Join(dir, indexName), read(indexName))
	if _, err := Publish(dir, keys, Update{Now: now, Lifetime: lifetime}); err != nil {
		t.Fatal(err)
	}
	want(2, nil, "")
	rewrite(t, dir, key, func(index map[string]any) { index["expires"] = "2027-01-01T00:00:00Z" })
	want(2, banger.ErrRefused, "other content")
	put(t, filepath.Join(dir, indexName), oldIndex)
	put(t, filepath.Join(dir, indexName+signatureEnding), oldSignature)
	want(1, banger.ErrRefused, "rolled back: it has serial 1, 2 was seen before")
	put(t, filepath.Join(dir, indexName+signatureEnding), newSignature)
	want(1, banger.ErrRefused, "rolled back")
	other := New(c.Config) // of another catalog nothing has been seen
	other.URL = filepath.Join(dir, indexName)
	if _, err := other.Index(t.Context()); err != nil {
		t.Error(err)
	}
	want(1, banger.ErrRefused, "rolled back")
	put(t, c.Seen, []byte("{"))
	want(1, banger.ErrCorrupt, "")
}

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

// A connection that is cut every 64 KiB costs about the bytes of one file.
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

// A disk that is full is told, and what can't be ended does not stay on it.
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

// What an interrupted call got is of use to the next one, also when it is damaged.
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

// What came whole when a daemon was killed goes; what came in part is of use.
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

func TestPublish(t *testing.T) {
	key := newKey(1)
	dir, _ := published(t, key)
	keys := []ed25519.PrivateKey{key}
	if _, err := Publish(dir, []ed25519.PrivateKey{newKey(2)}, Update{Now: now, Lifetime: lifetime}); !errors.Is(err, banger.ErrRefused) || !strings.Contains(banger.HintOf(err), "--key OLD") {
		t.Errorf("with another key: %v", err)
	}
	both := []ed25519.PrivateKey{newKey(2), key}
	b, err := Pack(t.Context(), dir, "zap", testFiles(), func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	entry := banger.CatalogImage{Bundle: b, Key: strings.Repeat("0", 64), Boot: banger.BootSystem}
	if _, err := Publish(dir, both, Update{Now: now, Lifetime: lifetime, Images: []banger.CatalogImage{entry}}); err != nil {
		t.Fatal(err)
	}
	entry.Name, entry.Description = "app", "new"
	index, err := Publish(dir, both[:1], Update{Now: now, Lifetime: lifetime, Images: []banger.CatalogImage{entry}})
	if err != nil || index.Serial != 3 || len(index.Images) != 2 || index.Images[0].Description != "new" || index.Images[1].Name != "zap" || len(index.Kernels) != 1 {
		t.Errorf("Publish = %+v, %v", index, err)
	}
	if _, err := reader(t, dir, newKey(2)).Index(t.Context()); err != nil {
		t.Errorf("the new key: %v", err)
	}
	if _, err := reader(t, dir, key).Index(t.Context()); !errors.Is(err, banger.ErrRefused) {
		t.Errorf("the old key: %v", err)
	}
	bad := entry
	for name, change := range map[string]func(){"a bundle that is not there": func() { bad.URL = "nosuch.tar.zst" }, "of another size": func() { bad.SizeBytes++ },
		"a bad entry": func() { bad.Boot = "evil" }, "a url up": func() { bad.URL = "../x" }} {
		bad = entry
		change()
		before, _ := os.ReadFile(filepath.Join(dir, indexName))
		if _, err := Publish(dir, both[:1], Update{Now: now, Lifetime: lifetime, Images: []banger.CatalogImage{bad}}); err == nil {
			t.Errorf("%s was published", name)
		}
		if after, _ := os.ReadFile(filepath.Join(dir, indexName)); !bytes.Equal(before, after) {
			t.Errorf("%s changed the index", name)
		}
	}
	if _, err := Publish(dir, both[:1], Update{Now: now, Lifetime: lifetime, WithoutImages: []string{"zapp"}}); !errors.Is(err, banger.ErrNotFound) || !strings.Contains(banger.HintOf(err), "zap") {
		t.Errorf("without what is not there: %v", err)
	}
	index, err = Publish(dir, both[:1], Update{Now: now, Lifetime: lifetime, WithoutImages: []string{"app"}, WithoutKernels: []string{"debian"}})
	if err != nil || len(index.Images) != 1 || index.Images[0].Name != "zap" || len(index.Kernels) != 0 {
		t.Errorf("without some: %+v, %v", index, err)
	}
	if read, err := reader(t, dir, newKey(2)).Index(t.Context()); err != nil || len(read.Kernels) != 0 || read.Kernels == nil {
		t.Errorf("without some, read: %+v, %v", read, err)
	}
	if _, err := Publish(filepath.Join(dir, "nosuch"), keys, Update{}); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("to nowhere: %v", err)
	}
	put(t, filepath.Join(dir, indexName), []byte("{}"))
	if _, err := Publish(dir, both, Update{Now: now, Lifetime: lifetime}); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("a tampered index was followed: %v", err)
	}
}

// A reader at any time finds an index with its signature and its bundles.
func TestPublishWhileOthersRead(t *testing.T) {
	key := newKey(1)
	dir, _ := published(t, key)
	done, turn := make(chan error, 1), make(chan struct{})
	go func() {
		var err error
		for i := 0; i < 30 && err == nil; i++ {
			<-turn
			_, err = Publish(dir, []ed25519.PrivateKey{key}, Update{Now: now, Lifetime: lifetime})
		}
		done <- err
	}()
	c := reader(t, dir, key)
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		case turn <- struct{}{}:
		}
		if _, err := c.Index(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	made, err := GenerateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ReadKey(path)
	if err != nil || !made.Equal(key.Public()) {
		t.Errorf("ReadKey: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := GenerateKey(path); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("over a key: %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKey(path); !errors.Is(err, banger.ErrRefused) || banger.HintOf(err) != "chmod 600 "+path {
		t.Errorf("that others can read: %v", err)
	}
	if _, err := ReadKey(path + "x"); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("that is not there: %v", err)
	}
	for _, text := range []string{"", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"} {
		other := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKey(other); !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// What the page says of other programs.
func TestOpenSSLAgrees(t *testing.T) {
	openssl := testenv.RequireTool(t, "openssl")
	made := filepath.Join(t.TempDir(), "openssl.pem")
	testenv.Run(t, openssl, "genpkey", "-algorithm", "ed25519", "-out", made)
	if err := os.Chmod(made, 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ReadKey(made)
	if err != nil {
		t.Fatal(err)
	}
	dir, _ := published(t, key)
	text, err := os.ReadFile(filepath.Join(dir, indexName+signatureEnding))
	if err != nil {
		t.Fatal(err)
	}
	signatures, err := parseSignatures(text)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "raw"), signatures[0].bytes)
	testenv.Run(t, openssl, "pkeyutl", "-verify", "-inkey", made, "-rawin", "-in", filepath.Join(dir, indexName), "-sigfile", filepath.Join(dir, "raw"))
}

func TestSamePackSameBytes(t *testing.T) {
	var first []byte
	for range 3 {
		dir := t.TempDir()
		path := filepath.Join(dir, "content")
		put(t, path, append(random(5<<20), bytes.Repeat([]byte("text "), 1<<20)...))
		if err := os.Chtimes(path, time.Time{}, time.Now()); err != nil {
			t.Fatal(err)
		}
		b, err := Pack(t.Context(), dir, "x", []File{{Name: "rootfs.ext4", Path: path}, {Name: "image.json", Data: []byte("{}")}}, func(int64) {})
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, b.URL))
		if err != nil || int64(len(text)) != b.SizeBytes {
			t.Fatal(err)
		}
		if first == nil {
			first = text
		}
		if !bytes.Equal(first, text) {
			t.Error("equal files gave other bytes")
		}
	}
}

func TestPackLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	content := filepath.Join(t.TempDir(), "content")
	put(t, content, random(4<<20))
	dir := t.TempDir()
	if _, err := Pack(ctx, dir, "x", []File{{Name: "a", Path: content}}, func(int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	for _, path := range []string{filepath.Join(dir, "nosuch"), dir} {
		if _, err := Pack(t.Context(), dir, "x", []File{{Name: "a", Path: path}}, func(int64) {}); err == nil {
			t.Errorf("%s was packed", path)
		}
	}
	wantEmpty(t, dir)
	left := filepath.Join(dir, ".x-abcdefgh"+stagingEnding)
	put(t, left, []byte("of a pack that was cut off"))
	used, err := os.Create(filepath.Join(dir, ".y-abcdefgh"+stagingEnding))
	if err == nil {
		err = syscall.Flock(int(used.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	if _, err := Pack(t.Context(), dir, "x", []File{{Name: "a"}}, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was cut off is still there: %v", err)
	}
	if _, err := os.Stat(used.Name()); err != nil {
		t.Errorf("what is being made: %v", err)
	}
	if _, err := Pack(t.Context(), filepath.Join(dir, "nosuch"), "x", nil, func(int64) {}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("to nowhere: %v", err)
	}
}
