package image

import (
	"bytes"
	"compress/gzip"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/api"
	"banger/internal/config"
	"banger/internal/testenv"
	"banger/internal/tree"
)

// An image that is not here comes from the first way that has it; what fails before is told.
func TestEnsureTakesTheFirstWay(t *testing.T) {
	good := serveRegistry(t, nil)
	push(t, good+"/team/"+name, imageOf(t, "amd64", tarOf(t, rootEntries()...)))
	push(t, good+"/team/other", imageOf(t, "amd64", tarOf(t, rootEntries()...)))
	catalog, _, _, _ := publishApp(t, "")
	all := []config.Source{config.FromCatalog, config.FromRegistry, config.FromPackages}
	const down = "127.0.0.1:1/team"
	for what, tc := range map[string]struct {
		image, catalog, registry string
		order                    []config.Source
		builds                   bool
		source                   string // of what comes
		notices                  []string
	}{
		"the catalog":              {"app", catalog, good + "/team", all, true, "catalog " + catalog, nil},
		"the registry, no catalog": {name, "", good + "/team", all, true, good + "/team/" + name + "", nil},
		"the registry has it":      {name, catalog, good + "/team", all, true, good + "/team/" + name + "", []string{"the catalog: "}},
		"the registry has more":    {"other", catalog, good + "/team", all, true, good + "/team/other", []string{"the catalog: "}},
		"packages":                 {name, catalog, down, all, true, "packages debian:", []string{"the catalog: ", "the registry: "}},
		"packages first":           {name, catalog, good + "/team", []config.Source{config.FromPackages, config.FromRegistry}, true, "packages debian:", nil},
		"no packages":              {name, "", good + "/team", []config.Source{config.FromPackages, config.FromRegistry}, false, good + "/team/" + name, []string{"the packages: "}},
		"nothing is configured":    {name, "", "", all, true, "packages debian:", nil},
	} {
		t.Run(what, func(t *testing.T) {
			script := "echo broken >&2; exit 1"
			if tc.builds {
				script = "cat " + rootTar(t)
			}
			reader := newReader(t, tc.catalog) // before the other, whose mmdebstrap is to be found
			m := newManager(t, script)
			m.Catalog = reader.Catalog
			m.Order, m.Registry = tc.order, tc.registry
			var notices []string
			image, err := m.Ensure(t.Context(), tc.image, func(p banger.Progress) {
				if p.Notice {
					notices = append(notices, p.Text)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if image.Name != tc.image || !strings.HasPrefix(image.Source, tc.source) {
				t.Errorf("%s from %q, want %q", image.Name, image.Source, tc.source)
			}
			if !slices.EqualFunc(notices, tc.notices, strings.Contains) {
				t.Errorf("notices %q, want %q", notices, tc.notices)
			}
			if again, err := m.Ensure(t.Context(), tc.image, func(p banger.Progress) { t.Errorf("progress %+v", p) }); err != nil || again.Key != image.Key {
				t.Errorf("again: %s, %v", again.Key, err)
			}
		})
	}
}

// A reference is pulled once; another name that it has then is of no matter.
func TestEnsureOfReference(t *testing.T) {
	asked := 0
	host := serveRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				asked++
			}
			next.ServeHTTP(w, r)
		})
	})
	push(t, host+"/team/app:1", imageOf(t, "amd64", tarOf(t, rootEntries()...)))
	m := newManager(t, "exit 1")
	image, err := m.Ensure(t.Context(), host+"/team/app:1", nil)
	if err != nil || image.Name != "app-1" {
		t.Fatalf("Ensure = %+v, %v", image, err)
	}
	asked = 0
	if again, err := m.Ensure(t.Context(), host+"/team/app:1", nil); err != nil || again.Key != image.Key || asked != 0 {
		t.Errorf("again: %s, %v; the registry was asked %d times", again.Key, err, asked)
	}
	if _, err := m.Ensure(t.Context(), host+"/team/app:2", nil); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("another tag: %v", err)
	}
}

// When no way gives the image, the error names each with its reason.
func TestEnsureFails(t *testing.T) {
	broken := serveRegistry(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	})
	all := []config.Source{config.FromCatalog, config.FromRegistry, config.FromPackages}
	for what, tc := range map[string]struct {
		image, catalog, registry string
		order                    []config.Source
		want                     error
		texts                    []string
	}{
		"all fail":       {name, "/nowhere/index.json", broken + "/team", all, banger.ErrUnavailable, []string{"the catalog: ", "/nowhere", "the registry: ", "403", "the packages: ", "broken"}},
		"not configured": {name, "", "", all, banger.ErrUnavailable, []string{"catalog.url", "images.registry", "broken"}},
		"packages alone": {name, "", "", nil, banger.ErrUnavailable, []string{"build image " + name, "broken"}},
		"no packages":    {"other", "", broken + "/team", all, banger.ErrUnavailable, []string{"403", "no definition has this name"}},
		"unknown":        {"debian-bokworm-slim", "", "", all, banger.ErrNotFound, []string{`"debian-bokworm-slim"`}},
		"no name":        {"-b", "", broken + "/team", all, banger.ErrNotFound, []string{`"-b"`}},
		"a reference":    {broken + "/b:1", "", "", all, banger.ErrRefused, []string{"403", broken + "/b:1"}},
	} {
		t.Run(what, func(t *testing.T) {
			reader := newReader(t, tc.catalog)
			m := newManager(t, "echo broken >&2; exit 1")
			m.Catalog = reader.Catalog
			m.Registry = tc.registry
			if tc.order != nil {
				m.Order = tc.order
			}
			_, err := m.Ensure(t.Context(), tc.image, nil)
			if !errors.Is(err, tc.want) || banger.HintOf(err) == "" && tc.want != banger.ErrNotFound {
				t.Fatalf("Ensure: %v (hint %q), want %v", err, banger.HintOf(err), tc.want)
			}
			for _, text := range tc.texts {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q is not in: %v", text, err)
				}
			}
			wantNothing(t, m)
		})
	}
}

// The configured bounds hold for every way.
func TestLimits(t *testing.T) {
	dir := t.TempDir()
	var layers [2][]tree.Entry
	for i := range 100 {
		path, content := strings.Repeat("x", i+1), strings.Repeat("y", 1000)
		layers[i%2] = append(layers[i%2], text(path, content))
		if err := os.WriteFile(filepath.Join(dir, path), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tars := [][]byte{tarOf(t, layers[0]...), tarOf(t, layers[1]...)}
	img := imageOf(t, "amd64", tars...)
	host := serveRegistry(t, nil)
	push(t, host+"/app:1", img)
	plain := filepath.Join(t.TempDir(), "plain.tar")
	testenv.Run(t, "tar", "-C", dir, "-cf", plain, ".")
	ext4 := testenv.Mke2fs(t, 4<<20, "-d", dir)
	for _, limits := range []struct {
		entries int
		bytes   int64
	}{{80, 1 << 30}, {1 << 20, 50_000}} {
		m := newManager(t, "exit 1")
		m.Limits.Entries, m.Limits.Bytes = limits.entries, limits.bytes
		for _, path := range []string{plain, layoutOf(t, img), dir, ext4} {
			if _, err := m.Import(t.Context(), api.ImportRequest{Name: "app", Path: path}, nil); !errors.Is(err, banger.ErrInvalid) {
				t.Errorf("%+v, %s: %v", limits, path, err)
			}
		}
		if _, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1"}, nil); !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("%+v: pull: %v", limits, err)
		}
		wantNothing(t, m)
	}
}

// A few bytes that unpack to far more are refused although no entry says so: zeros behind the last one.
func TestBomb(t *testing.T) {
	bomb := append(tarOf(t, rootEntries()...), make([]byte, 64<<20)...)
	img := imageOf(t, "amd64", bomb)
	host := serveRegistry(t, nil)
	push(t, host+"/app:1", img)
	packed := filepath.Join(t.TempDir(), "bomb.tar.gz")
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(bomb); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(packed, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	m := newManager(t, "exit 1")
	m.Limits.Entries, m.Limits.Bytes = 1000, 1<<20
	want := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), "unpacks to more than") || !strings.Contains(banger.HintOf(err), "images.max_bytes") {
			t.Errorf("%s: %v, %q", what, err, banger.HintOf(err))
		}
		wantNothing(t, m)
	}
	for _, path := range []string{packed, layoutOf(t, img)} {
		_, err := m.Import(t.Context(), api.ImportRequest{Name: "app", Path: path}, nil)
		want(path, err)
	}
	_, err := m.Pull(t.Context(), api.PullRequest{Ref: host + "/app:1"}, nil)
	want("pull", err)
}
