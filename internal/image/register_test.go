package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/api"
	"banger/internal/statedir"
	"banger/internal/testenv"
	"banger/internal/tree"
)

// hostRootfs makes an ext4 image of a small root file system, with mke2fs.
func hostRootfs(t testing.TB, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	for path, content := range map[string]string{"etc/os-release": "ID=test\n", "etc/machine-id": "0123\n", "root/.profile": "mine\n", "root/bin/x": "y"} {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Contains(args, "-t") {
		args = append([]string{"-t", "ext4"}, args...)
	}
	return testenv.Mke2fs(t, 16<<20, append(args, "-d", dir)...)
}

func plainManager(t testing.TB) *Manager {
	t.Helper()
	m := New(Config{Dir: statedir.Dir{Root: filepath.Join(t.TempDir(), "s")}})
	if err := m.Dir.Ensure(); err != nil {
		t.Fatal(err)
	}
	return m
}

func mustRegister(t testing.TB, m *Manager, req api.RegisterRequest) banger.Image {
	t.Helper()
	image, err := m.Register(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// names lists a directory.
func names(t testing.TB, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		list = append(list, entry.Name())
	}
	return list
}

// seedPaths lists what a seed holds, with the content of files.
func seedPaths(t testing.TB, path string) (list []string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for e, err := range tree.FromTar(file, tree.Limits{}) {
		if err != nil {
			t.Fatal(err)
		}
		line := e.Path
		if e.Content != nil {
			var b bytes.Buffer
			if _, err := b.ReadFrom(e.Content); err != nil {
				t.Fatal(err)
			}
			line += "=" + b.String()
		}
		list = append(list, line)
	}
	slices.Sort(list)
	return list
}

func TestRegister(t *testing.T) {
	m, file := plainManager(t), hostRootfs(t)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var stages []string
	image, err := m.Register(t.Context(), api.RegisterRequest{Name: "mine", Rootfs: file, Kernel: "own"}, func(p banger.Progress) { stages = append(stages, p.Text) })
	if err != nil {
		t.Fatal(err)
	}
	if image.Name != "mine" || image.Kernel != "own" || image.Boot != banger.BootAgent || image.SizeBytes != 16<<20 || image.Source != "registered "+file ||
		image.Registered == nil || image.Registered.Path != file || !slices.Contains(stages, "registering image mine") {
		t.Errorf("Register = %+v, told %q", image, stages)
	}
	dir := m.Dir.Image(image.Key)
	if diff := cmp.Diff([]string{"image.json", "seed.tar"}, names(t, dir.Path)); diff != "" {
		t.Errorf("the image's directory: %s", diff)
	}
	if diff := cmp.Diff([]string{".profile=mine\n", "bin", "bin/x=y"}, seedPaths(t, dir.Seed())); diff != "" {
		t.Errorf("seed: %s", diff)
	}
	if list, err := m.List(); err != nil || len(list) != 1 || !cmp.Equal(list[0], image) {
		t.Errorf("List = %+v, %v, want %+v", list, err, image)
	}
	if path, err := m.Base(t.Context(), image, nil); err != nil || path != file {
		t.Errorf("Base = %q, %v", path, err)
	}
	again := mustRegister(t, m, api.RegisterRequest{Name: "mine", Rootfs: file, Kernel: "own"})
	if again.Key != image.Key {
		t.Errorf("registered again: key %s, want %s", again.Key, image.Key)
	}
	if err := m.Delete(image.Key); err != nil {
		t.Error(err)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("deleting the image touched the file: %v", err)
	}
	if left := names(t, m.Dir.Images()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRegisterWithWorkSeed(t *testing.T) {
	m, file := plainManager(t), hostRootfs(t)
	content := tarOf(t, tree.Directory(".config", 0o700), text(".config/x", "1"), tree.Entry{Path: "null", Kind: tree.CharDevice, Major: 1, Minor: 3})
	want := []string{".config", ".config/x=1"}
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, ".config"), 0o700), os.WriteFile(filepath.Join(dir, ".config/x"), []byte("1"), 0o600)); err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for what, seed := range map[string]string{"tar": save(t, content), "gzip": save(t, pack(t, "gzip", content)), "xz": save(t, pack(t, "xz", content)),
		"ext4": testenv.Mke2fs(t, 8<<20, "-d", dir)} {
		image := mustRegister(t, m, api.RegisterRequest{Name: what, Rootfs: file, WorkSeed: seed})
		if diff := cmp.Diff(want, seedPaths(t, m.Dir.Image(image.Key).Seed())); diff != "" {
			t.Errorf("%s: seed: %s", what, diff)
		}
	}
	for _, seed := range []string{"", save(t, content), save(t, tarOf(t, text("other", "2")))} {
		keys[mustRegister(t, m, api.RegisterRequest{Name: "mine", Rootfs: file, WorkSeed: seed}).Key] = true
	}
	if len(keys) != 3 {
		t.Errorf("3 seeds gave %d keys", len(keys))
	}
	count := len(names(t, m.Dir.Images()))
	for what, seed := range map[string]string{
		"nothing":    filepath.Join(dir, "nosuch"),
		"a program":  "/proc/self/exe",
		"cut off":    save(t, pack(t, "gzip", content)[:80]),
		"a loop":     save(t, tarOf(t, text("a", "1"), text("a/b", "2"))),
		"bad link":   save(t, tarOf(t, tree.Entry{Path: "l", Kind: tree.HardLink, Link: "../../etc/passwd"})),
		"directory":  dir,
		"bomb":       save(t, pack(t, "gzip", tarOf(t, tree.Entry{Path: "zeros", Kind: tree.File, Size: maxSeed + 1, Content: zeros{}}))),
		"needs fsck": dirty(t, testenv.Mke2fs(t, 8<<20, "-d", dir)),
	} {
		if _, err := m.Register(t.Context(), api.RegisterRequest{Name: "mine", Rootfs: file, WorkSeed: seed}, nil); err == nil || banger.KindName(err) == "internal" {
			t.Errorf("%s as the seed: %v", what, err)
		} else if !strings.Contains(err.Error(), seed) {
			t.Errorf("%s as the seed: %v does not name it", what, err)
		}
	}
	if got := len(names(t, m.Dir.Images())); got != count {
		t.Errorf("failures left something: %v", names(t, m.Dir.Images()))
	}
}

// zeros has no end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// dirty makes an image look as if its kernel had lost power.
func dirty(t testing.TB, image string) string {
	t.Helper()
	testenv.Run(t, "debugfs", "-w", "-R", "feature needs_recovery", image)
	return image
}

func TestRegisterRefuses(t *testing.T) {
	m, dir := plainManager(t), t.TempDir()
	good := hostRootfs(t)
	bytesOf := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	fifo, own := filepath.Join(dir, "fifo"), filepath.Join(m.Dir.Root, "own.ext4")
	if err := errors.Join(syscall.Mkfifo(fifo, 0o600), os.WriteFile(own, bytesOf(good), 0o600), os.Symlink(own, filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.Dir.ImageStaging("x").Path, nil, 0o600); err != nil { // must not be taken for the image's
		t.Fatal(err)
	}
	noMagic := bytesOf(good)
	clear(noMagic[1024+0x38 : 1024+0x3A])
	for _, tc := range []struct {
		what, path string
		kind       error
		says, hint string
	}{
		{"nothing", filepath.Join(dir, "nosuch"), banger.ErrNotFound, "nosuch", ""},
		{"below a file", good + "/x", banger.ErrNotFound, "not a directory", ""},
		{"a directory", dir, banger.ErrInvalid, "no regular file", ""},
		{"a FIFO", fifo, banger.ErrInvalid, "no regular file", ""},
		{"a device", "/dev/null", banger.ErrInvalid, "no regular file", ""},
		{"banger's own", own, banger.ErrInvalid, "banger's own", ""},
		{"banger's own through a link", filepath.Join(dir, "link"), banger.ErrInvalid, "banger's own", ""},
		{"empty", save(t, nil), banger.ErrUnsupported, "it is empty", ""},
		{"qcow2", save(t, append([]byte("QFI\xfb"), make([]byte, 70_000)...)), banger.ErrUnsupported, "qcow2", "qemu-img convert"},
		{"a tar", save(t, tarOf(t, text("x", "y"))), banger.ErrUnsupported, "tar", ""},
		{"no magic number", save(t, noMagic), banger.ErrUnsupported, "no ext4", ""},
		{"cut off", save(t, bytesOf(good)[:4<<20]), banger.ErrCorrupt, "truncated", ""},
		{"needs recovery", dirty(t, hostRootfs(t)), banger.ErrConflict, "needs recovery", "e2fsck -f "},
		{"not unmounted", withState(t, hostRootfs(t), 0), banger.ErrConflict, "not unmounted", "e2fsck -f "},
		{"with errors", withState(t, hostRootfs(t), 3), banger.ErrConflict, "errors", "e2fsck -f "},
		{"large blocks", hostRootfs(t, "-b", "65536"), banger.ErrUnsupported, "65536", "image import"},
		{"bigalloc", hostRootfs(t, "-O", "bigalloc"), banger.ErrUnsupported, "bigalloc", ""},
		{"casefold", hostRootfs(t, "-O", "casefold"), banger.ErrUnsupported, "casefold", "image import"},
		{"encrypt", hostRootfs(t, "-O", "encrypt"), banger.ErrUnsupported, "encrypt", ""},
	} {
		_, err := m.Register(t.Context(), api.RegisterRequest{Name: "mine", Rootfs: tc.path}, nil)
		if !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says) || !strings.Contains(banger.HintOf(err), tc.hint) {
			t.Errorf("%s: Register = %v (%s, hint %q), want %v, %q, %q", tc.what, err, banger.KindName(err), banger.HintOf(err), tc.kind, tc.says, tc.hint)
		}
	}
	for _, req := range []api.RegisterRequest{{Name: "Bad/Name", Rootfs: good}, {Name: "mine", Rootfs: good, Boot: "floppy"}} {
		if _, err := m.Register(t.Context(), req, nil); !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("Register(%+v) = %v", req, err)
		}
	}
	if _, err := m.Register(t.Context(), api.RegisterRequest{Name: name, Rootfs: good}, nil); !errors.Is(err, banger.ErrConflict) {
		t.Errorf("Register with the name of a definition: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Register(ctx, api.RegisterRequest{Name: "mine", Rootfs: good}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Register cancelled: %v", err)
	}
	if left := names(t, m.Dir.Images()); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

// withState sets the superblock's state; the image has no checksums.
func withState(t testing.TB, image string, state int) string {
	t.Helper()
	testenv.Run(t, "debugfs", "-w", "-R", "ssv state "+string(rune('0'+state)), image)
	return image
}

// A file that is not what was registered is never booted from.
func TestChangedFile(t *testing.T) {
	copyOf := func(t *testing.T, path string) {
		testenv.Run(t, "cp", "-p", path, path+".new")
		testenv.Run(t, "mv", path+".new", path)
	}
	for _, tc := range []struct {
		what   string
		change func(t *testing.T, path string)
		kind   error // nil: the content is the same
		says   string
	}{
		{"nothing", func(*testing.T, string) {}, nil, ""},
		{"touched", func(t *testing.T, path string) { testenv.Run(t, "touch", path) }, nil, ""},
		{"mode", func(t *testing.T, path string) { testenv.Run(t, "chmod", "0444", path) }, nil, ""},
		{"another file with the same bytes", copyOf, nil, ""},
		{"gone", func(t *testing.T, path string) { testenv.Run(t, "rm", path) }, banger.ErrNotFound, "no such file"},
		{"a directory now", func(t *testing.T, path string) { testenv.Run(t, "rm", path); testenv.Run(t, "mkdir", path) }, banger.ErrInvalid, "no regular file"},
		{"longer", func(t *testing.T, path string) { testenv.Run(t, "truncate", "-s", "+4096", path) }, banger.ErrConflict, "(another size"},
		{"shorter", func(t *testing.T, path string) { testenv.Run(t, "truncate", "-s", "-4096", path) }, banger.ErrCorrupt, "truncated"},
		{"a file in it", func(t *testing.T, path string) { testenv.Run(t, "debugfs", "-w", "-R", "rm /etc/os-release", path) }, banger.ErrConflict, "has changed since"},
		{"its superblock", func(t *testing.T, path string) { testenv.Run(t, "tune2fs", "-L", "other", path) }, banger.ErrConflict, "superblock"},
		{"one byte, with the old times", flip, banger.ErrConflict, "(another change time)"},
		{"needs recovery", func(t *testing.T, path string) { dirty(t, path) }, banger.ErrConflict, "needs recovery"},
		{"mounted", func(t *testing.T, path string) { testenv.Mount(t, path, "rw") }, banger.ErrConflict, "mounted"},
		{"was mounted", func(t *testing.T, path string) {
			_, unmount := testenv.Mount(t, path, "rw")
			unmount()
		}, banger.ErrConflict, "has changed since"},
		{"mounted read-only", func(t *testing.T, path string) { testenv.Mount(t, path, "ro") }, nil, ""},
	} {
		t.Run(tc.what, func(t *testing.T) {
			m, file := plainManager(t), hostRootfs(t)
			image := mustRegister(t, m, api.RegisterRequest{Name: "mine", Rootfs: file})
			tc.change(t, file)
			path, err := m.Base(t.Context(), image, nil)
			if tc.kind != nil {
				if !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), file) ||
					!strings.Contains(banger.HintOf(err), "banger image register mine --rootfs ") {
					t.Errorf("Base = %v (%s, hint %q), want %v with %q", err, banger.KindName(err), banger.HintOf(err), tc.kind, tc.says)
				}
				if _, err := m.Promote(t.Context(), "mine", nil); !errors.Is(err, tc.kind) {
					t.Errorf("Promote = %v, want %v", err, tc.kind)
				}
				if err := m.Export(t.Context(), "mine", zeros{}); !errors.Is(err, tc.kind) {
					t.Errorf("Export = %v, want %v", err, tc.kind)
				}
				return
			}
			if err != nil || path != file {
				t.Fatalf("Base = %q, %v", path, err)
			}
			compared := false
			now, err := m.Get(image.Key)
			if err == nil {
				_, err = m.Base(t.Context(), now, func(banger.Progress) { compared = true })
			}
			if err != nil || compared {
				t.Errorf("the second Base = %v, compared %v: the first did not remember", err, compared)
			}
		})
	}
}

func (zeros) Write(p []byte) (int, error) { return len(p), nil }

// flip changes one byte of data and sets the modification time back.
func flip(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	at := bytes.Index(content, []byte("ID=test"))
	if err != nil || at < 0 {
		t.Fatal(err, at)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("i"), int64(at))
	}
	if err := errors.Join(err, f.Close(), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
}

func TestUnreadableFile(t *testing.T) {
	if !asOrdinaryUser(t) {
		return
	}
	m, file := plainManager(t), hostRootfs(t)
	image := mustRegister(t, m, api.RegisterRequest{Name: "mine", Rootfs: file})
	if err := os.Chmod(file, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Base(t.Context(), image, nil); !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("Base = %v", err)
	}
	if _, err := m.Register(t.Context(), api.RegisterRequest{Name: "other", Rootfs: file}, nil); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Register = %v", err)
	}
}

// A file that moved is found again under the same key: the machines of the image go on.
func TestRegisterAgain(t *testing.T) {
	m, file := plainManager(t), hostRootfs(t)
	image := mustRegister(t, m, api.RegisterRequest{Name: "mine", Rootfs: file})
	moved := filepath.Join(t.TempDir(), "moved, with a comma.ext4")
	testenv.Run(t, "mv", file, moved)
	again := mustRegister(t, m, api.RegisterRequest{Name: "mine", Rootfs: moved})
	got, err := m.Get(image.Key)
	if err != nil || again.Key != image.Key || got.Registered.Path != moved || got.Source != "registered "+moved {
		t.Errorf("registered again %+v; Get = %+v, %v", again, got, err)
	}
	if path, err := m.Base(t.Context(), got, nil); err != nil || path != moved {
		t.Errorf("Base = %q, %v", path, err)
	}
	flip(t, moved)
	if other := mustRegister(t, m, api.RegisterRequest{Name: "mine", Rootfs: moved}); other.Key == image.Key {
		t.Error("other content has the same key")
	} else if newest, err := m.Resolve("mine"); err != nil || newest.Key != other.Key {
		t.Errorf("Resolve = %+v, %v, want the newer one", newest, err)
	}
}

func TestPromote(t *testing.T) {
	m, file := plainManager(t), hostRootfs(t)
	image := mustRegister(t, m, api.RegisterRequest{Name: "mine", Rootfs: file})
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			promoted, err := m.Promote(t.Context(), "mine", nil)
			if err != nil || promoted.Key != image.Key || promoted.Registered != nil {
				t.Errorf("Promote = %+v, %v", promoted, err)
			}
		})
	}
	group.Wait()
	testenv.Run(t, "rm", file)
	got, err := m.Get(image.Key)
	if err != nil || got.Registered != nil || got.Source != "copy of "+file {
		t.Errorf("Get = %+v, %v", got, err)
	}
	base, err := m.Base(t.Context(), got, nil)
	if err != nil || base != m.Dir.Image(image.Key).Rootfs() {
		t.Fatalf("Base = %q, %v", base, err)
	}
	info, statErr := os.Stat(base)
	if content, err := os.ReadFile(base); err != nil || statErr != nil || !bytes.Equal(content, want) || info.Mode().Perm() != 0o444 {
		t.Errorf("the copy differs (%v, %v), mode %v", err, statErr, info.Mode())
	}
	if diff := cmp.Diff([]string{"image.json", "rootfs.ext4", "seed.tar"}, names(t, m.Dir.Image(image.Key).Path)); diff != "" {
		t.Error(diff)
	}
	if left := names(t, m.Dir.Images()); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
	if err := m.CleanUp(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := m.Base(t.Context(), got, nil); err != nil {
		t.Errorf("after CleanUp: %v", err)
	}
}

// What a promotion leaves that is cut off before its record is written is nobody's.
func TestPromotionCutOff(t *testing.T) {
	m, file := plainManager(t), hostRootfs(t)
	image := mustRegister(t, m, api.RegisterRequest{Name: "mine", Rootfs: file})
	dir, staging := m.Dir.Image(image.Key), m.Dir.ImageStaging("mine-0")
	for _, path := range []string{dir.Rootfs(), filepath.Join(dir.Path, ".image.json123"), staging.Rootfs()} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("half"), 0o444)); err != nil {
			t.Fatal(err)
		}
	}
	if path, err := m.Base(t.Context(), image, nil); err != nil || path != file {
		t.Errorf("Base = %q, %v", path, err)
	}
	if err := m.CleanUp(t.Context()); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"image.json", "seed.tar"}, names(t, dir.Path)); diff != "" || len(names(t, m.Dir.Images())) != 1 {
		t.Errorf("left: %v, %s", names(t, m.Dir.Images()), diff)
	}
	if _, err := m.Promote(t.Context(), "mine", nil); err != nil {
		t.Errorf("Promote afterwards: %v", err)
	}
}

// Whatever is done to an image at the same time, what is left is whole.
func TestManyAtOnce(t *testing.T) {
	m, file := plainManager(t), hostRootfs(t)
	req := api.RegisterRequest{Name: "mine", Rootfs: file}
	key := mustRegister(t, m, req).Key
	gone := func(err error) bool { return err == nil || errors.Is(err, banger.ErrNotFound) }
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if image, err := m.Register(t.Context(), req, nil); err != nil || image.Key != key {
				t.Errorf("Register = %+v, %v", image, err)
			}
		})
		group.Go(func() {
			if _, err := m.Promote(t.Context(), "mine", nil); !gone(err) {
				t.Errorf("Promote: %v", err)
			}
		})
		group.Go(func() {
			if image, err := m.Get(key); err == nil {
				_, err = m.Base(t.Context(), image, nil)
				if !gone(err) {
					t.Errorf("Base: %v", err)
				}
			} else if !gone(err) {
				t.Errorf("Get: %v", err)
			}
		})
		group.Go(func() {
			if _, err := m.List(); err != nil {
				t.Errorf("List: %v", err)
			}
		})
	}
	group.Go(func() {
		if err := m.Delete(key); !gone(err) {
			t.Errorf("Delete: %v", err)
		}
	})
	group.Wait()
	for _, name := range names(t, m.Dir.Images()) {
		if image, err := m.Get(name); err != nil {
			t.Errorf("left: %s: %v", name, err)
		} else if _, err := m.Base(t.Context(), image, nil); err != nil {
			t.Errorf("left: %s: %v", name, err)
		}
	}
}

func TestPromoteFails(t *testing.T) {
	m, file := plainManager(t), hostRootfs(t)
	testenv.Run(t, "dd", "if=/dev/urandom", "of="+file, "bs=1M", "seek=8", "count=4", "conv=notrunc", "status=none")
	image := mustRegister(t, m, api.RegisterRequest{Name: "mine", Rootfs: file})
	if _, err := m.Promote(t.Context(), "nosuch", nil); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("Promote of nothing: %v", err)
	}
	wantRegistered := func(what string) {
		t.Helper()
		if got, err := m.Get(image.Key); err != nil || got.Registered == nil {
			t.Errorf("%s: Get = %+v, %v", what, got, err)
		}
		if left := names(t, m.Dir.Images()); len(left) != 1 {
			t.Errorf("%s: left %v", what, left)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := m.Promote(ctx, "mine", func(p banger.Progress) {
		if strings.HasPrefix(p.Text, "copying") {
			cancel()
		}
	})
	if !errors.Is(err, banger.ErrInterrupted) && !errors.Is(err, context.Canceled) {
		t.Errorf("Promote cancelled: %v", err)
	}
	wantRegistered("cancelled")
	full := t.TempDir()
	if err := syscall.Mount("tmpfs", full, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(full, syscall.MNT_DETACH) })
	m = New(Config{Dir: statedir.Dir{Root: filepath.Join(full, "s")}})
	if err := m.Dir.Ensure(); err != nil {
		t.Fatal(err)
	}
	image = mustRegister(t, m, api.RegisterRequest{Name: "mine", Rootfs: file})
	if _, err := m.Promote(t.Context(), "mine", nil); !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(banger.HintOf(err), "make space") {
		t.Errorf("Promote on a full disk: %v (hint %q)", err, banger.HintOf(err))
	}
	wantRegistered("full disk")
	if err := os.WriteFile(filepath.Join(full, "fill"), make([]byte, 8<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if _, err := m.Register(t.Context(), api.RegisterRequest{Name: "other", Rootfs: file}, nil); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("Register on a full disk: %v", err)
	}
	wantRegistered("register on a full disk")
}
