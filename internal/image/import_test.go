package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	regname "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"banger"
	"banger/api"
	"banger/internal/ext4/read"
	"banger/internal/testenv"
	"banger/internal/tree"
)

// tarOf is a tar stream of entries.
func tarOf(t testing.TB, entries ...tree.Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tree.WriteTar(&b, tree.Of(entries...)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func text(path, content string) tree.Entry { return tree.Literal(path, 0o644, []byte(content)) }

// rootEntries is a small root file system.
func rootEntries() []tree.Entry {
	return []tree.Entry{tree.Directory("etc", 0o755), text("etc/os-release", "ID=test\n"), text("etc/machine-id", "0123\n"), tree.Directory("root", 0o700), text("root/.profile", "mine\n"),
		tree.Directory("usr", 0o755), tree.Directory("usr/bin", 0o755), text("usr/bin/tool", "#!/bin/sh\n"), {Path: "bin", Kind: tree.Symlink, Mode: 0o777, Link: "usr/bin"}}
}

// imageOf is an OCI image of layers, each a tar.
func imageOf(t testing.TB, arch string, layers ...[]byte) v1.Image {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: arch, Config: v1.Config{Env: []string{"A=1", "bad", "PATH=/x"}, WorkingDir: "/work", User: "app",
		Entrypoint: []string{"/entry"}, Cmd: []string{"cmd"}, ExposedPorts: map[string]struct{}{"80/tcp": {}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range layers {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
		if err == nil {
			img, err = mutate.AppendLayers(img, layer)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// layoutOf writes an OCI layout.
func layoutOf(t testing.TB, images ...v1.Image) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "layout")
	p, err := layout.Write(dir, empty.Index)
	for _, img := range images {
		if err == nil {
			err = p.AppendImage(img)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func save(t testing.TB, content []byte) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// tarDir packs a directory as tar does.
func tarDir(t testing.TB, dir string) []byte {
	t.Helper()
	out, err := exec.Command(testenv.RequireTool(t, "tar"), "-C", dir, "-c", "oci-layout", "index.json", "blobs").Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// pack compresses with a program of that name.
func pack(t testing.TB, program string, content []byte) []byte {
	t.Helper()
	cmd := exec.Command(testenv.RequireTool(t, program), "-c")
	cmd.Stdin = bytes.NewReader(content)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// paths lists a base: files with their content.
func paths(t testing.TB, rootfs string) (list []string) {
	t.Helper()
	f, err := os.Open(rootfs)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := read.Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range fsys.Source(".") {
		if err != nil {
			t.Fatal(err)
		}
		line := e.Path
		if e.Content != nil {
			b, err := io.ReadAll(e.Content)
			if err != nil {
				t.Fatal(err)
			}
			line += "=" + string(b)
		}
		if e.Path != "." && e.Path != "lost+found" && e.Kind != tree.Dir {
			list = append(list, line+e.Link)
		}
	}
	slices.Sort(list)
	return list
}

var wantPaths = []string{"binusr/bin", "etc/machine-id", "etc/os-release=ID=test\n", "root/.profile=mine\n", "usr/bin/tool=#!/bin/sh\n"}

func TestImport(t *testing.T) {
	rootfs := tarOf(t, rootEntries()...)
	// The same tree in two layers, the second of which takes something away again and writes through a symlink.
	lower := tarOf(t, append(rootEntries(), text("gone", "x"), text("root/gone", "x"), text("usr/bin/tool", "old"))...)
	upper := tarOf(t, text(".wh.gone", ""), text("root/.wh.gone", ""), text("bin/tool", "#!/bin/sh\n"))
	img := imageOf(t, "amd64", lower, upper)
	dir := layoutOf(t, img)
	docker := filepath.Join(t.TempDir(), "docker.tar")
	if err := tarball.WriteToFile(docker, regname.MustParseReference("example/app:1"), img); err != nil {
		t.Fatal(err)
	}
	saved, err := os.ReadFile(docker)
	if err != nil {
		t.Fatal(err)
	}
	plain := t.TempDir()
	if out, err := exec.Command("tar", "-C", plain, "-xf", save(t, rootfs)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		if err := os.WriteFile(fifo, append(rootfs, make([]byte, 1<<20)...), 0o600); err != nil {
			t.Error(err)
		}
	}()
	for _, tc := range []struct {
		name, path string
		oci        bool
	}{
		{"tar", save(t, rootfs), false},
		{"tar.gz", save(t, pack(t, "gzip", rootfs)), false},
		{"tar.xz", save(t, pack(t, "xz", rootfs)), false},
		{"tar.bz2", save(t, pack(t, "bzip2", rootfs)), false},
		{"tar.zst", save(t, pack(t, "zstd", rootfs)), false},
		{"pipe", fifo, false},
		{"directory", plain, false},
		{"layout", dir, true},
		{"layout.tar", save(t, tarDir(t, dir)), true},
		{"layout.tar.gz", save(t, pack(t, "gzip", tarDir(t, dir))), true},
		{"docker.tar", docker, true},
		{"docker.tar.gz", save(t, pack(t, "gzip", saved)), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newManager(t, "exit 1")
			var stages []string
			image, err := m.Import(t.Context(), api.ImportRequest{Name: "app", Path: tc.path}, func(p banger.Progress) { stages = append(stages, p.Stage) })
			if err != nil {
				t.Fatal(err)
			}
			base := m.Dir.Image(image.Key)
			testenv.CheckExt4(t, base.Rootfs())
			if diff := cmp.Diff(wantPaths, paths(t, base.Rootfs())); diff != "" {
				t.Error(diff)
			}
			seed, err := os.Open(base.Seed())
			if err != nil {
				t.Fatal(err)
			}
			defer seed.Close()
			if h, err := tar.NewReader(seed).Next(); err != nil || h.Name != ".profile" {
				t.Errorf("the seed begins with %v, %v", h, err)
			}
			var want *banger.ImageConfig
			if tc.oci {
				want = &banger.ImageConfig{Env: []string{"A=1", "PATH=/x"}, WorkingDir: "/work", User: "app", Entrypoint: []string{"/entry"}, Cmd: []string{"cmd"}, ExposedPorts: []string{"80/tcp"}}
			}
			if diff := cmp.Diff(want, image.Config); diff != "" {
				t.Error(diff)
			}
			if got, err := m.find("app"); err != nil || got.Key != image.Key || image.Boot != banger.BootAgent || !slices.Contains(stages, "image") {
				t.Errorf("%+v, %v; boot %q; stages %q", got, err, image.Boot, stages)
			}
			if left, _ := filepath.Glob(m.Dir.Images() + "/.*"); len(left) > 0 {
				t.Errorf("left %q", left)
			}
			if tc.name == "pipe" {
				return
			}
			if again, err := m.Import(t.Context(), api.ImportRequest{Name: "app", Path: tc.path}, nil); err != nil || again.Key != image.Key {
				t.Errorf("again: %+v, %v", again, err)
			}
		})
	}
}

func TestImportFindsTheInit(t *testing.T) {
	path := save(t, tarOf(t, append(rootEntries(), text("usr/lib/systemd/systemd", "x"))...))
	for boot, want := range map[banger.BootKind]banger.BootKind{"": banger.BootSystem, banger.BootAgent: banger.BootAgent} {
		if image, err := newManager(t, "").Import(t.Context(), api.ImportRequest{Name: "app", Path: path, Boot: boot}, nil); err != nil || image.Boot != want {
			t.Errorf("boot %q: %q, %v", boot, image.Boot, err)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	rootfs := tarOf(t, rootEntries()...)
	img := imageOf(t, "amd64", rootfs)
	damaged := layoutOf(t, img)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(damaged, "blobs", "sha256", digest.Hex), pack(t, "gzip", tarOf(t, text("other", "x"))), 0o600); err != nil {
		t.Fatal(err)
	}
	badConfig := layoutOf(t, img)
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(badConfig, "blobs", "sha256", config.Hex), []byte(`{"os":"linux","architecture":"amd64"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	two := filepath.Join(t.TempDir(), "two.tar")
	if err := tarball.MultiRefWriteToFile(two, map[regname.Reference]v1.Image{regname.MustParseReference("a:1"): img, regname.MustParseReference("b:1"): imageOf(t, "amd64", tarOf(t, text("b", "b")))}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, image, path string
		kind              error
		say               string
	}{
		{"bad name", "Bad/Name", save(t, rootfs), banger.ErrInvalid, "a-z"},
		{"name of banger's own", "debian-bookworm-slim", save(t, rootfs), banger.ErrConflict, "builds"},
		{"nothing there", "app", "/nonexistent", banger.ErrNotFound, "/nonexistent"},
		{"empty file", "app", save(t, nil), banger.ErrInvalid, "empty"},
		{"text", "app", save(t, []byte(strings.Repeat("some text\n", 100))), banger.ErrInvalid, "no tar"},
		{"empty directory", "app", t.TempDir(), banger.ErrInvalid, "empty"},
		{"truncated tar", "app", save(t, rootfs[:2000]), banger.ErrCorrupt, "tar"},
		{"truncated gzip", "app", save(t, pack(t, "gzip", rootfs)[:200]), nil, "EOF"},
		{"another architecture", "app", layoutOf(t, imageOf(t, "arm64", rootfs)), banger.ErrInvalid, "linux/arm64"},
		{"no image", "app", layoutOf(t), banger.ErrInvalid, "no image"},
		{"no layers", "app", layoutOf(t, imageOf(t, "amd64")), banger.ErrInvalid, "without layers"},
		{"several", "app", layoutOf(t, img, imageOf(t, "amd64", tarOf(t, text("b", "b")))), banger.ErrInvalid, "several"},
		{"several saved", "app", two, banger.ErrInvalid, "one at a time"},
		{"layer that is another", "app", damaged, banger.ErrCorrupt, "digest"},
		{"configuration that is another", "app", badConfig, banger.ErrCorrupt, "digest"},
		{"archive of neither", "app", save(t, tarOf(t, text("oci-layout", "{}"))), banger.ErrInvalid, "without"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newManager(t, "exit 1")
			_, err := m.Import(t.Context(), api.ImportRequest{Name: tc.image, Path: tc.path}, nil)
			if err == nil || tc.kind != nil && !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.say) {
				t.Errorf("%v, want one with %q", err, tc.say)
			}
			wantNothing(t, m)
		})
	}
}

func TestImportIsInterrupted(t *testing.T) {
	m := newManager(t, "exit 1")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := w.Write(tarOf(t, rootEntries()...)[:1024]); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Import(ctx, api.ImportRequest{Name: "app", Path: fmt.Sprintf("/proc/self/fd/%d", r.Fd())}, nil); err == nil {
		t.Error("a pipe that gives nothing became an image")
	}
	wantNothing(t, m)
}

func TestDeleteAndResolve(t *testing.T) {
	m := newManager(t, "exit 1")
	image, err := m.Import(t.Context(), api.ImportRequest{Name: "app", Path: save(t, tarOf(t, rootEntries()...))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"app", image.Key, image.Key[:8]} {
		if got, err := m.Resolve(ref); err != nil || got.Key != image.Key {
			t.Errorf("Resolve(%q) = %+v, %v", ref, got, err)
		}
	}
	for _, ref := range []string{"", "ap", "zz"} {
		if _, err := m.Resolve(ref); !errors.Is(err, banger.ErrNotFound) {
			t.Errorf("Resolve(%q): %v", ref, err)
		}
	}
	if err := m.Delete(image.Key); err != nil {
		t.Fatal(err)
	}
	if err := m.Delete(image.Key); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	wantNothing(t, m)
}
