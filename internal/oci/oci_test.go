package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"banger"
	"banger/internal/tree"
)

// A stream that is read ahead is the same stream, whether its reader comes at once, late, or stops in the middle.
func TestReadAhead(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, 3*chunkSize + 5, 20 * chunkSize} {
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(random.Uint32())
		}
		for _, late := range []bool{false, true} {
			for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "missing")} {
				for _, end := range []error{io.EOF, errors.New("broken")} {
					at := make(chan struct{})
					stream := io.MultiReader(bytes.NewReader(content), iotest.ErrReader(end))
					r := readAhead(dir, func() {}, func() (io.Reader, func(), error) { return stream, func() { close(at) }, nil })
					if late && dir != "" && size < chunkSize*chunksAhead {
						<-at // all of it waits
					}
					got, err := io.ReadAll(r)
					if end == io.EOF && err != nil || end != io.EOF && !errors.Is(err, end) || !bytes.Equal(got, content) {
						t.Errorf("%d bytes, late %v: %d bytes, %v", size, late, len(got), err)
					}
					r.close()
					r.close()
				}
			}
		}
		r := readAhead(t.TempDir(), func() {}, func() (io.Reader, func(), error) { return bytes.NewReader(content), func() {}, nil })
		if _, err := io.CopyN(io.Discard, r, int64(size/2)); err != nil {
			t.Errorf("half of %d bytes: %v", size, err)
		}
		r.close()
	}
	failed := errors.New("not to be opened")
	r := readAhead(t.TempDir(), func() {}, func() (io.Reader, func(), error) { return nil, nil, failed })
	if _, err := io.ReadAll(r); !errors.Is(err, failed) {
		t.Errorf("ReadAll = %v", err)
	}
	r.close()
}

func archiveOf(t testing.TB, files ...[2]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f[0], Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f[1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// dockerSave is a small archive of docker save.
func dockerSave(t testing.TB) []byte {
	t.Helper()
	layer := string(archiveOf(t, [2]string{"etc/motd", "hello\n"}))
	sum := sha256.Sum256([]byte(layer))
	config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","config":{"Env":["A=1"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}`, hex.EncodeToString(sum[:]))
	name := sha256.Sum256([]byte(config))
	return archiveOf(t, [2]string{hex.EncodeToString(name[:]) + ".json", config}, [2]string{"x/layer.tar", layer},
		[2]string{"manifest.json", fmt.Sprintf(`[{"Config":"%x.json","RepoTags":["a:1"],"Layers":["x/layer.tar"]}]`, name)})
}

var testLimits = tree.Limits{Entries: 1000, Bytes: 1 << 20}

// FuzzOpenArchive wants of every archive that is taken that its layers have the digests that its configuration says.
func FuzzOpenArchive(f *testing.F) {
	f.Add(dockerSave(f))
	f.Add(archiveOf(f, [2]string{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`}, [2]string{"index.json", `{"schemaVersion":2,"manifests":[]}`}))
	f.Add(archiveOf(f, [2]string{"manifest.json", `[]`}))
	f.Fuzz(func(t *testing.T, archive []byte) {
		dir := t.TempDir()
		img, err := OpenArchive(t.Context(), bytes.NewReader(archive), filepath.Join(dir, "spool"), Options{Limits: testLimits, Spool: dir, Report: func(int64, int64) {}})
		if err != nil {
			return
		}
		defer img.Close()
		for e, err := range img.Tree {
			if err != nil {
				return
			}
			if e.Path == "" || e.Path[0] == '/' {
				t.Fatalf("path %q", e.Path)
			}
			if e.Content != nil {
				if n, err := io.Copy(io.Discard, e.Content); err == nil && n != e.Size {
					t.Fatalf("%s has %d bytes, not %d", e.Path, n, e.Size)
				}
			}
		}
		if len(img.Identity) != 64 {
			t.Fatalf("identity %q", img.Identity)
		}
	})
}

func TestOpenDockerSave(t *testing.T) {
	dir := t.TempDir()
	img, err := OpenArchive(t.Context(), bytes.NewReader(dockerSave(t)), filepath.Join(dir, "spool"), Options{Limits: testLimits, Spool: dir, Report: func(int64, int64) {}})
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for e, err := range img.Tree {
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, e.Path)
	}
	if fmt.Sprint(paths) != "[. etc/motd]" || len(img.Config.Env) != 1 {
		t.Errorf("%q, %+v", paths, img.Config)
	}
	if err := img.Close(); err != nil {
		t.Error(err)
	}
	broken := bytes.Replace(dockerSave(t), []byte("hello"), []byte("hullo"), 1)
	img, err = OpenArchive(t.Context(), bytes.NewReader(broken), filepath.Join(dir, "other"), Options{Limits: testLimits, Spool: dir, Report: func(int64, int64) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	var last error
	for _, err := range img.Tree {
		last = err
	}
	if !errors.Is(last, banger.ErrCorrupt) {
		t.Errorf("a changed layer: %v", last)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left: %v, %v", left, err)
	}
}
