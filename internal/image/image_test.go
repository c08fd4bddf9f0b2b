package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/internal/statedir"
	"banger/internal/tree"
)

const name = "debian-bookworm-slim"

// newManager makes a manager whose mmdebstrap is a shell script. Its first line has set: $TMPDIR, $SOURCE_DATE_EPOCH.
func newManager(t *testing.T, script string) *Manager {
	t.Helper()
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, tool), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	m := New(Config{Dir: statedir.Dir{Root: filepath.Join(t.TempDir(), "s")}})
	m.scratch = t.TempDir()
	if err := m.Dir.Ensure(); err != nil {
		t.Fatal(err)
	}
	return m
}

// rootTar is a small root file system as mmdebstrap gives it.
func rootTar(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root.tar")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w := tar.NewWriter(file)
	for _, entry := range []struct {
		name, link, content string
		kind                byte
		mode                int64
	}{
		{"./", "", "", tar.TypeDir, 0o755},
		{"./dev/", "", "", tar.TypeDir, 0o755},
		{"./dev/null", "", "", tar.TypeChar, 0o666},
		{"./etc/", "", "", tar.TypeDir, 0o755},
		{"./etc/hostname", "", "secret-host\n", tar.TypeReg, 0o644},
		{"./etc/resolv.conf", "", "nameserver secret\n", tar.TypeReg, 0o644},
		{"./etc/machine-id", "", "0123\n", tar.TypeReg, 0o444},
		{"./etc/debian_version", "", "12.9\n", tar.TypeReg, 0o644},
		{"./root/", "", "", tar.TypeDir, 0o700},
		{"./root/.bashrc", "", "alias ll='ls -l'\n", tar.TypeReg, 0o640},
		{"./root/again", "./root/.bashrc", "", tar.TypeLink, 0o640},
		{"./root/bin/", "", "", tar.TypeDir, 0o750},
		{"./root/bin/sh", "/bin/sh", "", tar.TypeSymlink, 0o777},
		{"./root/pipe", "", "", tar.TypeFifo, 0o600},
		{"./var/", "", "", tar.TypeDir, 0o755},
		{"./var/log/", "", "", tar.TypeDir, 0o755},
		{"./var/log/bootstrap.log", "", "today\n", tar.TypeReg, 0o644},
		{"./var/log/wtmp", "", "", tar.TypeReg, 0o664},
	} {
		if err := w.WriteHeader(&tar.Header{Name: entry.name, Linkname: entry.link, Typeflag: entry.kind, Mode: entry.mode, Uid: 0,
			Size: int64(len(entry.content)), ModTime: time.Unix(1686355200, 0)}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, entry.content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantNothing checks that neither staging nor scratch is left.
func wantNothing(t *testing.T, m *Manager) {
	t.Helper()
	entries, err := os.ReadDir(m.Dir.Images())
	if err != nil || len(entries) > 0 {
		t.Errorf("left in images: %v, %v", entries, err)
	}
	wantNoScratch(t, m)
}

func wantNoScratch(t *testing.T, m *Manager) {
	t.Helper()
	if left, _ := filepath.Glob(m.scratch + "/*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestEnsure(t *testing.T) {
	m := newManager(t, `echo "I: working in $TMPDIR" >&2; echo "$@" > "$TMPDIR/args"; test "$SOURCE_DATE_EPOCH" = 1686355200 || exit 9
printf '%s\n' "$@" > `+filepath.Join(t.TempDir(), "args")+`; cat `+rootTar(t)+"\n")
	var details []string
	var done bool
	image, err := m.Ensure(t.Context(), name, func(p banger.Progress) { details = append(details, p.Detail); done = p.Done })
	if err != nil {
		t.Fatal(err)
	}
	if !isKey(image.Key) || image.Name != name || image.Boot != banger.BootAgent || image.SizeBytes == 0 || !done {
		t.Errorf("Ensure = %+v, progress %q", image, details)
	}
	if !slices.ContainsFunc(details, func(s string) bool { return strings.HasPrefix(s, "I: working in "+m.scratch+"/banger-image-") }) {
		t.Errorf("progress %q has no line of mmdebstrap", details)
	}
	wantNoScratch(t, m)
	dir := m.Dir.Image(image.Key)
	if info, err := os.Stat(dir.Rootfs()); err != nil || info.Mode().Perm() != 0o444 || info.Size() != image.SizeBytes {
		t.Errorf("rootfs: %v, %v, want mode 0444 and %d bytes", info, err, image.SizeBytes)
	}
	checkExt4(t, dir.Rootfs())
	checkSeed(t, dir.Seed())
	again, err := m.Ensure(t.Context(), name, func(p banger.Progress) { t.Errorf("a ready image reports %+v", p) })
	if diff := cmp.Diff(image, again); err != nil || diff != "" {
		t.Errorf("second Ensure: %v, %s", err, diff)
	}
	if list, err := m.List(); err != nil || len(list) != 1 {
		t.Errorf("List = %v, %v", list, err)
	}
	if got, err := m.Get(image.Key); err != nil || got.Name != name {
		t.Errorf("Get = %v, %v", got, err)
	}
	// The same packages make the same image, byte for byte.
	other := New(Config{Dir: statedir.Dir{Root: filepath.Join(t.TempDir(), "s")}})
	if err := other.Dir.Ensure(); err != nil {
		t.Fatal(err)
	}
	same, err := other.Ensure(t.Context(), name, nil)
	if err != nil || same.Key != image.Key {
		t.Fatalf("another build: key %s, %v, want %s", same.Key, err, image.Key)
	}
	for _, file := range []func(statedir.ImageDir) string{statedir.ImageDir.Rootfs, statedir.ImageDir.Seed} {
		a, errA := os.ReadFile(file(dir))
		b, errB := os.ReadFile(file(other.Dir.Image(same.Key)))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs between two builds (%v, %v)", filepath.Base(file(dir)), errA, errB)
		}
	}
}

func checkExt4(t *testing.T, path string) {
	t.Helper()
	for _, tool := range []string{"e2fsck", "debugfs"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	if out, err := exec.Command("e2fsck", "-fn", path).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	dump := func(command string) string {
		out, err := exec.Command("debugfs", "-R", command, path).Output()
		if err != nil {
			t.Errorf("debugfs %s: %v", command, err)
		}
		return string(out)
	}
	if text := dump("cat /etc/debian_version") + dump("cat /etc/machine-id"); text != "12.9\n" {
		t.Errorf("content = %q", text)
	}
	if text := dump("cat /root/.bashrc"); !strings.Contains(text, "alias") {
		t.Errorf("/root/.bashrc = %q", text)
	}
	if out := dump("ls /etc") + dump("ls /dev") + dump("ls /var/log"); strings.Contains(out, "hostname") || strings.Contains(out, "resolv") ||
		strings.Contains(out, "null") || strings.Contains(out, "bootstrap") || !strings.Contains(out, "wtmp") {
		t.Errorf("the base tells of its host: %s", out)
	}
}

func checkSeed(t *testing.T, path string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var got []string
	for r := tar.NewReader(file); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, _ := io.ReadAll(r)
		got = append(got, fmt.Sprintf("%c %o %s>%s %d:%d %q", h.Typeflag, h.Mode, h.Name, h.Linkname, h.Uid, h.Gid, content))
	}
	want := []string{
		`0 640 .bashrc> 0:0 "alias ll='ls -l'\n"`, `1 0 again>.bashrc 0:0 ""`, `5 750 bin/> 0:0 ""`, `2 777 bin/sh>/bin/sh 0:0 ""`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("seed: %s", diff)
	}
}

func TestBuildFails(t *testing.T) {
	for _, tc := range []struct {
		what, script string
		kind         error
		text, hint   string
	}{
		{"no mirror", "echo 'W: x' >&2; echo 'E: apt-get update failed' >&2; exit 25", banger.ErrUnavailable, "apt-get update failed", "mirror"},
		{"cut off in the middle", "head -c 3000 " + rootTar(t) + "; echo 'E: killed' >&2; exit 1", banger.ErrUnavailable, "E: killed", "mirror"},
		{"no tar", "echo this is no tar; exit 0", nil, "", ""},
		{"success without output", "exit 0", nil, "", ""},
		{"half a tar and success", "head -c 3000 " + rootTar(t), nil, "", ""},
	} {
		m := newManager(t, tc.script)
		_, err := m.Ensure(t.Context(), name, nil)
		if err == nil || tc.kind != nil && !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.text) || !strings.Contains(banger.HintOf(err), tc.hint) {
			t.Errorf("%s: Ensure = %v (hint %q), want %v with %q", tc.what, err, banger.HintOf(err), tc.kind, tc.text)
		}
		wantNothing(t, m)
	}
}

func TestNoTool(t *testing.T) {
	m := newManager(t, "")
	t.Setenv("PATH", t.TempDir())
	_, err := m.Ensure(t.Context(), name, nil)
	if !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(err.Error(), tool) || !strings.Contains(banger.HintOf(err), "apt") {
		t.Errorf("Ensure = %v (hint %q), want unavailable with the package to install", err, banger.HintOf(err))
	}
	wantNothing(t, m)
}

func TestUnknownName(t *testing.T) {
	m := newManager(t, "exit 1")
	_, err := m.Ensure(t.Context(), "debian-bookwrm-slim", nil)
	if !errors.Is(err, banger.ErrNotFound) || banger.HintOf(err) != "did you mean "+name+"?" {
		t.Errorf("Ensure = %v (hint %q), want not found with the near name", err, banger.HintOf(err))
	}
	if _, err := m.Resolve("alpine:3"); !errors.Is(err, banger.ErrNotFound) || !strings.Contains(banger.HintOf(err), "image pull alpine:3") {
		t.Errorf("Resolve of a reference = %v (hint %q)", err, banger.HintOf(err))
	}
	if _, err := m.Resolve(name); !errors.Is(err, banger.ErrNotFound) || !strings.Contains(banger.HintOf(err), "vm run") {
		t.Errorf("Resolve of a definition = %v (hint %q)", err, banger.HintOf(err))
	}
	if _, err := m.Resolve("nosuch"); !errors.Is(err, banger.ErrNotFound) || !strings.Contains(banger.HintOf(err), "image list") {
		t.Errorf("Resolve where there is no image = %v (hint %q)", err, banger.HintOf(err))
	}
	for _, key := range []string{"", "../x", strings.Repeat("a", 63), strings.Repeat("g", 64)} {
		if _, err := m.Get(key); !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("Get(%q) = %v, want invalid", key, err)
		}
	}
	if _, err := m.Get(strings.Repeat("a", 64)); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("Get = %v, want not found", err)
	}
}

// Two who ask at once share one build; one of them may leave.
func TestSharedBuild(t *testing.T) {
	gate := filepath.Join(t.TempDir(), "gate")
	if out, err := exec.Command("mkfifo", gate).CombinedOutput(); err != nil {
		t.Fatalf("mkfifo: %v %s", err, out)
	}
	runs := filepath.Join(t.TempDir(), "runs")
	m := newManager(t, "echo run >> "+runs+"; read line < "+gate+"; cat "+rootTar(t))
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	started := make(chan struct{}, 3)
	images := make([]banger.Image, 3)
	errs := make([]error, 3)
	for i, ctx := range []context.Context{t.Context(), ctx, t.Context()} {
		group.Go(func() {
			var once sync.Once
			images[i], errs[i] = m.Ensure(ctx, name, func(banger.Progress) { once.Do(func() { started <- struct{}{} }) })
		})
	}
	for range 3 {
		<-started
	}
	cancel()
	if err := os.WriteFile(gate, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	if errs[0] != nil || errs[2] != nil || images[0].Key != images[2].Key || images[0].Key == "" {
		t.Errorf("the two who stayed got %v, %v and %v, %v", images[0].Key, errs[0], images[2].Key, errs[2])
	}
	if text, err := os.ReadFile(runs); err != nil || string(text) != "run\n" {
		t.Errorf("mmdebstrap ran %q, %v, want once", text, err)
	}
}

// The last who leaves ends the build; nothing is left, mmdebstrap neither.
func TestLastWaiterLeaves(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	m := newManager(t, "trap 'echo removed > "+pid+".trap; exit 1' TERM INT; echo $$ > "+pid+"; echo 'I: up' >&2; while :; do sleep 0.05; done")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := m.Ensure(ctx, name, func(p banger.Progress) {
		if p.Detail == "I: up" {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Ensure = %v, want canceled", err)
	}
	wantNothing(t, m)
	if _, err := os.Stat(pid + ".trap"); err != nil {
		t.Errorf("mmdebstrap got no chance to clean up: %v", err)
	}
}

func TestCleanUp(t *testing.T) {
	m := newManager(t, "exit 1")
	staging := m.Dir.ImageStaging(name)
	scratch, err := m.makeStaging(staging)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(scratch, "half"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.CleanUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantNothing(t, m)
	// A link that leads elsewhere is nobody's scratch.
	victim := t.TempDir()
	if err := os.Mkdir(staging.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(staging.Path, scratchLink)); err != nil {
		t.Fatal(err)
	}
	if err := m.CleanUp(t.Context()); err == nil {
		t.Error("CleanUp followed a foreign link without a word")
	}
	if _, err := os.Stat(victim); err != nil {
		t.Errorf("CleanUp removed a foreign directory: %v", err)
	}
}

func TestCorruptImages(t *testing.T) {
	m := newManager(t, "cat "+rootTar(t))
	image, err := m.Ensure(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := m.Dir.Image(image.Key)
	good, err := os.ReadFile(dir.Manifest())
	if err != nil {
		t.Fatal(err)
	}
	image.Key = strings.Repeat("0", 64)
	other, _ := json.Marshal(image)
	for _, text := range []string{"", "{", string(other)} {
		if err := os.WriteFile(dir.Manifest(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Get(filepath.Base(dir.Path)); !errors.Is(err, banger.ErrCorrupt) {
			t.Errorf("Get with manifest %q = %v, want corrupt", text, err)
		}
		if list, err := m.List(); err != nil || len(list) != 0 {
			t.Errorf("List with manifest %q = %v, %v", text, list, err)
		}
	}
	if err := errors.Join(os.WriteFile(dir.Manifest(), good, 0o600), os.Chmod(dir.Rootfs(), 0o600), os.Truncate(dir.Rootfs(), 4096)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Get(filepath.Base(dir.Path)); !errors.Is(err, banger.ErrCorrupt) {
		t.Errorf("Get with a short rootfs = %v, want corrupt", err)
	}
}

func TestDefinitions(t *testing.T) {
	all, err := definitions()
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range []string{name, "debian-bookworm"} {
		if d := all[own]; d.Name != own || d.Description == "" || d.Boot == "" {
			t.Errorf("%s = %+v", own, d)
		}
	}
}

func TestLastLines(t *testing.T) {
	var told []string
	l := &lastLines{report: func(s string) { told = append(told, s) }}
	for i := range 20 {
		fmt.Fprintf(l, "line %d\r\n", i)
	}
	io.WriteString(l, "\xff bad\nhalf")
	io.WriteString(l, strings.Repeat("x", 10000))
	if lines := strings.Split(l.String(), "\n"); len(lines) != keptLines+1 || lines[keptLines-1] != "? bad" || len(lines[keptLines]) > maxLineLength {
		t.Errorf("kept %d lines: %q", len(lines), lines)
	}
	if len(told) != 21 || told[0] != "line 0" {
		t.Errorf("told %q", told)
	}
}

func TestSeedIsBounded(t *testing.T) {
	big := func(yield func(tree.Entry, error) bool) {
		yield(tree.Entry{Path: "root/big", Kind: tree.File, Size: maxSeed + 1, Content: strings.NewReader("")}, nil)
	}
	for _, err := range seedOf(big) {
		if !errors.Is(err, banger.ErrInvalid) {
			t.Errorf("collect = %v, want invalid", err)
		}
	}
}

func TestNoSpace(t *testing.T) {
	m := newManager(t, "cat "+rootTar(t))
	if err := syscall.Mount("tmpfs", m.Dir.Images(), "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(m.Dir.Images(), syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	_, err := m.Ensure(t.Context(), name, nil)
	if !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(banger.HintOf(err), "make space on the file system of "+m.Dir.Images()) {
		t.Errorf("Ensure = %v (hint %q), want unavailable with the place to clear", err, banger.HintOf(err))
	}
	wantNothing(t, m)
	// The space that the first look found may be gone in the middle.
	staging := m.Dir.ImageStaging(name)
	scratch, err := m.makeStaging(staging)
	if err != nil {
		t.Fatal(err)
	}
	all, err := definitions()
	if err != nil {
		t.Fatal(err)
	}
	big := filepath.Join(t.TempDir(), "big.tar")
	if out, err := exec.Command("sh", "-c", "cd "+filepath.Dir(big)+" && head -c 4M /dev/urandom > data && tar -cf big.tar data").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v %s", err, out)
	}
	full := newManager(t, "cat "+big)
	err = full.bootstrap(t.Context(), all[name], staging, scratch, func(src tree.Source) tree.Source { return src }, sha256.New(), nil)
	if !errors.Is(err, banger.ErrUnavailable) || !strings.Contains(banger.HintOf(err), "make space") {
		t.Errorf("bootstrap = %v (hint %q), want unavailable with the place to clear", err, banger.HintOf(err))
	}
	if err := m.CleanUp(t.Context()); err != nil {
		t.Error(err)
	}
	wantNothing(t, m)
}
