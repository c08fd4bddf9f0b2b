package catalog

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger"
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

// A connection that is cut every 64 KiB costs about the bytes of one file.
// A disk that is full is told, and what can't be ended does not stay on it.
// What an interrupted call got is of use to the next one, also when it is damaged.
// What came whole when a daemon was killed goes; what came in part is of use.
// A reader at any time finds an index with its signature and its bundles.
// What the page says of other programs.
