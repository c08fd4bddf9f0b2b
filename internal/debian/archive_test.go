package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"banger"
	"banger/internal/testenv"
)

// packageFile is a package of about size bytes that can't be compressed.
func packageFile(t testing.TB, name, version, depends string, size int) (control string, deb []byte) {
	t.Helper()
	control = fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nDepends: %s\nDescription: test\n long\n", name, version, depends)
	content := make([]byte, size)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(content)
	return control, archive(part{"debian-binary", []byte("2.0\n")}, controlPart(t, control), part{"data.tar", tarball(t, map[string]string{"opt/data": string(content)})})
}

// newMirror has an old and a new kernel in two suites, and other packages.
func newMirror(t testing.TB, r testenv.Release) *testenv.Mirror {
	t.Helper()
	m := testenv.NewMirror(t)
	for _, p := range []struct{ suite, name, version, depends string }{
		{"test", "meta", "1.9", "kernel-1.9 (= 1.9)"}, {"test", "kernel-1.9", "1.9", ""}, {"test", "other", "1", ""},
		{"test-security", "meta", "1.10", "kernel-1.10 (= 1.10)"}, {"test-security", "kernel-1.10", "1.10", ""}, {"test-security", "meta", "1.10~rc1", ""},
	} {
		control, deb := packageFile(t, p.name, p.version, p.depends, 1000)
		m.Add(p.suite, control, deb)
	}
	r.Suite, r.Codename = "stable", "test"
	m.Publish(t, r)
	m.Publish(t, testenv.Release{Suite: "stable-security", Codename: "test-security", Valid: time.Hour})
	return m
}

func newArchive(t testing.TB, m *testenv.Mirror) *Archive {
	t.Helper()
	client, err := NewClient("")
	if err != nil {
		t.Fatal(err)
	}
	return &Archive{Suites: []Suite{{Mirror: m.URL, Name: "stable", Component: "main"}, {Mirror: m.URL, Name: "test-security", Component: "main"}},
		Keys: Keys{m.Key}, HTTP: client, Pause: time.Millisecond}
}

// The directory "dists/stable" is a link on real mirrors.
func linkStable(m *testenv.Mirror) {
	for _, path := range m.Paths("dists/test/") {
		m.Put(strings.Replace(path, "/test/", "/stable/", 1), m.Get(path))
	}
}

func isKernel(name string) bool { return name == "meta" || strings.HasPrefix(name, "kernel-") }

func noReport(int64, int64) {}

// wantEmpty checks that nothing is left in a directory.
func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFind(t *testing.T) {
	for _, r := range []testenv.Release{{}, {NoHashes: true}, {Packed: []string{".gz"}}, {Packed: []string{""}}, {Valid: time.Hour, Packed: []string{".xz", ""}}} {
		m := newMirror(t, r)
		linkStable(m)
		dir := t.TempDir()
		var told int64
		found, err := newArchive(t, m).Find(t.Context(), dir, isKernel, func(done, total int64) { told = max(told, done) })
		if err != nil || len(found) != 5 || told == 0 {
			t.Errorf("%+v: Find = %+v, %v, told %d", r, found, err, told)
			continue
		}
		wantEmpty(t, dir)
		meta, ok := Newest(found, "meta", "")
		if !ok || meta.Version.String() != "1.10" || meta.Depends != "kernel-1.10 (= 1.10)" {
			t.Errorf("%+v: Newest = %+v, %v", r, meta, ok)
		}
		for _, no := range [][2]string{{"none", ""}, {"meta", "1.11"}, {"meta", "no version"}} {
			if c, ok := Newest(found, no[0], no[1]); ok {
				t.Errorf("Newest(%q) = %+v", no, c)
			}
		}
		old, ok := Newest(found, "kernel-1.9", "1.9")
		path := filepath.Join(dir, "deb")
		if err := newArchive(t, m).Download(t.Context(), old, path, func(int64) {}); !ok || err != nil {
			t.Errorf("%+v: Download: %v", r, err)
		}
		if _, want := packageFile(t, "kernel-1.9", "1.9", "", 1000); !fileIs(path, want) {
			t.Errorf("%+v: the downloaded package is another", r)
		}
	}
}

func fileIs(path string, want []byte) bool {
	got, err := os.ReadFile(path)
	return err == nil && bytes.Equal(got, want)
}

// TestFindFails changes one thing of a good mirror or archive.
func TestFindFails(t *testing.T) {
	const list = "dists/test-security/main/binary-amd64/"
	edit := func(path, old, new string) func(*testenv.Mirror, *Archive) {
		return func(m *testenv.Mirror, _ *Archive) {
			for _, path := range m.Paths(path) {
				m.Put(path, bytes.Replace(m.Get(path), []byte(old), []byte(new), 1))
			}
		}
	}
	answer := func(path string, answer http.HandlerFunc) func(*testenv.Mirror, *Archive) {
		return func(m *testenv.Mirror, a *Archive) {
			m.SetFault(func(w http.ResponseWriter, r *http.Request, p string, next http.HandlerFunc) {
				if strings.HasPrefix(p, path) {
					next = answer
				}
				next(w, r)
			})
		}
	}
	sign := func(text string) func(*testenv.Mirror, *Archive) {
		return func(m *testenv.Mirror, _ *Archive) {
			m.Put("dists/test-security/InRelease", testenv.Clearsign(t, text, m.Key))
		}
	}
	whole := func(m *testenv.Mirror, path string, change func([]byte) []byte) {
		for _, path := range m.Paths(path) {
			m.Put(path, change(bytes.Clone(m.Get(path))))
		}
	}
	for _, tc := range []struct {
		what   string
		change func(*testenv.Mirror, *Archive)
		want   error
		says   string // error and hint
	}{
		{"another key", func(_ *testenv.Mirror, a *Archive) { a.Keys = Keys{testenv.NewSigningKey(t)} }, banger.ErrRefused, "no trusted keys"},
		{"InRelease changed", edit("dists/test-security/InRelease", "Origin: T", "Origin: B"), banger.ErrRefused, "InRelease"},
		{"expired", func(_ *testenv.Mirror, a *Archive) { a.Now = func() time.Time { return time.Now().Add(2 * time.Hour) } }, banger.ErrRefused, "valid until"},
		{"another suite", func(m *testenv.Mirror, _ *Archive) {
			m.Put("dists/test-security/InRelease", m.Get("dists/test/InRelease"))
		}, banger.ErrRefused, `"test"`},
		{"no suite", func(m *testenv.Mirror, _ *Archive) { m.Put("dists/test-security/InRelease", nil) }, banger.ErrUnavailable, "test-security"},
		{"no such component", func(_ *testenv.Mirror, a *Archive) { a.Suites[1].Component = "contrib" }, banger.ErrUnavailable, "contrib"},
		{"list changed", func(m *testenv.Mirror, _ *Archive) {
			whole(m, list, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}, banger.ErrCorrupt, "sha256"},
		{"list longer", func(m *testenv.Mirror, _ *Archive) {
			whole(m, list, func(b []byte) []byte { return append(b, 0) })
		}, banger.ErrCorrupt, "bytes"},
		{"list shorter", func(m *testenv.Mirror, _ *Archive) {
			whole(m, list, func(b []byte) []byte { return b[:len(b)-1] })
		}, banger.ErrCorrupt, "bytes"},
		{"no list", func(m *testenv.Mirror, _ *Archive) { whole(m, list, func([]byte) []byte { return nil }) }, banger.ErrUnavailable, "not whole"},
		{"list too large", sign("Suite: x\nCodename: test-security\nDate: Sat, 21 Nov 2026 00:53:02 UTC\nSHA256:\n " + strings.Repeat("0", 64) +
			" 1000000000000 main/binary-amd64/Packages.xz\n"), banger.ErrCorrupt, "at most"},
		{"always 503", answer("dists/test-security/InRelease", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "busy", 503) }), banger.ErrUnavailable, "503"},
		{"403", answer("dists/test-security/InRelease", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", 403) }), banger.ErrUnavailable, "403"},
		{"always cut", answer("dists/test-security/InRelease", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), banger.ErrUnavailable, "InRelease"},
		{"redirect loop", answer("dists/", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, 302) }), banger.ErrUnavailable, "redirects"},
		{"redirect loop of the list", answer(list, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, 302) }), banger.ErrUnavailable, "redirects"},
		{"redirect to a file", answer("dists/", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "file:///etc/passwd", 302) }), banger.ErrUnavailable, "file:"},
		{"endless InRelease", answer("dists/test-security/InRelease", func(w http.ResponseWriter, _ *http.Request) {
			for b := make([]byte, 1<<20); ; {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		}), banger.ErrUnavailable, "more than"},
		{"nobody listens", func(_ *testenv.Mirror, a *Archive) { a.Suites[0].Mirror = "http://127.0.0.1:1/debian" }, banger.ErrUnavailable, "refused"},
		{"no URL", func(_ *testenv.Mirror, a *Archive) { a.Suites[0].Mirror = "deb.debian.org" }, banger.ErrInvalid, "http"},
		{"a file's URL", func(_ *testenv.Mirror, a *Archive) { a.Suites[0].Mirror = "file:///srv/debian" }, banger.ErrInvalid, "http"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			t.Parallel()
			m := newMirror(t, testenv.Release{})
			linkStable(m)
			a, dir := newArchive(t, m), t.TempDir()
			tc.change(m, a)
			found, err := a.Find(t.Context(), dir, isKernel, noReport)
			if !errors.Is(err, tc.want) || banger.KindName(err) != banger.KindName(tc.want) || !strings.Contains(err.Error()+banger.HintOf(err), tc.says) {
				t.Errorf("Find = %+v, %v (hint %q), want %v with %q", found, err, banger.HintOf(err), tc.want, tc.says)
			}
		})
	}
}

// TestFindSlow has a server that answers and then gives nothing more.
func TestFindSlow(t *testing.T) {
	for _, path := range []string{"dists/test-security/InRelease", "dists/test-security/main/"} {
		m := newMirror(t, testenv.Release{})
		linkStable(m)
		ended := make(chan struct{})
		m.SetFault(func(w http.ResponseWriter, r *http.Request, p string, next http.HandlerFunc) {
			if !strings.HasPrefix(p, path) {
				next(w, r)
				return
			}
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-ended:
			}
		})
		a := newArchive(t, m)
		a.Idle = 50 * time.Millisecond
		if _, err := a.Find(t.Context(), t.TempDir(), isKernel, noReport); !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), "gave nothing for 50ms") {
			t.Errorf("%s: Find = %v, want unavailable and why", path, err)
		}
		close(ended)
	}
}

// TestFindAgain: what fails once or twice is asked for again.
func TestFindAgain(t *testing.T) {
	for name, fail := range map[string]http.HandlerFunc{
		"503": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "busy", 503) },
		"cut": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		m := newMirror(t, testenv.Release{})
		linkStable(m)
		var asked atomic.Int32
		m.SetFault(func(w http.ResponseWriter, r *http.Request, _ string, next http.HandlerFunc) {
			if asked.Add(1)%3 != 0 {
				next = fail
			}
			next(w, r)
		})
		if found, err := newArchive(t, m).Find(t.Context(), t.TempDir(), isKernel, noReport); err != nil || len(found) != 5 {
			t.Errorf("%s: Find = %+v, %v", name, found, err)
		}
	}
}

func TestFindOptional(t *testing.T) {
	m := newMirror(t, testenv.Release{})
	linkStable(m)
	a := newArchive(t, m)
	a.Suites[1].Optional, a.Suites[1].Mirror = true, m.URL+"-security"
	if found, err := a.Find(t.Context(), t.TempDir(), isKernel, noReport); err != nil || len(found) != 2 {
		t.Errorf("without the optional suite: Find = %+v, %v", found, err)
	}
	a.Suites[1].Mirror = m.URL
	m.Put("dists/test-security/InRelease", []byte("nonsense"))
	if found, err := a.Find(t.Context(), t.TempDir(), isKernel, noReport); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("with a damaged optional suite: Find = %+v, %v", found, err)
	}
}

func TestProxy(t *testing.T) {
	m := newMirror(t, testenv.Release{})
	linkStable(m)
	var asked atomic.Int32
	target, err := url.Parse(m.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		r.URL.Host, r.RequestURI = target.Host, ""
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		w.WriteHeader(answer.StatusCode)
		_, _ = new(bytes.Buffer).ReadFrom(answer.Body)
	}))
	t.Cleanup(proxy.Close)
	client, err := NewClient(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	a := newArchive(t, m)
	a.HTTP, a.Suites[0].Mirror = client, "http://mirror.invalid/debian"
	if _, err := a.Find(t.Context(), t.TempDir(), isKernel, noReport); asked.Load() == 0 {
		t.Errorf("the proxy was not asked: %v", err)
	}
	for _, bad := range []string{"proxy:3128", "ftp://x", "%"} {
		if _, err := NewClient(bad); !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("NewClient(%q) = %v, want invalid", bad, err)
		}
	}
}

// candidate is a package of 2 MiB.
func candidate(t *testing.T, m *testenv.Mirror) (c Candidate, deb []byte) {
	t.Helper()
	control, deb := packageFile(t, "kernel-2", "2", "", 2<<20)
	m.Add("test", control, deb)
	m.Publish(t, testenv.Release{Suite: "stable", Codename: "test"})
	linkStable(m)
	found, err := newArchive(t, m).Find(t.Context(), t.TempDir(), isKernel, noReport)
	c, ok := Newest(found, "kernel-2", "")
	if err != nil || !ok {
		t.Fatalf("Find = %+v, %v", found, err)
	}
	m.Served.Store(0)
	return c, deb
}

// TestDownloadCut cuts every answer behind 64 KiB; with ranges no byte comes twice.
func TestDownloadCut(t *testing.T) {
	m := newMirror(t, testenv.Release{})
	c, deb := candidate(t, m)
	m.SetFault(func(w http.ResponseWriter, r *http.Request, _ string, next http.HandlerFunc) {
		next(testenv.CutAfter(w, 64<<10), r)
	})
	path := filepath.Join(t.TempDir(), "deb")
	if err := newArchive(t, m).Download(t.Context(), c, path, func(int64) {}); err != nil || !fileIs(path, deb) {
		t.Errorf("Download: %v", err)
	}
	if served := m.Served.Load(); served > c.Size*21/20 {
		t.Errorf("%d bytes were served for a file of %d", served, c.Size)
	}
}

func TestDownloadFaults(t *testing.T) {
	var asked atomic.Int32
	half := func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
		next(testenv.CutAfter(w, 1<<20), r)
	}
	for _, tc := range []struct {
		what  string
		fault func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc)
		want  error
		says  string
	}{
		{"no ranges, cut once", func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
			r.Header.Del("Range")
			if asked.Add(1) == 1 {
				half(w, r, next)
			}
			next(w, r)
		}, nil, ""},
		{"503 twice, then cut, then good", func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
			switch asked.Add(1) {
			case 1, 2:
				http.Error(w, "busy", 503)
			case 3:
				half(w, r, next)
			default:
				next(w, r)
			}
		}, nil, ""},
		{"another part than asked for, then whole", func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
			switch asked.Add(1) {
			case 1:
				half(w, r, next)
			case 2:
				r.Header.Set("Range", "bytes=5-")
			}
			next(w, r)
		}, nil, ""},
		{"no ranges, always cut", func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
			r.Header.Del("Range")
			next(testenv.CutAfter(w, 2000), r)
		}, banger.ErrUnavailable, ""},
		{"always 500", func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { http.Error(w, "broken", 500) }, banger.ErrUnavailable, "500"},
		{"404", func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
			if asked.Add(1) > 1 {
				t.Error("asked again after 404")
			}
			http.NotFound(w, r)
		}, banger.ErrUnavailable, "404"},
		{"redirect loop", func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) { http.Redirect(w, r, r.URL.Path, 302) }, banger.ErrUnavailable, "redirects"},
	} {
		asked.Store(0)
		m := newMirror(t, testenv.Release{})
		c, deb := candidate(t, m)
		m.SetFault(func(w http.ResponseWriter, r *http.Request, _ string, next http.HandlerFunc) { tc.fault(w, r, next) })
		path := filepath.Join(t.TempDir(), "deb")
		err := newArchive(t, m).Download(t.Context(), c, path, func(int64) {})
		switch {
		case tc.want == nil && (err != nil || !fileIs(path, deb)):
			t.Errorf("%s: Download: %v", tc.what, err)
		case tc.want != nil && (banger.KindName(err) != banger.KindName(tc.want) || !strings.Contains(err.Error(), tc.says) || fileIs(path, deb)):
			t.Errorf("%s: Download: %v, want %v with %q", tc.what, err, tc.want, tc.says)
		}
	}
}

// TestDownloadWrong: other content than what was signed never appears in its place.
func TestDownloadWrong(t *testing.T) {
	for what, change := range map[string]func([]byte) []byte{
		"changed": func(b []byte) []byte { b[1<<20] ^= 1; return b },
		"longer":  func(b []byte) []byte { return append(b, 0) },
		"shorter": func(b []byte) []byte { return b[:len(b)-1] },
		"empty":   func([]byte) []byte { return []byte{} },
	} {
		m := newMirror(t, testenv.Release{})
		c, deb := candidate(t, m)
		m.Put(strings.TrimPrefix(c.url, m.URL+"/"), change(bytes.Clone(deb)))
		dir := t.TempDir()
		if err := newArchive(t, m).Download(t.Context(), c, filepath.Join(dir, "deb"), func(int64) {}); !errors.Is(err, banger.ErrCorrupt) {
			t.Errorf("%s: Download: %v, want corrupt", what, err)
		}
		wantEmpty(t, dir)
	}
}

func TestDownloadCancel(t *testing.T) {
	m := newMirror(t, testenv.Release{})
	c, _ := candidate(t, m)
	ctx, cancel := context.WithCancel(t.Context())
	path := filepath.Join(t.TempDir(), "deb")
	err := newArchive(t, m).Download(ctx, c, path, func(done int64) {
		if done > 1<<20 {
			cancel()
		}
	})
	if _, there := os.Stat(path); !errors.Is(err, context.Canceled) || there == nil {
		t.Errorf("Download: %v, want cancelled and no file", err)
	}
}

// TestDownloadDiskFull needs a file system that is small.
func TestDownloadDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	m := newMirror(t, testenv.Release{})
	c, _ := candidate(t, m)
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("needs mount: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", dir).Run() })
	err := newArchive(t, m).Download(t.Context(), c, filepath.Join(dir, "deb"), func(int64) {})
	if err = banger.SpaceError(err, dir); !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(banger.HintOf(err), dir) {
		t.Errorf("Download: %v (hint %q), want unavailable and where", err, banger.HintOf(err))
	}
}

// FuzzReadPackages wants of every candidate that its file is below the mirror and of a bounded size.
func FuzzReadPackages(f *testing.F) {
	f.Add("Package: kernel-1\nVersion: 1\nArchitecture: amd64\nFilename: pool/main/k.deb\nSize: 10\nSHA256: " + strings.Repeat("0a", 32) + "\n\nPackage: other\n")
	f.Add("Package: kernel-1\nVersion: 1:1\nArchitecture: all\nFilename: ../x\nSize: 10\nSHA256: " + strings.Repeat("0a", 32) + "\n")
	mirror, err := url.Parse("http://mirror.example/debian")
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(f.TempDir(), "Packages")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		found, err := readPackages(path, "", mirror, isKernel)
		if err != nil && !errors.Is(err, banger.ErrCorrupt) {
			t.Fatal(err)
		}
		for _, c := range found {
			u, err := url.Parse(c.url)
			if err != nil || u.Host != mirror.Host || !strings.HasPrefix(u.Path, "/debian/") || strings.Contains(u.Path, "/../") || u.RawQuery != "" || c.Size < 0 || c.Size > maxPackage {
				t.Fatalf("%+v is not on the mirror: %v", c, err)
			}
		}
	})
}
