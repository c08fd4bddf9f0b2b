package smoke

import (
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"banger"
	"banger/internal/testenv"
	"banger/internal/tree"
)

const helloSource = `package main

import (
	"fmt"
	"os"
)

func main() {
	dir, err := os.Getwd()
	fmt.Println(os.Getenv("FROM"), os.Getuid(), dir, os.Args[1:], err)
}
`

// helloProgram is a static program.
func helloProgram(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(helloSource), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command(testenv.RequireTool(t, "go"), "build", "-o", "hello", "main.go")
	build.Dir, build.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program, err := os.ReadFile(filepath.Join(dir, "hello"))
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// scratchImage is an image with one static program and nothing else.
func scratchImage(t *testing.T) v1.Image {
	t.Helper()
	program := helloProgram(t)
	var layer bytes.Buffer
	if err := tree.WriteTar(&layer, tree.Of(tree.Literal("hello", 0o755, program), tree.Directory("work", 0o755))); err != nil {
		t.Fatal(err)
	}
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", Config: v1.Config{Env: []string{"FROM=image"}, User: "1000:1000",
		Entrypoint: []string{"/hello"}, Cmd: []string{"default"}, WorkingDir: "/work"}})
	if err != nil {
		t.Fatal(err)
	}
	added, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err == nil {
		img, err = mutate.AppendLayers(img, added)
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// The image that the first run made from packages is whole: a sound file system, programs with their modes, the home's files in the seed.
func TestImageFromPackages(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	var images []banger.Image
	w.JSON(&images, "image", "list")
	if len(images) != 1 || images[0].Boot != banger.BootAgent || images[0].Source != "packages debian:bookworm" {
		t.Fatalf("images: %+v", images)
	}
	dir := filepath.Join(w.State, "images", images[0].Key)
	base := filepath.Join(dir, "rootfs.ext4")
	testenv.CheckExt4(t, base)
	debugfs := testenv.RequireTool(t, "debugfs")
	for path, want := range map[string]string{"/usr/bin/git": "Mode:  0755", "/usr/bin/passwd": "Mode:  04755"} {
		if out := testenv.Run(t, debugfs, "-R", "stat "+path, base); !strings.Contains(out, want) {
			t.Errorf("%s: want %q in\n%s", path, want, out)
		}
	}
	if out := testenv.Run(t, "tar", "-tf", filepath.Join(dir, "seed.tar")); !strings.Contains(out, ".bashrc") {
		t.Errorf("seed: %s", out)
	}
}

// An image of one program, without a shell, an init or an account, boots as it is.
func TestImportedImageBoots(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	var archive bytes.Buffer // what docker save gives
	if err := tarball.Write(name.MustParseReference("scratch:1"), scratchImage(t), &archive); err != nil {
		t.Fatal(err)
	}
	cmd := w.Command(t.Context(), "image", "import", "-", "--name", "scratch")
	cmd.Stdin = &archive
	r := testenv.Capture(t, cmd)
	wantStatus(t, r, 0)
	if out := w.Must("vm", "run", "--name", "box", "--image", "scratch", "--", "/hello"); out != "image 1000 / [] <nil>\n" {
		t.Errorf("the program printed %q", out)
	}
	if out := w.Must("vm", "exec", "--user", "root", "--env", "FROM=me", "box", "--", "/hello", "a b"); out != "me 0 / [a b] <nil>\n" && out != "me 0 /root [a b] <nil>\n" {
		t.Errorf("as root it printed %q", out)
	}
	if r := w.Run("image", "delete", "scratch"); r.Status != 4 || !strings.Contains(r.Stderr, "box") {
		t.Errorf("delete an image in use: status %d, %s", r.Status, r.Stderr)
	}
	w.Must("vm", "stop", "box")
	w.Must("vm", "start", "box")
	if out := w.Must("vm", "exec", "box", "--", "/hello"); !strings.HasPrefix(out, "image 1000") {
		t.Errorf("after stop and start it printed %q", out)
	}
	w.Must("vm", "delete", "--force", "box")
	w.Must("image", "delete", "scratch")
	if out := w.Must("image", "list", "--quiet"); strings.Contains(out, "scratch") {
		t.Errorf("still there: %q", out)
	}
}

func TestPulledImageBoots(t *testing.T) {
	t.Parallel()
	w := testenv.NewWorld(t)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	ref := strings.TrimPrefix(server.URL, "http://") + "/team/hello:1"
	parsed, err := name.ParseReference(ref)
	if err == nil {
		err = remote.Write(parsed, scratchImage(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	if out := w.Must("vm", "run", "--rm", "--image", ref, "--oci-cmd"); out != "image 1000 /work [default] <nil>\n" {
		t.Errorf("the command of an image that had to be pulled printed %q", out)
	}
	if out := w.Must("image", "pull", ref); out != "hello-1\n" {
		t.Errorf("image pull printed %q", out)
	}
	if out := w.Must("vm", "run", "--rm", "--image", "hello-1", "--oci-cmd"); out != "image 1000 /work [default] <nil>\n" {
		t.Errorf("the image's command printed %q", out)
	}
	if out := w.Must("vm", "run", "--rm", "--image", "hello-1", "--oci-cmd", "--", "x", "y"); out != "image 1000 /work [x y] <nil>\n" {
		t.Errorf("the image's command with arguments printed %q", out)
	}
	if r := w.Run("image", "pull", ref+"x"); r.Status != 3 || !strings.Contains(r.Stderr, "hint: ") {
		t.Errorf("what is not there: status %d, %s", r.Status, r.Stderr)
	}
}
