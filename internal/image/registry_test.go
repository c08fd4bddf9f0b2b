package image

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	regname "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"banger"
	"banger/api"
	"banger/internal/testenv"
)

// layerServer stands before a registry and gives its layers with ranges, counted, and with faults.
type layerServer struct {
	next   http.Handler
	cut    int                                                    // bytes of one answer; 0: all
	before func(w http.ResponseWriter, r *http.Request) (ok bool) // of each request for a layer; false: it has answered

	mu   sync.Mutex
	sent map[string]int // bytes by path
	asks int
}

func serveLayers(t *testing.T) (*layerServer, string) {
	s := &layerServer{sent: map[string]int{}}
	host := serveRegistry(t, func(next http.Handler) http.Handler {
		s.next = next
		return s
	})
	return s, host
}

func (s *layerServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/sha256:") {
		s.next.ServeHTTP(w, r)
		return
	}
	whole := r.Clone(r.Context())
	whole.Header.Del("Range")
	answer := httptest.NewRecorder()
	s.next.ServeHTTP(answer, whole)
	body := answer.Body.Bytes()
	if answer.Code != http.StatusOK || bytes.HasPrefix(body, []byte("{")) { // a configuration
		w.WriteHeader(answer.Code)
		w.Write(body)
		return
	}
	s.mu.Lock()
	s.asks++
	s.mu.Unlock()
	if s.before != nil && !s.before(w, r) {
		return
	}
	http.ServeContent(&cutWriter{ResponseWriter: w, s: s, path: r.URL.Path, left: s.cut}, r, "", time.Time{}, bytes.NewReader(body))
}

func (s *layerServer) total() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.sent {
		n += k
	}
	return n
}

func (s *layerServer) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent, s.asks = map[string]int{}, 0
}

// cutWriter breaks the connection after some bytes.
type cutWriter struct {
	http.ResponseWriter
	s    *layerServer
	path string
	left int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	cut := w.s.cut > 0 && len(p) > w.left
	if cut {
		p = p[:w.left]
	}
	w.s.mu.Lock()
	w.s.sent[w.path] += len(p) // before: who asked may look as soon as it has them
	w.s.mu.Unlock()
	n, err := w.ResponseWriter.Write(p)
	w.left -= n
	if cut {
		http.NewResponseController(w.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// noise is content that does not get smaller when it is packed.
func noise(seed uint64, n int) string {
	source, b := rand.New(rand.NewPCG(1, seed)), make([]byte, n)
	for i := range b {
		b[i] = byte(source.Uint32())
	}
	return string(b)
}

// bigImage has layers of noise, each of its own file.
func bigImage(t *testing.T, seeds ...uint64) v1.Image {
	layers := [][]byte{tarOf(t, rootEntries()...)}
	for _, seed := range seeds {
		layers = append(layers, tarOf(t, text(fmt.Sprint("noise", seed), noise(seed, 700_000))))
	}
	return imageOf(t, "amd64", layers...)
}

func sizeOf(t *testing.T, img v1.Image) (n int) {
	t.Helper()
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range manifest.Layers {
		n += int(l.Size)
	}
	return n
}

func wantFiles(t *testing.T, m *Manager, image banger.Image, seeds ...uint64) {
	t.Helper()
	list := paths(t, m.Dir.Image(image.Key).Rootfs())
	for _, seed := range seeds {
		if want := fmt.Sprintf("noise%d=%s", seed, noise(seed, 700_000)); !slices.ContainsFunc(list, func(s string) bool {
			return strings.HasPrefix(s, fmt.Sprint("noise", seed)) && strings.Contains(s, noise(seed, 700_000))
		}) {
			t.Errorf("no %.20q… in the image", want)
		}
	}
	wantNoStaging(t, m)
}

func wantNoStaging(t *testing.T, m *Manager) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(m.Dir.Images(), ".*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A connection that breaks every 64 KiB costs no byte twice.
func TestPullOverBreakingConnections(t *testing.T) {
	s, host := serveLayers(t)
	img := bigImage(t, 1, 2, 3)
	push(t, host+"/app:1", img)
	s.cut = 64 << 10
	m := newManager(t, "exit 1")
	image, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantFiles(t, m, image, 1, 2, 3)
	if got, want := s.total(), sizeOf(t, img); got != want {
		t.Errorf("%d bytes were sent of %d", got, want)
	}
}

// What is in the cache costs nothing: the same image under another name, and the layers that another image shares.
func TestPullFromCache(t *testing.T) {
	s, host := serveLayers(t)
	one, two := bigImage(t, 1, 2), bigImage(t, 1, 3)
	push(t, host+"/one:1", one)
	push(t, host+"/two:1", two)
	m := newManager(t, "exit 1")
	pull := func(req api.PullRequest) (image banger.Image, sent int) {
		t.Helper()
		s.forget()
		image, err := m.Pull(t.Context(), req, nil)
		if err != nil {
			t.Fatal(err)
		}
		return image, s.total()
	}
	first, sent := pull(api.PullRequest{Ref: host + "/one:1"})
	if want := sizeOf(t, one); sent != want {
		t.Errorf("the first pull took %d bytes, want %d", sent, want)
	}
	again, sent := pull(api.PullRequest{Ref: host + "/one:1"})
	if again.Key != first.Key || sent != 0 {
		t.Errorf("the same again: key %s, want %s; %d bytes", again.Key, first.Key, sent)
	}
	if _, sent = pull(api.PullRequest{Ref: host + "/one:1", Name: "other"}); sent != 0 {
		t.Errorf("another name took %d bytes", sent)
	}
	image, sent := pull(api.PullRequest{Ref: host + "/two:1"})
	wantFiles(t, m, image, 1, 3)
	manifest, err := two.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if want := int(manifest.Layers[2].Size); sent != want {
		t.Errorf("the image with one other layer took %d bytes, want %d", sent, want)
	}
}

// A cached layer that is wrong, as a computer that lost power leaves it, is fetched again.
func TestPullFromDamagedCache(t *testing.T) {
	s, host := serveLayers(t)
	push(t, host+"/app:1", bigImage(t, 1, 2))
	m := newManager(t, "exit 1")
	if _, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1"}, nil); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(m.Dir.Blobs(), "*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("in the cache: %v, %v", files, err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err == nil {
			err = os.WriteFile(file, make([]byte, info.Size()), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.forget()
	image, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1", Name: "again"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantFiles(t, m, image, 1, 2)
}

// The tag that moves back to what it was makes the older image the one of its name again.
func TestPullOfTagThatMovesBack(t *testing.T) {
	host := serveRegistry(t, nil)
	m := newManager(t, "exit 1")
	now := time.Unix(1e9, 0)
	m.Now = func() time.Time { now = now.Add(time.Second); return now }
	var keys []string
	for _, seed := range []uint64{1, 2, 1} {
		push(t, host+"/app:1", bigImage(t, seed))
		image, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if newest, err := m.Resolve("app-1"); err != nil || newest.Key != image.Key {
			t.Errorf("the image of the name is %s, %v, want %s", newest.Key, err, image.Key)
		}
		keys = append(keys, image.Key)
	}
	if keys[0] != keys[2] || keys[0] == keys[1] {
		t.Errorf("keys: %v", keys)
	}
}

// Equal pulls share one; who leaves does not end it for the other. Different images share a layer that is on its way.
func TestPullsShare(t *testing.T) {
	s, host := serveLayers(t)
	push(t, host+"/one:1", bigImage(t, 1, 2))
	push(t, host+"/two:1", bigImage(t, 1, 3))
	gate := make(chan struct{})
	var waiting atomic.Int64
	s.before = func(_ http.ResponseWriter, r *http.Request) bool {
		waiting.Add(1)
		select {
		case <-gate:
		case <-r.Context().Done():
		}
		return true
	}
	m := newManager(t, "exit 1")
	ctx, leave := context.WithCancel(t.Context())
	images, errs := make([]banger.Image, 4), make([]error, 4)
	left := make(chan struct{})
	var group sync.WaitGroup
	for i, ref := range []string{"/one:1", "/one:1", "/two:1", "/one:1"} {
		ctx := ctx
		if i != 1 {
			ctx = t.Context()
		}
		began := make(chan struct{})
		var once sync.Once
		group.Go(func() {
			images[i], errs[i] = m.Pull(ctx, api.PullRequest{Ref: host + ref}, func(banger.Progress) { once.Do(func() { close(began) }) })
			if i == 1 {
				close(left)
			}
		})
		<-began
	}
	testenv.WaitFor(t, 10*time.Second, "all layers to be asked for", func() bool { return waiting.Load() == 4 })
	leave()
	<-left
	close(gate)
	group.Wait()
	if errs[0] != nil || !errors.Is(errs[1], banger.ErrInterrupted) || errs[2] != nil || errs[3] != nil || images[0].Key != images[3].Key {
		t.Fatalf("errors: %v; keys %s and %s", errs, images[0].Key, images[3].Key)
	}
	wantFiles(t, m, images[0], 1, 2)
	wantFiles(t, m, images[2], 1, 3)
	if s.asks != 4 {
		t.Errorf("%d downloads of 4 layers", s.asks)
	}
}

// A pull that is given up leaves no image; what has come is gone on with.
func TestPullGoesOnLater(t *testing.T) {
	s, host := serveLayers(t)
	img := bigImage(t, 1)
	push(t, host+"/app:1", img)
	s.cut = 300_000
	broken := make(chan struct{})
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") != "" {
			close(broken)
			<-r.Context().Done()
			return false
		}
		return true
	}
	m := newManager(t, "exit 1")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-broken; cancel() }()
	if _, err := m.Pull(ctx, api.PullRequest{Ref: host + "/app:1"}, nil); !errors.Is(err, banger.ErrInterrupted) {
		t.Fatalf("Pull: %v", err)
	}
	wantNothing(t, m)
	s.cut, s.before = 0, nil
	image, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantFiles(t, m, image, 1)
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	broke := manifest.Layers[1] // the other may have been on its way when the pull ended
	if got := s.sent["/v2/app/blobs/"+broke.Digest.String()]; got != int(broke.Size) {
		t.Errorf("%d bytes were sent of %d", got, broke.Size)
	}
}

// Faults of a registry give their kind of error, and no image.
func TestPullFromFaultyRegistry(t *testing.T) {
	answer := func(status int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(status); return false }
	}
	for name, tc := range map[string]struct {
		before func(w http.ResponseWriter, r *http.Request) bool
		want   error
	}{
		"gone":          {answer(404), banger.ErrNotFound},
		"forbidden":     {answer(403), banger.ErrRefused},
		"redirect loop": {func(w http.ResponseWriter, r *http.Request) bool { http.Redirect(w, r, r.URL.Path, 307); return false }, banger.ErrUnavailable},
		"redirect to the clear": {func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "http://10.255.255.1/x", 307)
			return false
		}, banger.ErrRefused},
		"wrong bytes": {func(w http.ResponseWriter, r *http.Request) bool { w.Write([]byte(noise(9, 700_000))); return false }, banger.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			s, host := serveLayers(t)
			push(t, host+"/app:1", bigImage(t, 1))
			s.before = tc.before
			m := newManager(t, "exit 1")
			if _, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1"}, nil); !errors.Is(err, tc.want) {
				t.Errorf("Pull: %v, want %v", err, tc.want)
			}
			wantNothing(t, m)
		})
	}
}

// putManifest gives a registry a manifest that says what a test wants.
func putManifest(t *testing.T, host, repo string, manifest *v1.Manifest) {
	t.Helper()
	raw, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPut, "http://"+host+"/v2/"+repo+"/manifests/1", bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", string(types.OCIManifestSchema1))
	answer, err := http.DefaultClient.Do(req)
	if err != nil || answer.StatusCode != http.StatusCreated {
		t.Fatalf("put manifest: %v %v", answer, err)
	}
	answer.Body.Close()
}

// Manifests that do not hold what they say are refused before anything is downloaded, or when it shows.
func TestPullOfBadManifest(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(m *v1.Manifest)
		want   error
	}{
		"unknown layer type": {func(m *v1.Manifest) { m.Layers[1].MediaType = "application/x-thing" }, banger.ErrInvalid},
		"foreign layer":      {func(m *v1.Manifest) { m.Layers[1].MediaType = types.DockerForeignLayer }, banger.ErrInvalid},
		"no layers":          {func(m *v1.Manifest) { m.Layers = nil }, banger.ErrInvalid},
		"one layer less":     {func(m *v1.Manifest) { m.Layers = m.Layers[1:] }, banger.ErrInvalid},
		"layers swapped":     {func(m *v1.Manifest) { m.Layers[0], m.Layers[1] = m.Layers[1], m.Layers[0] }, banger.ErrCorrupt},
		"size too small":     {func(m *v1.Manifest) { m.Layers[1].Size-- }, banger.ErrCorrupt},
		"size too large":     {func(m *v1.Manifest) { m.Layers[1].Size++ }, banger.ErrCorrupt},
		"negative size":      {func(m *v1.Manifest) { m.Layers[1].Size = -1 }, banger.ErrInvalid},
		"other digest":       {func(m *v1.Manifest) { m.Layers[1].Digest.Algorithm = "sha512" }, banger.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			host := serveRegistry(t, nil)
			img := bigImage(t, 1)
			push(t, host+"/app:1", img)
			manifest, err := img.Manifest()
			if err != nil {
				t.Fatal(err)
			}
			manifest = manifest.DeepCopy()
			tc.change(manifest)
			putManifest(t, host, "app", manifest)
			m := newManager(t, "exit 1")
			if _, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1"}, nil); !errors.Is(err, tc.want) {
				t.Errorf("Pull: %v, want %v", err, tc.want)
			}
			wantNothing(t, m)
		})
	}
}

// An index without this platform says which it has; a layer that is no tar is told.
func TestPullOfWrongPlatform(t *testing.T) {
	host := serveRegistry(t, nil)
	var adds []mutate.IndexAddendum
	for _, arch := range []string{"arm64", "riscv64"} {
		adds = append(adds, mutate.IndexAddendum{Add: imageOf(t, arch, tarOf(t, rootEntries()...)), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	push(t, host+"/multi:1", mutate.AppendManifests(empty.Index, adds...))
	broken, err := mutate.AppendLayers(imageOf(t, "amd64"), static.NewLayer([]byte("no tar, and no gzip"), types.OCILayer))
	if err != nil {
		t.Fatal(err)
	}
	push(t, host+"/broken:1", broken)
	m := newManager(t, "exit 1")
	if _, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/multi:1"}, nil); !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), "linux/arm64, linux/riscv64") {
		t.Errorf("Pull: %v", err)
	}
	if _, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/multi:1", Platform: "linux/arm64"}, nil); !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), "linux/amd64") {
		t.Errorf("Pull: %v", err)
	}
	if _, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/broken:1"}, nil); err == nil || banger.KindName(err) == "internal" {
		t.Errorf("Pull of no tar: %v", err)
	}
	wantNothing(t, m)
}

// A bearer token that ends while layers come is got anew.
func TestPullWithTokens(t *testing.T) {
	var mu sync.Mutex
	left := map[string]int{} // uses of each token
	s := &layerServer{sent: map[string]int{}, cut: 64 << 10}
	host := serveRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			if r.URL.Path == "/token" {
				token := fmt.Sprint("t", len(left))
				left[token] = 5
				fmt.Fprintf(w, `{"token":%q}`, token)
				mu.Unlock()
				return
			}
			token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			left[token]--
			good := left[token] >= 0
			mu.Unlock()
			if good {
				s.ServeHTTP(w, r)
				return
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
		})
	})
	img := bigImage(t, 1)
	direct := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s.next = direct
	server := httptest.NewServer(direct)
	defer server.Close()
	push(t, strings.TrimPrefix(server.URL, "http://")+"/app:1", img)
	m := newManager(t, "exit 1")
	image, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantFiles(t, m, image, 1)
	if len(left) < 3 {
		t.Errorf("%d tokens: none ended", len(left))
	}
}

// A registry with an authority of its own is trusted when docker's directory says so.
func TestPullOverTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "https://")
	ref, err := regname.ParseReference(host + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, bigImage(t, 1), remote.WithTransport(server.Client().Transport)); err != nil {
		t.Fatal(err)
	}
	m := newManager(t, "exit 1")
	dir := t.TempDir()
	m.registries.CertDirs = []string{dir}
	if _, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1"}, nil); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("without the authority: %v", err)
	}
	wantNothing(t, m)
	if err := os.MkdirAll(filepath.Join(dir, host), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, host, "ca.crt")
	if err := os.WriteFile(file, []byte("no certificate"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1"}, nil); !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), file) {
		t.Errorf("with no certificate: %v", err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	image, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantFiles(t, m, image, 1)
}

// A disk that is full at any point gives one error, and nothing is left but layers that came.
func TestPullOntoFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skipf("needs root: mounts small file systems")
	}
	host := serveRegistry(t, nil)
	push(t, host+"/app:1", bigImage(t, 1, 2))
	for kib := 64; ; kib += 150 {
		m := newManager(t, "exit 1")
		if err := syscall.Mount("none", m.Dir.Root, "tmpfs", 0, fmt.Sprintf("mode=700,size=%dk", kib)); err != nil {
			t.Skipf("needs to mount tmpfs: %v", err)
		}
		t.Cleanup(func() { syscall.Unmount(m.Dir.Root, syscall.MNT_DETACH) })
		if err := m.Dir.Ensure(); err != nil {
			t.Fatal(err)
		}
		image, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1"}, nil)
		if err == nil {
			wantFiles(t, m, image, 1, 2)
			if kib < 2000 {
				t.Errorf("%d KiB were enough", kib)
			}
			return
		}
		if !errors.Is(err, banger.ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(banger.HintOf(err), "image cache prune") {
			t.Errorf("%d KiB: %v, %q", kib, err, banger.HintOf(err))
		}
		wantNothing(t, m)
	}
}

// Debian's registry server with TLS and a password.
func TestPullFromRealRegistryOverTLS(t *testing.T) {
	skopeo := testenv.RequireTool(t, "skopeo")
	layout := umociLayout(t)
	registry := testenv.StartRegistry(t, true, true)
	dir := t.TempDir()
	certs := filepath.Join(dir, registry.Host)
	if err := errors.Join(os.Mkdir(certs, 0o755), os.Symlink(filepath.Join(registry.Dir, "ca.crt"), filepath.Join(certs, "ca.crt"))); err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, skopeo, "copy", "-q", "--dest-cert-dir", certs, "--dest-creds", testenv.RegistryCredentials, "oci:"+layout+":app", "docker://"+registry.Host+"/team/app:1")
	m := newManager(t, "")
	m.registries.CertDirs = []string{dir}
	t.Setenv("DOCKER_CONFIG", registry.Dir)
	image, err := m.Pull(t.Context(), api.PullRequest{Ref: registry.Host + "/team/app:1"}, nil)
	wantUmoci(t, m, image, err)
}
