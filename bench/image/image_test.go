// Package image measures how fast a registry's image becomes one that machines boot: by banger, by the tools that one would use
// instead, and how long the same bytes take to come, to be unpacked and to be hashed. All ways take turns in one run; what is printed
// are medians. Ratios within one table mean something, times from another computer do not.
//
// The registry is Debian's docker-registry on loopback. The image has three layers made of Debian's packages, which apt gets.
// BANGER_BENCH_RUNS is how often each way runs (5).
package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/gzip"

	"banger/internal/testenv"
)

// packages of the upper layers, chosen for their size.
var packages = [][]string{
	{"git", "perl-base", "perl-modules-5.36", "libperl5.36", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libicu72"},
	{"cpp-12", "vim-runtime"},
}

func runs() int {
	if n, err := strconv.Atoi(os.Getenv("BANGER_BENCH_RUNS")); err == nil && n > 0 {
		return n
	}
	return 5
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// makeLayers gives the tars of three layers.
func makeLayers(b *testing.B, dir string) []string {
	b.Helper()
	var tars []string
	base := filepath.Join(dir, "base.tar")
	testenv.Run(b, testenv.RequireTool(b, "mmdebstrap"), "--mode=root", "--variant=minbase", "--quiet", "bookworm", base)
	tars = append(tars, base)
	apt := testenv.RequireTool(b, "apt-get")
	for i, names := range packages {
		debs := filepath.Join(dir, fmt.Sprint("debs", i))
		if err := os.Mkdir(debs, 0o755); err != nil {
			b.Fatal(err)
		}
		cmd := exec.Command(apt, append([]string{"download", "-qq"}, names...)...)
		cmd.Dir = debs
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Skipf("needs apt's packages %v: %v: %s", names, err, out)
		}
		files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
		if err != nil {
			b.Fatal(err)
		}
		layer := filepath.Join(dir, fmt.Sprintf("layer%d.tar", i))
		if err := joinPackages(layer, files); err != nil {
			b.Fatal(err)
		}
		tars = append(tars, layer)
	}
	return tars
}

// joinPackages makes one layer of what packages install, on a base whose /bin, /lib and /sbin are links.
func joinPackages(layer string, debs []string) error {
	out, err := os.Create(layer)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	for _, deb := range debs {
		cmd := exec.Command("dpkg-deb", "--fsys-tarfile", deb)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		if err := copyTar(w, tar.NewReader(stdout)); err != nil {
			return err
		}
		if err := cmd.Wait(); err != nil {
			return err
		}
	}
	return w.Close()
}

func copyTar(w *tar.Writer, r *tar.Reader) error {
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		header.Name = strings.TrimPrefix(header.Name, "./")
		if first, _, _ := strings.Cut(header.Name, "/"); header.Name == "" || slices.Contains([]string{"bin", "lib", "lib64", "sbin"}, first) {
			continue
		}
		header.Format = tar.FormatPAX
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
	}
}

// push makes an image of tars and gives it with the sizes of its layers, packed and not.
func push(b *testing.B, ref string, tars []string) (img v1.Image, packed, unpacked int64) {
	b.Helper()
	var layers []v1.Layer
	for _, file := range tars {
		layer, err := tarball.LayerFromFile(file)
		if err != nil {
			b.Fatal(err)
		}
		layers = append(layers, layer)
		size, err := layer.Size()
		info, statErr := os.Stat(file)
		if err := errors.Join(err, statErr); err != nil {
			b.Fatal(err)
		}
		packed, unpacked = packed+size, unpacked+info.Size()
	}
	return pushLayers(b, ref, layers), packed, unpacked
}

func pushLayers(b *testing.B, ref string, layers []v1.Layer) v1.Image {
	b.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}, Config: v1.Config{Cmd: []string{"/bin/sh"}}})
	if err != nil {
		b.Fatal(err)
	}
	if img, err = mutate.AppendLayers(img, layers...); err != nil {
		b.Fatal(err)
	}
	tag, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		b.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		b.Fatal(err)
	}
	return img
}

// floor downloads, unpacks and hashes every layer, all at once.
func floor(host string, img v1.Image) error {
	manifest, err := img.Manifest()
	if err != nil {
		return err
	}
	errs := make([]error, len(manifest.Layers))
	var group sync.WaitGroup
	for i, layer := range manifest.Layers {
		group.Go(func() { errs[i] = floorLayer(host, layer.Digest.Hex) })
	}
	group.Wait()
	return errors.Join(errs...)
}

func floorLayer(host, digest string) error {
	answer, err := http.Get("http://" + host + "/v2/app/blobs/sha256:" + digest)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	packed, content := sha256.New(), sha256.New()
	z, err := gzip.NewReader(io.TeeReader(answer.Body, packed))
	if err != nil {
		return err
	}
	if _, err := io.Copy(content, z); err != nil {
		return err
	}
	if _, err := io.Copy(packed, answer.Body); err != nil {
		return err
	}
	if got := hex.EncodeToString(packed.Sum(nil)); got != digest {
		return fmt.Errorf("digest %s, want %s", got, digest)
	}
	return nil
}

// byTools makes an ext4 image with skopeo, umoci and mke2fs.
func byTools(dir, host string) error {
	layout, bundle, out := filepath.Join(dir, "layout"), filepath.Join(dir, "bundle"), filepath.Join(dir, "out.ext4")
	defer os.RemoveAll(layout)
	defer os.RemoveAll(bundle)
	defer os.Remove(out)
	for _, args := range [][]string{
		{"skopeo", "copy", "-q", "--src-tls-verify=false", "docker://" + host + "/app:1", "oci:" + layout + ":1"},
		{"umoci", "unpack", "--image", layout + ":1", bundle},
		{"truncate", "-s", "2G", out},
		{"mke2fs", "-q", "-t", "ext4", "-F", "-d", filepath.Join(bundle, "rootfs"), out},
	} {
		if output, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", args, err, output)
		}
	}
	return nil
}

// BenchmarkPull takes an image of three layers, about 350 MB unpacked.
func BenchmarkPull(b *testing.B) {
	for _, tool := range []string{"skopeo", "umoci", "mke2fs", "dpkg-deb"} {
		testenv.RequireTool(b, tool)
	}
	dir := b.TempDir()
	host := testenv.StartRegistry(b, false, false).Host
	img, packed, unpacked := push(b, host+"/app:1", makeLayers(b, dir))
	w := testenv.NewBareWorld(b)
	w.Must("image", "list") // starts the daemon
	times := make([][]time.Duration, 4)
	names := []string{"skopeo, umoci, mke2fs -d", "banger image pull", "the same, layers in the cache", "floor: download, gunzip, sha256"}
	ways := []func() error{
		func() error { return byTools(dir, host) },
		func() error { return pull(w, host, "app", true) },
		func() error { return pull(w, host, "app", false) },
		func() error { return floor(host, img) },
	}
	for range b.N {
		for round := range runs() + 1 { // the first warms up
			for i, way := range ways {
				forget(b, w)
				if i == 0 && round > 3 {
					continue
				}
				_ = exec.Command("sync", "-f", dir).Run()
				start := time.Now()
				if err := way(); err != nil {
					b.Fatalf("%s: %v", names[i], err)
				}
				if took := time.Since(start); round > 0 {
					times[i] = append(times[i], took)
				}
			}
		}
	}
	fmt.Printf("\nthree layers, %.0f MB packed, %.0f MB unpacked\n", float64(packed)/1e6, float64(unpacked)/1e6)
	table(names, times)
	pulled, floor := ms(times[1][len(times[1])/2]), ms(times[3][len(times[3])/2]) // in order now
	b.ReportMetric(pulled/floor, "pull/floor")
	b.ReportMetric(ms(times[0][len(times[0])/2])/pulled, "tools/pull")
	b.ReportMetric(float64(peakMemory(b, w.DaemonPID()))/1e6, "bangerd-MB")
	second(b, w, dir, host, img)
}

// second pulls an image that shares two of three layers with one that was pulled, and tells what came from the registry.
func second(b *testing.B, w *testenv.World, dir, host string, first v1.Image) {
	b.Helper()
	forget(b, w)
	if err := pull(w, host, "app", true); err != nil {
		b.Fatal(err)
	}
	layers, err := first.Layers()
	if err != nil {
		b.Fatal(err)
	}
	last := filepath.Join(dir, "other.tar")
	files, err := filepath.Glob(filepath.Join(dir, "debs1", "vim*.deb"))
	if err == nil {
		err = joinPackages(last, files)
	}
	if err != nil {
		b.Fatal(err)
	}
	other, err := tarball.LayerFromFile(last)
	if err != nil {
		b.Fatal(err)
	}
	before := cached(w)
	img := pushLayers(b, host+"/other:1", append(layers[:2:2], other))
	proxy, served := countLayers(b, host)
	if err := pull(w, proxy, "other", false); err != nil {
		b.Fatal(err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		b.Fatal(err)
	}
	fmt.Printf("second image, two of three layers shared: %d bytes of layers came, the third has %d; %d layers in the cache, before %d\n",
		served.Load(), manifest.Layers[2].Size, cached(w), before)
	if served.Load() != manifest.Layers[2].Size {
		b.Error("other layers came too")
	}
}

// cached counts the layers in the cache.
func cached(w *testenv.World) int {
	files, _ := filepath.Glob(filepath.Join(w.State, "cache", "blobs", "sha256", "*"))
	return len(files)
}

// countLayers serves a registry under another address and counts the bytes of layers.
func countLayers(b *testing.B, host string) (proxy string, served *atomic.Int64) {
	served = &atomic.Int64{}
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	forward.ModifyResponse = func(answer *http.Response) error {
		if answer.Request.Method == http.MethodGet && strings.Contains(answer.Request.URL.Path, "/blobs/") && answer.ContentLength > 1<<16 { // not a configuration
			served.Add(answer.ContentLength)
		}
		return nil
	}
	server := httptest.NewServer(forward)
	b.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://"), served
}

// pull makes the image; whole wants the layers from the registry.
func pull(w *testenv.World, host, app string, whole bool) error {
	cache := filepath.Join(w.State, "cache", "blobs", "sha256")
	if whole {
		files, _ := filepath.Glob(filepath.Join(cache, "*"))
		for _, file := range files {
			if err := os.Remove(file); err != nil {
				return err
			}
		}
	}
	return w.Command(context.Background(), "image", "pull", host+"/"+app+":1", "--name", app, "--quiet").Run()
}

func forget(b *testing.B, w *testenv.World) {
	b.Helper()
	if images, _ := filepath.Glob(filepath.Join(w.State, "images", "*")); len(images) > 0 {
		w.Must("image", "delete", "app")
	}
}

func table(names []string, times [][]time.Duration) {
	last := times[len(times)-1]
	slices.Sort(last)
	tw := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "way\tmedian ms\tfastest ms\truns\tx floor\t")
	for i, list := range times {
		slices.Sort(list)
		median := list[len(list)/2]
		fmt.Fprintf(tw, "%s\t%.0f\t%.0f\t%d\t%.2f\t\n", names[i], ms(median), ms(list[0]), len(list), float64(median)/float64(last[len(last)/2]))
	}
	tw.Flush()
}

// peakMemory is a process's VmHWM in bytes (proc_pid_status(5)).
func peakMemory(b *testing.B, pid int) int64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	b.Fatal("no VmHWM")
	return 0
}
