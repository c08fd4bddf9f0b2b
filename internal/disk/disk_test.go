package disk

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/statedir"
	"banger/internal/tree"
)

func seedTar(t *testing.T, files map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "seed.tar")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w := tar.NewWriter(file)
	for name, content := range files {
		h := &tar.Header{Name: name, Mode: 0o640, Size: int64(len(content)), Uid: 1000, Gid: 1000, Typeflag: tar.TypeReg, ModTime: time.Unix(1e9, 0)}
		if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o750
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func keys() []tree.Entry {
	return []tree.Entry{tree.Directory(".ssh", 0o700), tree.Literal(".ssh/authorized_keys", 0o600, []byte("ssh-ed25519 AAAA\n"))}
}

func newHome(t *testing.T) statedir.VMDir { return statedir.VMDir{Path: t.TempDir()} }

func debugfs(t *testing.T, image, command string) string {
	t.Helper()
	if _, err := exec.LookPath("debugfs"); err != nil {
		t.Skipf("needs debugfs: %v", err)
	}
	out, err := exec.Command("debugfs", "-R", command, image).Output()
	if err != nil {
		t.Fatalf("debugfs %s: %v", command, err)
	}
	return string(out)
}

func TestCreate(t *testing.T) {
	for _, size := range []int64{64 << 20, 8 << 30, 1 << 40} {
		home := newHome(t)
		seed := seedTar(t, map[string]string{".bashrc": "alias x=y\n", "bin/": "", ".ssh/authorized_keys": "the image's own key\n"})
		opts := Options{SizeBytes: size, Seed: seed, Files: keys(), GitName: `Jo "Q" \ Doe`, GitEmail: "jo@example.org", Time: time.Now()}
		if err := Create(t.Context(), home, opts); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(home.Disk()); err != nil || info.Size() != size {
			t.Errorf("disk has %v, %v, want %d bytes", info, err, size)
		}
		if err := Check(home); err != nil {
			t.Errorf("Check: %v", err)
		}
		if size <= 8<<30 {
			fsck(t, home.Disk())
		}
		checkTree(t, home.Disk())
	}
}

func fsck(t *testing.T, image string) {
	t.Helper()
	if _, err := exec.LookPath("e2fsck"); err != nil {
		t.Skipf("needs e2fsck: %v", err)
	}
	if out, err := exec.Command("e2fsck", "-fn", image).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
}

var statPattern = regexp.MustCompile(`(?s)Type: (\w+).*Mode: +(\d+).*User: +(\d+) +Group: +(\d+)`)

func checkTree(t *testing.T, image string) {
	t.Helper()
	stat := func(path string) string {
		m := statPattern.FindStringSubmatch(debugfs(t, image, "stat "+path))
		if m == nil {
			return "missing"
		}
		return strings.Join(m[1:], " ")
	}
	want := map[string]string{
		"/layout": "regular 0444 0 0", "/overlay/upper": "directory 0755 0 0", "/overlay/work": "directory 0755 0 0",
		"/data/root/.bashrc": "regular 0640 0 0", "/data/root/bin": "directory 0750 0 0", "/data/root/.ssh": "directory 0700 0 0",
		"/data/root/.ssh/authorized_keys": "regular 0600 0 0", "/data/root/.gitconfig": "regular 0644 0 0",
	}
	for _, bind := range banger.DiskBinds {
		want["/"+bind.Dir] = fmt.Sprintf("directory %#o 0 0", bind.Mode)
	}
	for path, text := range want {
		if got := stat(path); got != text {
			t.Errorf("%s is %q, want %q", path, got, text)
		}
	}
	if got := debugfs(t, image, "cat /layout"); got != fmt.Sprintf("%d\n", banger.DiskLayoutVersion) {
		t.Errorf("layout = %q", got)
	}
	if got := debugfs(t, image, "cat /data/root/.ssh/authorized_keys"); got != "ssh-ed25519 AAAA\n" {
		t.Errorf("authorized_keys = %q, want the VM's own", got)
	}
}

// Git on this host must read the identity as it was given.
func TestGitConfig(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skipf("needs git: %v", err)
	}
	for _, name := range []string{"Jo Doe", `"quoted" \back`, " spaces ", "a;b#c", "Zoë 漢字", "tab\tnew\nline", "[section]", "${HOME}", "x = y", `ends in \`} {
		path := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(path, []byte(gitConfig(name, "jo@example.org")), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("git", "config", "--file", path, "--null", "user.name").Output()
		if err != nil || string(out) != name+"\x00" {
			t.Errorf("git reads %q, %v, want %q", out, err, name)
		}
	}
	if got := gitConfig("", ""); got != "" {
		t.Errorf("gitConfig without identity = %q", got)
	}
}

func FuzzGitConfig(f *testing.F) {
	if _, err := exec.LookPath("git"); err != nil {
		f.Skipf("needs git: %v", err)
	}
	f.Add("Jo", "jo@example.org")
	f.Add(`a"\`, "\n\t;#")
	f.Fuzz(func(t *testing.T, name, email string) {
		text := gitConfig(name, email)
		want := 1
		for _, value := range []string{name, email} {
			if value != "" {
				want++
			}
		}
		if lines := strings.Count(text, "\n"); text != "" && lines != want {
			t.Errorf("gitConfig(%q, %q) has %d lines, want %d: %q", name, email, lines, want, text)
		}
	})
}

func TestIdentityBesideTheSeeds(t *testing.T) {
	home := newHome(t)
	seed := seedTar(t, map[string]string{".gitconfig": "[alias]\n\tst = status\n"})
	if err := Create(t.Context(), home, Options{SizeBytes: 64 << 20, Seed: seed, GitName: "Jo", Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if got := debugfs(t, home.Disk(), "cat /data/root/.gitconfig"); !strings.Contains(got, "status") {
		t.Errorf("the seed's .gitconfig = %q", got)
	}
	if got := debugfs(t, home.Disk(), "cat /data/root/.config/git/config"); !strings.Contains(got, `name = "Jo"`) {
		t.Errorf(".config/git/config = %q", got)
	}
	fsck(t, home.Disk())
}

// A synced file takes the place of what the seed has there, whatever it is, and leads nowhere; directories of the seed keep their modes.
func TestSyncedFiles(t *testing.T) {
	home := newHome(t)
	seed := filepath.Join(t.TempDir(), "seed.tar")
	file, err := os.Create(seed)
	if err != nil {
		t.Fatal(err)
	}
	err = tree.WriteTar(file, tree.Of(tree.Directory(".config", 0o755), tree.Literal(".config/a", 0o644, []byte("seed")), tree.Entry{Path: "link", Kind: tree.Symlink, Link: "../../overlay/upper"},
		tree.Entry{Path: "leaf", Kind: tree.Symlink, Link: ".config/a"}, tree.Directory("dir", 0o755), tree.Literal("dir/x", 0o644, []byte("x"))))
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	sync := []tree.Entry{tree.Directory(".config", 0o700), tree.Literal(".config/b", 0o400, []byte("b")), tree.Literal("leaf", 0o600, []byte("l")), tree.Literal("dir", 0o600, []byte("d")),
		tree.Directory("link", 0o700), tree.Literal("link/canary", 0o600, []byte("c")), tree.Literal(".gitconfig", 0o600, []byte("[user]"))}
	if err := Create(t.Context(), home, Options{SizeBytes: 64 << 20, Seed: seed, Files: keys(), Sync: sync, Marks: map[string]string{"/root/leaf": "m"}, GitName: "Jo", Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{"cat /data/root/.config/a": "seed", "cat /data/root/.config/b": "b", "cat /data/root/leaf": "l", "cat /data/root/dir": "d", "cat /data/root/link/canary": "c",
		"cat /data/root/.gitconfig": "[user]", "cat /sync.json": `{"/root/leaf":"m"}`} {
		if got := debugfs(t, home.Disk(), command); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	if got := debugfs(t, home.Disk(), "stat /data/root/.config"); !strings.Contains(got, "Mode:  0755") {
		t.Errorf("the seed's directory: %s", got)
	}
	if got := debugfs(t, home.Disk(), "ls /overlay/upper"); strings.Contains(got, "canary") {
		t.Errorf("a link was followed: %s", got)
	}
	fsck(t, home.Disk())
}

func TestCreateFails(t *testing.T) {
	damaged := filepath.Join(t.TempDir(), "seed.tar")
	if err := os.WriteFile(damaged, []byte(strings.Repeat("no tar", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what string
		opts Options
		kind error
	}{
		{"damaged seed", Options{SizeBytes: 64 << 20, Seed: damaged}, banger.ErrCorrupt},
		{"missing seed", Options{SizeBytes: 64 << 20, Seed: damaged + "x"}, banger.ErrCorrupt},
	} {
		home := newHome(t)
		if err := Create(t.Context(), home, tc.opts); !errors.Is(err, tc.kind) {
			t.Errorf("%s: Create = %v, want %v", tc.what, err, tc.kind)
		}
		if left, _ := os.ReadDir(home.Path); len(left) > 0 {
			t.Errorf("%s: left %v", tc.what, left)
		}
	}
}

func TestCheck(t *testing.T) {
	home := newHome(t)
	if err := Check(home); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("Check of nothing = %v, want corrupt", err)
	}
	if err := Create(t.Context(), home, Options{SizeBytes: 64 << 20, Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(home.Disk(), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := Check(home); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("Check of a short disk = %v, want corrupt", err)
	}
	for text, kind := range map[string]error{"": banger.ErrCorrupt, "{}": banger.ErrUnsupported, `{"version":2}`: banger.ErrUnsupported} {
		if err := os.WriteFile(home.DiskManifest(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Check(home); !errors.Is(err, kind) {
			t.Errorf("Check with manifest %q = %v, want %v", text, err, kind)
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	for b.Loop() {
		home := statedir.VMDir{Path: b.TempDir()}
		if err := Create(b.Context(), home, Options{SizeBytes: 8 << 30, Files: keys(), Time: time.Now()}); err != nil {
			b.Fatal(err)
		}
	}
}

// smallFileSystem gives a directory with a mebibyte or so of room.
func smallFileSystem(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestNoSpace(t *testing.T) {
	home := statedir.VMDir{Path: smallFileSystem(t)}
	seed := seedTar(t, map[string]string{"big": strings.Repeat("0123456789abcdef", 1<<17)})
	err := Create(t.Context(), home, Options{SizeBytes: 64 << 20, Seed: seed, Time: time.Now()})
	if !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(banger.HintOf(err), "make space") {
		t.Errorf("Create = %v (hint %q), want unavailable with the place to clear", err, banger.HintOf(err))
	}
	if left, _ := os.ReadDir(home.Path); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	home := newHome(t)
	if err := Create(ctx, home, Options{SizeBytes: 64 << 20, Time: time.Now()}); !errors.Is(err, banger.ErrInterrupted) {
		t.Errorf("Create = %v, want interrupted", err)
	}
	if left, _ := os.ReadDir(home.Path); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}
