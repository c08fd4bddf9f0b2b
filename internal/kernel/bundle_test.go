package kernel

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"banger"
	published "banger/internal/catalog"
)

var signer = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// publishMine makes a catalog with one kernel and gives the manager that made it.
func publishMine(t *testing.T, name string) (dir string, m *Manager, entry banger.CatalogKernel) {
	t.Helper()
	m, dir = emptyManager(t), t.TempDir()
	if _, err := m.Import(t.Context(), "mine", banger.KernelSource{Dir: writeTree(t, t.TempDir(), layouts(t)["debian"])}, nil); err != nil {
		t.Fatal(err)
	}
	if name != "mine" {
		rename(t, m, "mine", name)
	}
	entry, err := m.Bundle(t.Context(), name, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	publishEntry(t, dir, entry)
	return dir, m, entry
}

// rename gives a kernel a name that Import does not give.
func rename(t *testing.T, m *Manager, from, to string) {
	t.Helper()
	found, err := m.read(from)
	if err != nil {
		t.Fatal(err)
	}
	found.Name = to
	text, err := json.Marshal(found)
	if err := errors.Join(err, os.Rename(m.Dir.Kernel(from).Path, m.Dir.Kernel(to).Path), os.WriteFile(m.Dir.Kernel(to).Manifest(), text, 0o600)); err != nil {
		t.Fatal(err)
	}
}

func publishEntry(t *testing.T, dir string, entry banger.CatalogKernel) {
	t.Helper()
	if _, err := published.Publish(dir, []ed25519.PrivateKey{signer}, published.Update{Kernels: []banger.CatalogKernel{entry}, Now: time.Now(), Lifetime: time.Hour}); err != nil {
		t.Fatal(err)
	}
}

func withCatalog(t *testing.T, url string) *Manager {
	t.Helper()
	m := emptyManager(t)
	m.Catalog = published.New(published.Config{URL: url, Keys: []ed25519.PublicKey{signer.Public().(ed25519.PublicKey)}, Seen: m.Dir.CatalogSeen(), Cache: m.Dir.Bundles(), Pause: time.Millisecond})
	return m
}

func wantNoKernel(t *testing.T, m *Manager) {
	t.Helper()
	if entries, err := os.ReadDir(m.Dir.Kernels()); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestEnsureFromCatalog(t *testing.T) {
	for _, name := range []string{"mine", DefaultName} { // the default one comes from there too
		dir, publisher, entry := publishMine(t, name)
		m := withCatalog(t, dir)
		var texts []string
		got, err := m.Ensure(t.Context(), name, func(p banger.Progress) { texts = append(texts, p.Text) })
		if err != nil {
			t.Fatal(err)
		}
		want, err := publisher.Get(name)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(banger.Kernel{}, "Source", "CreatedAt")); err != nil || diff != "" || got.Source != "catalog "+dir {
			t.Errorf("%s, from %q, %v (-published +got):\n%s", name, got.Source, err, diff)
		}
		if !slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(text, "from the catalog "+dir) }) {
			t.Errorf("progress %q", texts)
		}
		wantComplete(t, m, got)
		for _, file := range []string{"vmlinux", "modules.ext4"} {
			one, err := os.ReadFile(filepath.Join(publisher.Dir.Kernel(name).Path, file))
			two, err2 := os.ReadFile(filepath.Join(m.Dir.Kernel(name).Path, file))
			if errors.Join(err, err2) != nil || !bytes.Equal(one, two) {
				t.Errorf("%s differs: %v", file, errors.Join(err, err2))
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if again, err := m.Ensure(t.Context(), name, nil); err != nil || !cmp.Equal(again, got) {
			t.Errorf("a kernel that is there: %+v, %v", again, err)
		}
		elsewhere := t.TempDir()
		if again, err := publisher.Bundle(t.Context(), name, elsewhere, nil); err != nil || again != entry {
			t.Errorf("Bundle again = %+v, %v, want %+v", again, err, entry)
		}
	}
}

func TestOffersOfCatalog(t *testing.T) {
	dir, _, _ := publishMine(t, "mine")
	m := withCatalog(t, dir)
	offers, err := m.Available(t.Context())
	if err != nil || len(offers) != 2 || offers[0].Name != DefaultName || offers[1].Name != "mine" || offers[1].Source != "catalog "+dir {
		t.Errorf("Available = %+v, %v", offers, err)
	}
	if offers, err := emptyManager(t).Available(t.Context()); err != nil || len(offers) != 1 {
		t.Errorf("without a catalog: %+v, %v", offers, err)
	}
	if _, err := m.Ensure(t.Context(), "mien", nil); !errors.Is(err, banger.ErrNotFound) || !strings.Contains(banger.HintOf(err), "mine") {
		t.Errorf("unknown name: %v (hint %q)", err, banger.HintOf(err))
	}
	if _, err := m.Ensure(t.Context(), "../mine", nil); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("bad name: %v", err)
	}
	if _, err := m.Bundle(t.Context(), "mine", dir, nil); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("Bundle of a kernel that is not there: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Ensure(t.Context(), "mine", nil); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("a tampered catalog: %v", err)
	}
	if _, err := m.Available(t.Context()); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("offers of a tampered catalog: %v", err)
	}
	wantNoKernel(t, m)
}

func TestEnsureOfBadBundle(t *testing.T) {
	dir, publisher, entry := publishMine(t, "mine")
	from := publisher.Dir.Kernel("mine")
	made, err := publisher.read("mine")
	if err != nil {
		t.Fatal(err)
	}
	said := func(change func(*manifest)) func(map[string][]byte) {
		return func(files map[string][]byte) {
			m := made
			change(&m)
			files["kernel.json"], _ = json.Marshal(m)
		}
	}
	for _, tc := range []struct {
		name   string
		change func(map[string][]byte)
		kind   error
		say    string
	}{
		{"nothing", said(func(*manifest) {}), nil, ""},
		{"other name", said(func(m *manifest) { m.Name = "../evil" }), banger.ErrCorrupt, "../evil"},
		{"other version", said(func(m *manifest) { m.Version = "../6" }), banger.ErrCorrupt, "index says"},
		{"other format", said(func(m *manifest) { m.Format++ }), banger.ErrUnsupported, "format"},
		{"other digest", said(func(m *manifest) { m.VmlinuxSHA = "" }), banger.ErrCorrupt, "digests"},
		{"other size", said(func(m *manifest) { m.SizeBytes++ }), banger.ErrCorrupt, "sizes"},
		{"feature", said(func(m *manifest) { m.Features = []banger.KernelFeature{{Name: "a\nb", State: banger.FeatureModule}} }), banger.ErrCorrupt, "feature"},
		{"state of a feature", said(func(m *manifest) { m.Features = []banger.KernelFeature{{Name: "ext4", State: "evil"}} }), banger.ErrCorrupt, "evil"},
		{"missing feature", said(func(m *manifest) {
			m.Features = []banger.KernelFeature{{Name: "ext4", State: banger.FeatureMissing, Required: true}}
		}), banger.ErrUnsupported, "no ext4"},
		{"many features", said(func(m *manifest) { m.Features = make([]banger.KernelFeature, maxFeatures+1) }), banger.ErrCorrupt, "features"},
		{"boot modules that are not there", said(func(m *manifest) { m.BootModules = append(slices.Clone(m.BootModules), "../evil") }), banger.ErrCorrupt, "boot modules"},
		{"boot modules that are not named", said(func(m *manifest) { m.BootModules = nil }), banger.ErrCorrupt, "boot modules"},
		{"name of a boot module", func(files map[string][]byte) {
			said(func(m *manifest) { m.BootModules = append(slices.Clone(m.BootModules), "a.b") })(files)
			files["boot-modules/a.b.ko"] = []byte("x")
		}, banger.ErrCorrupt, "a.b"},
		{"manifest that is none", func(files map[string][]byte) { files["kernel.json"] = []byte("[]") }, banger.ErrCorrupt, "kernel.json"},
		{"vmlinux that is none", func(files map[string][]byte) { files["vmlinux"] = []byte("hello") }, banger.ErrCorrupt, "vmlinux"},
		{"modules that are none", func(files map[string][]byte) {
			files["modules.ext4"] = make([]byte, 1<<20)
			sum := sha256.Sum256(files["modules.ext4"])
			said(func(m *manifest) {
				m.ModulesSHA, m.SizeBytes = hex.EncodeToString(sum[:]), m.VmlinuxBytes+1<<20
			})(files)
		}, banger.ErrCorrupt, "modules.ext4"},
		{"no modules", func(files map[string][]byte) { delete(files, "modules.ext4") }, banger.ErrCorrupt, "no modules.ext4"},
		{"extra", func(files map[string][]byte) { files["initrd-x"] = []byte("x") }, banger.ErrCorrupt, "no place"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := map[string][]byte{}
			for _, name := range []string{"vmlinux", "modules.ext4"} {
				content, err := os.ReadFile(filepath.Join(from.Path, name))
				if err != nil {
					t.Fatal(err)
				}
				files[name] = content
			}
			for _, name := range made.BootModules {
				files["boot-modules/"+name+".ko"] = []byte("module")
			}
			said(func(*manifest) {})(files)
			tc.change(files)
			var list []published.File
			for name, content := range files {
				list = append(list, published.File{Name: name, Data: content})
			}
			bad := entry
			if bad.Bundle, err = published.Pack(t.Context(), dir, "mine", list, func(int64) {}); err != nil {
				t.Fatal(err)
			}
			publishEntry(t, dir, bad)
			m := withCatalog(t, dir)
			_, err := m.Ensure(t.Context(), "mine", nil)
			if tc.kind == nil && err != nil || !errors.Is(err, tc.kind) || tc.kind != nil && !strings.Contains(err.Error(), tc.say) {
				t.Errorf("Ensure: %v, want %v with %q", err, tc.kind, tc.say)
			}
			if tc.kind != nil {
				wantNoKernel(t, m)
			}
		})
	}
}

// The default kernel is got in the other ways when the catalog does not give it, and that is told.
func TestEnsureWithoutCatalog(t *testing.T) {
	m := withArchive(t, newArchive(t))
	m.Catalog = published.New(published.Config{URL: filepath.Join(t.TempDir(), "nosuch"), Seen: m.Dir.CatalogSeen(), Cache: m.Dir.Bundles()})
	if _, err := m.Ensure(t.Context(), "mine", nil); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("a kernel of a catalog that does not answer: %v", err)
	}
	var notices []string
	kernel, err := m.Ensure(t.Context(), DefaultName, func(p banger.Progress) {
		if p.Notice {
			notices = append(notices, p.Text)
		}
	})
	if err != nil || strings.HasPrefix(kernel.Source, "catalog") || len(notices) != 1 || !strings.Contains(notices[0], m.Catalog.URL) {
		t.Errorf("the default kernel: %+v, %v, told %q", kernel, err, notices)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	other := withCatalog(t, m.Catalog.URL)
	if _, err := other.Ensure(ctx, DefaultName, nil); !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("interrupted: %v", err)
	}
	wantNoKernel(t, other)
}
