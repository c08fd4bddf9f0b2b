package smoke

import (
	"archive/tar"
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

	"banger/internal/testenv"
)

// layerOf is a layer of tar headers; a regular file has its name as content, busybox its program.
func layerOf(t *testing.T, headers ...tar.Header) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := []byte(h.Name + "\n")
		if strings.HasSuffix(h.Name, "/busybox") {
			program, err := os.ReadFile(testenv.RequireTool(t, "busybox"))
			if err != nil {
				t.Fatal(err)
			}
			content = program
		}
		h.Format = tar.FormatPAX
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(content))
		}
		err := w.WriteHeader(&h)
		if err == nil && h.Typeflag == tar.TypeReg {
			_, err = w.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// An image of everything that is hard to carry over: hard links, capabilities, a name of 255 bytes, an upper layer that merges /bin
// into /usr, whiteouts and opaque directories.
func TestOddImageBoots(t *testing.T) {
	t.Parallel()
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	dir := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }
	program := func(name string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755}
	}
	long := strings.Repeat("n", 255)
	// cap_net_raw=ep, version 2 (linux/capability.h: struct vfs_cap_data).
	capable := program("opt/tool")
	capable.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	img, err := mutate.AppendLayers(empty.Image,
		layerOf(t, dir("bin/"), program("bin/busybox"), file("bin/lower"), dir("opt/"), capable, file("opt/long-"+long[5:]), file("opt/"+long), file("opt/one"),
			tar.Header{Name: "opt/two", Typeflag: tar.TypeLink, Linkname: "opt/one"}, dir("var/"), dir("var/cache/"), file("var/cache/old"), dir("var/cache/deep/"), file("var/cache/deep/old"), file("var/gone"),
			tar.Header{Name: "opt/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}),
		layerOf(t, dir("usr/"), dir("usr/bin/"), program("usr/bin/busybox"), file(".wh.bin"), tar.Header{Name: "bin", Typeflag: tar.TypeSymlink, Linkname: "usr/bin", Mode: 0o777},
			file("var/.wh.gone"), dir("var/cache/"), file("var/cache/.wh..wh..opq"), file("var/cache/new")))
	if err == nil {
		img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: must(img.ConfigFile()).RootFS, Config: v1.Config{Env: []string{"PATH=/usr/bin:/bin"}}})
	}
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	ref := strings.TrimPrefix(server.URL, "http://") + "/odd:1"
	parsed, err := name.ParseReference(ref)
	if err == nil {
		err = remote.Write(parsed, img)
	}
	if err != nil {
		t.Fatal(err)
	}
	w := testenv.NewWorld(t)
	// modprobe, lib and tmp are what a machine adds.
	script := `b=/usr/bin/busybox
$b readlink /bin; $b ls /bin | $b tr '\n' ' '; echo
$b ls -A /var /var/cache | $b tr '\n' ' '; echo
$b stat -c '%h %i' /opt/one /opt/two | $b sort -u | $b wc -l
$b cat /opt/two; $b cat /opt/` + long + ` | $b wc -c
$b stat -c '%F %t %T' /opt/null
/bin/busybox echo merged`
	want := "usr/bin\nbusybox modprobe \n/var: cache lib tmp  /var/cache: new \n1\nopt/one\n260\ncharacter special file 1 3\nmerged\n"
	if r := w.Run("vm", "run", "--rm", "--image", ref, "--", "/usr/bin/busybox", "sh", "-c", script); r.Status != 0 || r.Stdout != want {
		t.Errorf("status %d, %q, want %q; %s", r.Status, r.Stdout, want, r.Stderr)
	}
	out := filepath.Join(w.State, "out.tar")
	w.Must("image", "export", ref, out)
	content, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for r := tar.NewReader(bytes.NewReader(content)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		found = found || h.Name == "opt/tool" && h.PAXRecords["SCHILY.xattr.security.capability"] == capable.PAXRecords["SCHILY.xattr.security.capability"]
	}
	if !found {
		t.Error("the program has lost its capability")
	}
}

func must(cfg *v1.ConfigFile, err error) *v1.ConfigFile {
	if err != nil {
		panic(err)
	}
	return cfg
}

// What buildah makes of busybox boots, from a layout and from an archive of docker save.
func TestBuildahImageBoots(t *testing.T) {
	t.Parallel()
	buildah, busybox := testenv.RequireTool(t, "buildah"), testenv.RequireTool(t, "busybox")
	dir := t.TempDir()
	env := append(os.Environ(), "STORAGE_DRIVER=vfs", "BUILDAH_ISOLATION=chroot")
	do := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(buildah, append([]string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run")}, args...)...)
		cmd.Env = env
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("buildah %q: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	from := do("from", "scratch")
	do("copy", from, busybox, "/bin/busybox")
	do("config", "--env", "MADE=buildah", "--entrypoint", `["/bin/busybox"]`, "--cmd", "uname -n", "--workingdir", "/srv", from)
	do("commit", "--quiet", from, "oci:"+filepath.Join(dir, "layout")+":box")
	do("commit", "--quiet", from, "docker-archive:"+filepath.Join(dir, "box.tar")+":box:1")
	w := testenv.NewWorld(t)
	for image, path := range map[string]string{"layout": "layout", "archive": "box.tar"} {
		shared := filepath.Join(w.State, path)
		if out, err := exec.Command("cp", "-r", filepath.Join(dir, path), shared).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		if out, err := exec.Command("chown", "-R", w.User.Name, shared).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		w.Must("image", "import", shared, "--name", image)
		if out := w.Must("vm", "run", "--rm", "--image", image, "--oci-cmd", "--", "sh", "-c", "echo $MADE; busybox pwd"); out != "buildah\n/srv\n" {
			t.Errorf("%s printed %q", image, out)
		}
	}
}
