package image

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
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"banger"
	"banger/api"
	"banger/internal/catalog"
	"banger/internal/statedir"
	"banger/internal/tree"
)

var signer = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// publishApp makes a catalog with one image and gives the manager that made it.
func publishApp(t *testing.T, kernel string) (dir string, m *Manager, image banger.Image, entry banger.CatalogImage) {
	t.Helper()
	m, dir = newManager(t, "exit 1"), t.TempDir()
	img := imageOf(t, "amd64", tarOf(t, append(rootEntries(), text("usr/large", strings.Repeat("0123456789abcdef", 20000)))...))
	image, err := m.Import(t.Context(), api.ImportRequest{Name: "app", Path: layoutOf(t, img), Kernel: kernel}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if entry, err = m.Bundle(t.Context(), "app", dir, nil); err != nil {
		t.Fatal(err)
	}
	publishEntry(t, dir, entry)
	return dir, m, image, entry
}

func publishEntry(t *testing.T, dir string, entry banger.CatalogImage) {
	t.Helper()
	if _, err := catalog.Publish(dir, []ed25519.PrivateKey{signer}, catalog.Update{Images: []banger.CatalogImage{entry}, Now: time.Now(), Lifetime: time.Hour}); err != nil {
		t.Fatal(err)
	}
}

// newReader makes a manager with the catalog at url.
func newReader(t *testing.T, url string) *Manager {
	t.Helper()
	m := newManager(t, "exit 1")
	m.Catalog = catalog.New(catalog.Config{URL: url, Keys: []ed25519.PublicKey{signer.Public().(ed25519.PublicKey)}, Seen: m.Dir.CatalogSeen(), Cache: m.Dir.Bundles(), Pause: time.Millisecond})
	return m
}

func sameFile(t *testing.T, a, b string) {
	t.Helper()
	one, err := os.ReadFile(a)
	two, err2 := os.ReadFile(b)
	if errors.Join(err, err2) != nil || !bytes.Equal(one, two) {
		t.Errorf("%s and %s differ: %v", a, b, errors.Join(err, err2))
	}
}

func TestPullFromCatalog(t *testing.T) {
	dir, publisher, published, entry := publishApp(t, "some-kernel")
	var bundles atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".zst") {
			bundles.Add(1)
		}
		http.FileServer(http.Dir(dir)).ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	for _, url := range []string{dir, server.URL} {
		m := newReader(t, url)
		var kernels, texts []string
		m.EnsureKernel = func(_ context.Context, name string, _ banger.ProgressFunc) error {
			kernels = append(kernels, name)
			return nil
		}
		for range 2 {
			got, err := m.Pull(t.Context(), api.PullRequest{Ref: "app"}, func(p banger.Progress) { texts = append(texts, p.Text) })
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(published, got, cmpopts.IgnoreFields(banger.Image{}, "Source", "CreatedAt")); diff != "" || got.Source != "catalog "+url || got.Kernel != "some-kernel" {
				t.Errorf("%s, from %q (-published +got):\n%s", url, got.Source, diff)
			}
			sameFile(t, publisher.Dir.Image(published.Key).Rootfs(), m.Dir.Image(got.Key).Rootfs())
			sameFile(t, publisher.Dir.Image(published.Key).Seed(), m.Dir.Image(got.Key).Seed())
			if read, err := m.Get(got.Key); err != nil || cmp.Diff(got, read) != "" {
				t.Errorf("Get = %+v, %v", read, err)
			}
		}
		if cmp.Diff([]string{"some-kernel", "some-kernel"}, kernels) != "" || !strings.Contains(texts[0], "from the catalog "+url) {
			t.Errorf("kernels %q, progress %q", kernels, texts[0])
		}
		for _, req := range []api.PullRequest{{Ref: "app", Name: "mine"}, {Ref: "app", Boot: banger.BootSystem}, {Ref: "app", Kernel: "x"}} {
			if _, err := m.Pull(t.Context(), req, nil); !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), "as it is") {
				t.Errorf("Pull %+v: %v", req, err)
			}
		}
		if _, err := m.FromCatalog(t.Context(), "nosuch", nil); !errors.Is(err, banger.ErrNotFound) {
			t.Errorf("an image that is not in it: %v", err)
		}
	}
	if n := bundles.Load(); n != 1 {
		t.Errorf("%d downloads, want one", n)
	}
	again, err := publisher.Bundle(t.Context(), "app", t.TempDir(), nil)
	if err != nil || again != entry {
		t.Errorf("Bundle again = %+v, %v, want %+v", again, err, entry)
	}
	if _, err := publisher.Bundle(t.Context(), "nosuch", dir, nil); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("Bundle of an image that is not there: %v", err)
	}
	if _, err := newManager(t, "").FromCatalog(t.Context(), "app", nil); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("without a catalog: %v", err)
	}
}

// Two who pull the same image download it once.
func TestPullsFromCatalogShare(t *testing.T) {
	dir, _, _, _ := publishApp(t, "")
	asked := make(chan struct{})
	var bundles atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".zst") {
			bundles.Add(1)
			<-asked
		}
		http.FileServer(http.Dir(dir)).ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	m := newReader(t, server.URL)
	var begun, group sync.WaitGroup
	begun.Add(2)
	for range 2 {
		group.Go(func() {
			once := sync.OnceFunc(begun.Done)
			if _, err := m.FromCatalog(t.Context(), "app", func(banger.Progress) { once() }); err != nil {
				t.Error(err)
			}
		})
	}
	begun.Wait()
	close(asked)
	group.Wait()
	if n := bundles.Load(); n != 1 {
		t.Errorf("%d downloads, want one", n)
	}
}

// repack makes a bundle of what is in another, changed.
func repack(t *testing.T, dir string, from *Manager, image banger.Image, change func(map[string][]byte)) banger.Bundle {
	t.Helper()
	said := image
	said.CreatedAt = time.Unix(0, 0)
	manifest, err := json.Marshal(said)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := os.ReadFile(from.Dir.Image(image.Key).Seed())
	rootfs, err2 := os.ReadFile(from.Dir.Image(image.Key).Rootfs())
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	content := map[string][]byte{bundleManifest: manifest, bundleSeed: seed, bundleRootfs: rootfs}
	change(content)
	var files []catalog.File
	for _, name := range []string{bundleManifest, bundleSeed, bundleRootfs} {
		if content[name] != nil {
			files = append(files, catalog.File{Name: name, Data: content[name]})
		}
	}
	b, err := catalog.Pack(t.Context(), dir, image.Name, files, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPullOfBadBundle(t *testing.T) {
	dir, publisher, image, entry := publishApp(t, "")
	manifest := func(change func(*banger.Image)) func(map[string][]byte) {
		return func(content map[string][]byte) {
			said := image
			change(&said)
			content[bundleManifest], _ = json.Marshal(said)
		}
	}
	seed := func(entries ...tree.Entry) func(map[string][]byte) {
		return func(content map[string][]byte) { content[bundleSeed] = tarOf(t, entries...) }
	}
	for _, tc := range []struct {
		name   string
		change func(map[string][]byte)
		say    string
	}{
		{"other name", manifest(func(i *banger.Image) { i.Name = "../evil" }), "../evil"},
		{"other key", manifest(func(i *banger.Image) { i.Key = strings.Repeat("0", 64) }), "index says"},
		{"other boot kind", manifest(func(i *banger.Image) { i.Boot = "evil" }), "evil"},
		{"other kernel", manifest(func(i *banger.Image) { i.Kernel = "evil" }), "evil"},
		{"other size", manifest(func(i *banger.Image) { i.SizeBytes++ }), "its manifest says"},
		{"bad environment", manifest(func(i *banger.Image) { i.Config.Env = []string{"=x"} }), "environment"},
		{"bad command", manifest(func(i *banger.Image) { i.Config.Cmd = []string{"a\x00b"} }), "image.json"},
		{"no manifest", func(c map[string][]byte) { delete(c, bundleManifest) }, "no image.json"},
		{"manifest that is none", func(c map[string][]byte) { c[bundleManifest] = []byte("[]") }, "image.json"},
		{"base that is none", func(c map[string][]byte) { c[bundleRootfs] = make([]byte, len(c[bundleRootfs])) }, "rootfs.ext4"},
		{"cut base", func(c map[string][]byte) { c[bundleRootfs] = c[bundleRootfs][:len(c[bundleRootfs])/2] }, "rootfs.ext4"},
		{"damaged base", func(c map[string][]byte) { damage(c[bundleRootfs]) }, "faults"},
		{"seed that is no tar", func(c map[string][]byte) { c[bundleSeed] = bytes.Repeat([]byte("x"), 4096) }, "seed.tar"},
		{"seed with a device", seed(tree.Entry{Path: "null", Kind: tree.CharDevice, Mode: 0o666}), "no place"},
		{"seed of another user", seed(tree.Entry{Path: "a", Kind: tree.Dir, Mode: 0o755, UID: 7}), "no place"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			image.Config = &banger.ImageConfig{Env: []string{"A=1"}}
			bad := entry
			bad.Bundle = repack(t, dir, publisher, image, tc.change)
			publishEntry(t, dir, bad)
			m := newReader(t, dir)
			if got, err := m.Pull(t.Context(), api.PullRequest{Ref: "app"}, nil); !errors.Is(err, banger.ErrCorrupt) || !strings.Contains(err.Error(), tc.say) {
				t.Errorf("Pull = %+v, %v, want corrupt with %q", got, err, tc.say)
			}
			wantNothing(t, m)
		})
	}
	image.Config = &banger.ImageConfig{Env: []string{"A=1"}}
	good := entry
	good.Bundle = repack(t, dir, publisher, image, func(map[string][]byte) {})
	publishEntry(t, dir, good)
	if _, err := newReader(t, dir).Pull(t.Context(), api.PullRequest{Ref: "app"}, nil); err != nil {
		t.Errorf("what was not changed: %v", err)
	}
}

// damage turns bits around in every block behind the superblock and its descriptors.
func damage(base []byte) {
	for i := 4096 * 2; i < len(base); i += 4096 {
		for j := range 64 {
			base[i+j] ^= 0xff
		}
	}
}

// A catalog that can't be believed is told, and the registry is not asked instead.
func TestPullFromBadCatalog(t *testing.T) {
	dir, _, _, _ := publishApp(t, "")
	m := newReader(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Pull(t.Context(), api.PullRequest{Ref: "app"}, nil); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("Pull = %v", err)
	}
	wantNothing(t, m)
}

func TestPullFromCatalogWithoutItsKernel(t *testing.T) {
	dir, _, _, _ := publishApp(t, "some-kernel")
	m := newReader(t, dir)
	m.EnsureKernel = func(context.Context, string, banger.ProgressFunc) error {
		return &banger.Error{Kind: banger.ErrUnavailable, Err: errors.New("no kernel")}
	}
	if _, err := m.Pull(t.Context(), api.PullRequest{Ref: "app"}, nil); !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), "no kernel") {
		t.Errorf("Pull = %v", err)
	}
	wantNothing(t, m)
}

const (
	killedURL   = "BANGER_TEST_KILLED_URL" // what a child of the test below pulls from
	killedState = "BANGER_TEST_KILLED_STATE"
	killedEvent = "BANGER_TEST_KILLED_EVENT" // at which it is killed
)

// A pull that is killed at any of its events leaves a whole image or none, and what else it leaves CleanUp removes.
func TestPullFromCatalogKilled(t *testing.T) {
	if url := os.Getenv(killedURL); url != "" {
		pullAndDie(t, url)
		return
	}
	dir, _, published, _ := publishApp(t, "some-kernel")
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(server.Close)
	for event := 0; ; event++ {
		m := newReader(t, server.URL)
		child := exec.Command(os.Args[0], "-test.run=^TestPullFromCatalogKilled$")
		child.Env = append(os.Environ(), killedURL+"="+server.URL, killedState+"="+m.Dir.Root, fmt.Sprintf("%s=%d", killedEvent, event))
		out, err := child.CombinedOutput()
		if err != nil && child.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("event %d: %v: %s", event, err, out)
		}
		if cleanErr := errors.Join(m.CleanUp(t.Context()), m.Catalog.CleanUp()); cleanErr != nil {
			t.Error(cleanErr)
		}
		images, listErr := m.List()
		if listErr != nil || err == nil && len(images) != 1 {
			t.Fatalf("event %d: %v, %v", event, images, listErr)
		}
		if len(images) == 0 {
			wantNothing(t, m)
		}
		if got, err := m.Pull(t.Context(), api.PullRequest{Ref: "app"}, nil); err != nil || got.Key != published.Key {
			t.Errorf("event %d: Pull afterwards = %+v, %v", event, got, err)
		}
		if err == nil {
			if event < 4 {
				t.Errorf("the pull had %d events", event)
			}
			return
		}
	}
}

// pullAndDie pulls in a process that is killed on the way. It returns when nothing killed it.
func pullAndDie(t *testing.T, url string) {
	last, err := strconv.Atoi(os.Getenv(killedEvent))
	if err != nil {
		t.Fatal(err)
	}
	m := New(Config{Dir: statedir.Dir{Root: os.Getenv(killedState)}})
	m.Catalog = catalog.New(catalog.Config{URL: url, Keys: []ed25519.PublicKey{signer.Public().(ed25519.PublicKey)}, Seen: m.Dir.CatalogSeen(), Cache: m.Dir.Bundles()})
	events := 0
	event := func() {
		if events == last {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err == nil {
				select {}
			}
		}
		events++
	}
	m.EnsureKernel = func(context.Context, string, banger.ProgressFunc) error { event(); return nil }
	if _, err := m.Pull(t.Context(), api.PullRequest{Ref: "app"}, func(banger.Progress) { event() }); err != nil {
		t.Fatal(err)
	}
}

// A disk that is full at any step is told, and nothing is left on it.
func TestPullFromCatalogWithoutSpace(t *testing.T) {
	dir, _, _, _ := publishApp(t, "")
	done := false
	for kib := 16; kib < 8<<10 && !done; kib += 16 + kib/2 {
		m := newReader(t, dir)
		if err := syscall.Mount("tmpfs", m.Dir.Images(), "tmpfs", 0, fmt.Sprintf("mode=0700,size=%dk", kib)); err != nil {
			t.Skipf("needs to mount a tmpfs: %v", err)
		}
		_, err := m.Pull(t.Context(), api.PullRequest{Ref: "app"}, nil)
		if done = err == nil; !done {
			if !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(banger.HintOf(err), m.Dir.Images()) {
				t.Errorf("%d KiB: %v (hint %q)", kib, err, banger.HintOf(err))
			}
			wantNothing(t, m)
		}
		if err := syscall.Unmount(m.Dir.Images(), 0); err != nil {
			t.Error(err)
		}
	}
	if !done {
		t.Error("no size is enough")
	}
}
