package kernel

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"banger"
	"banger/internal/testenv"
)

// newArchive is a signed archive with the kernel of packageFiles.
func newArchive(t *testing.T) *testenv.Mirror {
	t.Helper()
	archive := testenv.NewMirror(t)
	addKernel(t, archive, "bookworm", "6.1-1")
	archive.Publish(t, testenv.Release{Suite: "oldstable", Codename: "bookworm"})
	return archive
}

// addKernel adds a kernel and its meta package, and gives the path of the kernel's.
func addKernel(t *testing.T, archive *testenv.Mirror, suite, version string) string {
	t.Helper()
	deb := debPackage(t, filepath.Join(t.TempDir(), "kernel.deb"), packageFiles(t))
	content, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	const name = "linux-image-6.1.0-test"
	archive.Add(suite, "Package: "+metaPackage+"\nVersion: "+version+"\nArchitecture: amd64\nDepends: "+name+" (= "+version+")\n", []byte("meta"))
	return archive.Add(suite, "Package: "+name+"\nVersion: "+version+"\nArchitecture: amd64\n", append(content, version...))
}

// withArchive is a manager without apt that trusts the archive.
func withArchive(t *testing.T, archive *testenv.Mirror) *Manager {
	t.Helper()
	m := newManager(t, "", "")
	m.Mirror, m.Keyring = archive.URL, archive.Keyring(t)
	return m
}

func TestFetchFromArchive(t *testing.T) {
	archive := newArchive(t)
	m := withArchive(t, archive)
	details := map[string]banger.Progress{}
	kernel, err := m.Ensure(t.Context(), DefaultName, func(p banger.Progress) { details[p.Detail] = p })
	if err != nil {
		t.Fatal(err)
	}
	if kernel.Name != DefaultName || kernel.Version != "6.1.0-test" || kernel.Source != "linux-image-6.1.0-test 6.1-1" {
		t.Errorf("Ensure = %+v", kernel)
	}
	for _, detail := range []string{downloading, "reading Debian's package lists"} {
		if p := details[detail]; p.Total == 0 || p.Bytes != p.Total || p.Stage != "kernel" {
			t.Errorf("the progress of %s ended with %+v", detail, p)
		}
	}
	entries, err := os.ReadDir(m.Dir.Kernel(DefaultName).Path)
	if err != nil || len(entries) != 4 {
		t.Errorf("the kernel's directory has %v, %v, want 4 entries", entries, err)
	}
}

// TestFetchSecurity takes the newer kernel of the security updates beside the mirror.
func TestFetchSecurity(t *testing.T) {
	const beside = "/debian-security/"
	archive, updates := newArchive(t), testenv.NewMirror(t)
	updates.Key = archive.Key
	newer := addKernel(t, updates, "bookworm-security", "6.1-2")
	updates.Publish(t, testenv.Release{Suite: "oldstable-security", Codename: "bookworm-security", Valid: time.Hour})
	for _, path := range updates.Paths("") {
		archive.Put(beside+path, updates.Get(path))
	}
	m := withArchive(t, archive)
	var downloaded []string
	archive.SetFault(func(w http.ResponseWriter, r *http.Request, path string, next http.HandlerFunc) {
		if strings.Contains(path, "pool/") {
			downloaded = append(downloaded, path)
		}
		next(w, r)
	})
	if _, err := m.Ensure(t.Context(), DefaultName, nil); err != nil || !slices.Equal(downloaded, []string{beside + newer}) {
		t.Errorf("Ensure: %v, downloaded %q, want %s", err, downloaded, newer)
	}
}

func TestFetchFails(t *testing.T) {
	const broken = "echo 'E: Failed to fetch' >&2; exit 100"
	for _, tc := range []struct {
		what            string
		aptCache, apt   string
		change          func(*testing.T, *testenv.Mirror, *Manager)
		want            error
		says, hintsAlso string
	}{
		{"neither way", aptCacheScript, broken, func(_ *testing.T, _ *testenv.Mirror, m *Manager) { m.Mirror = "http://127.0.0.1:1/" }, banger.ErrUnavailable, "apt: apt-get", "apt-get update"},
		{"no apt, no mirror", "", "", func(_ *testing.T, _ *testenv.Mirror, m *Manager) { m.Mirror = "http://127.0.0.1:1/" }, banger.ErrUnavailable, "apt-cache: it is not installed; archive: ", "BANGER_MIRROR"},
		{"another key", "", "", func(t *testing.T, _ *testenv.Mirror, m *Manager) { m.Keyring = testenv.NewMirror(t).Keyring(t) }, banger.ErrRefused, "no trusted keys", "debian.keyring"},
		{"no key of Debian's", "", "", func(_ *testing.T, _ *testenv.Mirror, m *Manager) { m.Keyring = "" }, banger.ErrRefused, "no trusted keys", "debian.keyring"},
		{"keyring that is none", "", "", func(_ *testing.T, _ *testenv.Mirror, m *Manager) { m.Keyring = "/etc/passwd" }, banger.ErrInvalid, "/etc/passwd", "gpg"},
		{"bad mirror", "", "", func(_ *testing.T, _ *testenv.Mirror, m *Manager) { m.Mirror = "deb.debian.org" }, banger.ErrInvalid, "deb.debian.org", "http"},
		{"bad proxy", "", "", func(_ *testing.T, _ *testenv.Mirror, m *Manager) { m.Proxy = "nonsense" }, banger.ErrInvalid, "proxy", "http"},
		{"no kernel", "", "", func(t *testing.T, archive *testenv.Mirror, m *Manager) {
			other := testenv.NewMirror(t)
			other.Publish(t, testenv.Release{Suite: "oldstable", Codename: "bookworm"})
			m.Mirror, m.Keyring = other.URL, other.Keyring(t)
		}, banger.ErrUnavailable, metaPackage, "another"},
		{"meta package without its kernel", "", "", func(t *testing.T, archive *testenv.Mirror, m *Manager) {
			archive.Add("bookworm", "Package: "+metaPackage+"\nVersion: 7\nArchitecture: amd64\nDepends: linux-image-7 (= 7)\n", []byte("meta"))
			archive.Publish(t, testenv.Release{Suite: "oldstable", Codename: "bookworm"})
		}, banger.ErrUnavailable, "linux-image-7 7", "another"},
		{"package changed", "", "", func(t *testing.T, archive *testenv.Mirror, m *Manager) {
			for _, path := range archive.Paths("pool/") {
				content := append([]byte{}, archive.Get(path)...)
				content[len(content)/2] ^= 1
				archive.Put(path, content)
			}
		}, banger.ErrCorrupt, "digest", "mirror"},
	} {
		archive := newArchive(t)
		m := newManager(t, tc.aptCache, tc.apt)
		m.Mirror, m.Keyring = archive.URL, archive.Keyring(t)
		tc.change(t, archive, m)
		kernel, err := m.Ensure(t.Context(), DefaultName, nil)
		if banger.KindName(err) != banger.KindName(tc.want) || !strings.Contains(err.Error(), tc.says) || !strings.Contains(banger.HintOf(err), tc.hintsAlso) {
			t.Errorf("%s: Ensure = %+v, %v (hint %q), want %v with %q and the hint %q", tc.what, kernel, err, banger.HintOf(err), tc.want, tc.says, tc.hintsAlso)
		}
		wantNothing(t, m)
	}
}

// TestFetchAfterApt: an apt that knows the package and can't get it does not stand in the way.
func TestFetchAfterApt(t *testing.T) {
	archive := newArchive(t)
	m := newManager(t, aptCacheScript, "touch left.deb; exit 100")
	m.Mirror, m.Keyring = archive.URL, archive.Keyring(t)
	if kernel, err := m.Ensure(t.Context(), DefaultName, nil); err != nil || kernel.Version != "6.1.0-test" {
		t.Errorf("Ensure = %+v, %v", kernel, err)
	}
}

// TestFetchShared: of three who ask, the first leaves; the others get what was downloaded once, over a connection that broke.
func TestFetchShared(t *testing.T) {
	archive := newArchive(t)
	m := withArchive(t, archive)
	var packages, cuts atomic.Int32
	come, goOn := make(chan struct{}), make(chan struct{})
	archive.SetFault(func(w http.ResponseWriter, r *http.Request, path string, next http.HandlerFunc) {
		if strings.HasPrefix(path, "pool/") {
			if r.Header.Get("Range") == "" {
				packages.Add(1)
				close(come)
				<-goOn
			}
			if cuts.Add(1) < 3 {
				w = testenv.CutAfter(w, 20_000)
			}
		}
		next(w, r)
	})
	ctx, leave := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := m.Ensure(ctx, DefaultName, nil)
		first <- err
	}()
	<-come
	var others sync.WaitGroup
	for range 2 {
		joined := make(chan struct{})
		others.Go(func() {
			var once sync.Once
			kernel, err := m.Ensure(t.Context(), DefaultName, func(banger.Progress) { once.Do(func() { close(joined) }) })
			if err != nil || kernel.Version != "6.1.0-test" {
				t.Errorf("who stays: Ensure = %+v, %v", kernel, err)
			}
		})
		<-joined
	}
	leave()
	if err := <-first; !errors.Is(err, banger.ErrInterrupted) || !errors.Is(err, context.Canceled) {
		t.Errorf("who leaves: Ensure = %v, want interrupted", err)
	}
	close(goOn)
	others.Wait()
	if packages.Load() != 1 {
		t.Errorf("the package was asked for %d times", packages.Load())
	}
}

// TestFetchLastLeaves: who leaves last finds nothing left, whatever was going on.
func TestFetchLastLeaves(t *testing.T) {
	for _, part := range []string{"dists/bookworm/InRelease", "dists/bookworm/main/", "pool/"} {
		archive := newArchive(t)
		m := withArchive(t, archive)
		ctx, leave := context.WithCancel(t.Context())
		archive.SetFault(func(w http.ResponseWriter, r *http.Request, path string, next http.HandlerFunc) {
			if strings.HasPrefix(path, part) {
				leave()
				<-r.Context().Done()
			}
			next(w, r)
		})
		if _, err := m.Ensure(ctx, DefaultName, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: Ensure = %v, want cancelled", part, err)
		}
		wantNothing(t, m)
	}
}
