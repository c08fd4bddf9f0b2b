package testenv

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/klauspost/compress/gzip"
	"github.com/ulikunitz/xz"
)

// Mirror is a signed Debian archive on loopback, with a key of its own.
type Mirror struct {
	URL    string
	Key    *openpgp.Entity
	Served atomic.Int64 // bytes of all answers

	mu    sync.Mutex
	files map[string][]byte // by path
	lists map[string]string // by suite: its packages
	fault Fault
}

// Fault answers a request instead of next, or makes next do it. path is the file's.
type Fault func(w http.ResponseWriter, r *http.Request, path string, next http.HandlerFunc)

// NewMirror makes an empty archive, which is gone when the test ends.
func NewMirror(t testing.TB) *Mirror {
	t.Helper()
	m := &Mirror{Key: NewSigningKey(t), files: map[string][]byte{}, lists: map[string]string{}}
	server := httptest.NewServer(http.HandlerFunc(m.serve))
	t.Cleanup(server.Close)
	m.URL = server.URL + "/debian"
	return m
}

// NewSigningKey makes a key that is a year old.
func NewSigningKey(t testing.TB) *openpgp.Entity {
	t.Helper()
	made := func() time.Time { return time.Now().AddDate(-1, 0, 0) }
	key, err := openpgp.NewEntity("Test Archive", "", "test@example.org", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: made})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Keyring writes the public key to a file that everyone can read.
func (m *Mirror) Keyring(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	if err := m.Key.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "btkey")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "archive.gpg")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// Add puts a package into a suite that is not published yet and gives the path of its file. control is its control file.
func (m *Mirror) Add(suite, control string, deb []byte) (path string) {
	sum := digest(deb)
	path = "pool/main/" + sum[:12] + ".deb"
	m.Put(path, deb)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lists[suite] += strings.TrimSpace(control) + fmt.Sprintf("\nFilename: %s\nSize: %d\nSHA256: %s\n\n", path, len(deb), sum)
	return path
}

// AptDownload lets apt get a package, "name version", and gives its control file and its content.
func AptDownload(t testing.TB, pkg string) (control string, deb []byte) {
	t.Helper()
	cmd := exec.Command(RequireTool(t, "apt-get"), "download", "-qq", strings.Replace(pkg, " ", "=", 1))
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Logf("%v: %s", err, out)
		Skip(t, "a package mirror")
	}
	paths, err := filepath.Glob(filepath.Join(cmd.Dir, "*.deb"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("apt-get download gave %q, %v", paths, err)
	}
	if deb, err = os.ReadFile(paths[0]); err != nil {
		t.Fatal(err)
	}
	text, err := exec.Command(RequireTool(t, "dpkg-deb"), "--field", paths[0]).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(text), deb
}

// Release is what a suite says of itself.
type Release struct {
	Suite, Codename string
	Valid           time.Duration // 0: for ever
	Packed          []string      // endings of the lists of packages that there are; nil: ".xz", ".gz"
	NoHashes        bool          // no files by their digest
}

// Publish makes the lists of a suite and signs them.
func (m *Mirror) Publish(t testing.TB, r Release) {
	t.Helper()
	m.mu.Lock()
	list := []byte(m.lists[r.Codename])
	m.mu.Unlock()
	if r.Packed == nil {
		r.Packed = []string{".xz", ".gz"}
	}
	now := time.Now().UTC()
	text := fmt.Sprintf("Origin: Test\nSuite: %s\nCodename: %s\nDate: %s\n", r.Suite, r.Codename, now.Format(time.RFC1123))
	if r.Valid != 0 {
		text += "Valid-Until: " + now.Add(r.Valid).Format(time.RFC1123) + "\n"
	}
	if !r.NoHashes {
		text += "Acquire-By-Hash: yes\n"
	}
	text += "Architectures: amd64\nComponents: main\nDescription: a test\nSHA256:\n"
	base := "dists/" + r.Codename + "/"
	for _, ending := range r.Packed {
		const name = "main/binary-amd64/Packages"
		packed := pack(t, ending, list)
		text += fmt.Sprintf(" %s %16d %s\n", digest(packed), len(packed), name+ending)
		if !r.NoHashes {
			m.Put(base+"main/binary-amd64/by-hash/SHA256/"+digest(packed), packed)
		}
		m.Put(base+name+ending, packed)
	}
	m.Put(base+"InRelease", Clearsign(t, text, m.Key))
}

// Clearsign signs a text, by each of the keys.
func Clearsign(t testing.TB, text string, keys ...*openpgp.Entity) []byte {
	t.Helper()
	var private []*packet.PrivateKey
	for _, key := range keys {
		private = append(private, key.PrivateKey)
	}
	var b bytes.Buffer
	w, err := clearsign.EncodeMulti(&b, private, nil)
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return append(b.Bytes(), '\n')
}

// Get gives a file; nil when there is none.
func (m *Mirror) Get(path string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.files[path]
}

// Put changes or adds a file; nil removes it.
func (m *Mirror) Put(path string, content []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[path] = content
	if content == nil {
		delete(m.files, path)
	}
}

// Paths gives the paths of the files that begin so, in order.
func (m *Mirror) Paths(prefix string) (paths []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for path := range maps.Keys(m.files) {
		if strings.HasPrefix(path, prefix) {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// SetFault makes f answer; nil: nobody.
func (m *Mirror) SetFault(f Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

func (m *Mirror) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/debian/")
	m.mu.Lock()
	content, ok := m.files[path]
	fault := m.fault
	m.mu.Unlock()
	give := func(w http.ResponseWriter, r *http.Request) {
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", `"`+digest(content)[:16]+`"`)
		http.ServeContent(w, r, "", time.Unix(1, 0), bytes.NewReader(content))
	}
	counted := &countedWriter{w, m}
	if fault == nil {
		give(counted, r)
		return
	}
	fault(counted, r, path, give)
}

type countedWriter struct {
	http.ResponseWriter
	m *Mirror
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.m.Served.Add(int64(n))
	return n, err
}

func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// CutAfter ends the connection behind n bytes of the answer's body.
func CutAfter(w http.ResponseWriter, n int) http.ResponseWriter { return &cutWriter{w, n} }

type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if len(p) < w.left {
		w.left -= len(p)
		return w.ResponseWriter.Write(p)
	}
	_, _ = w.ResponseWriter.Write(p[:w.left])
	_ = http.NewResponseController(w.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// pack compresses as the ending says.
func pack(t testing.TB, ending string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch ending {
	case ".xz":
		w, err = xz.NewWriter(&out)
	case ".gz":
		w = gzip.NewWriter(&out)
	default:
		return b
	}
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
