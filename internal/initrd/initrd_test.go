package initrd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger"
)

// entry is a member as the small reader below sees it.
type entry struct {
	Name         string
	Mode         uint64
	Major, Minor uint64
	Content      string
}

// parse reads a newc archive to its trailer and wants nothing behind it.
func parse(b []byte) ([]entry, error) {
	var entries []entry
	inodes := map[uint64]bool{}
	for offset := 0; ; {
		if len(b) < offset+110 || string(b[offset:offset+6]) != cpioMagic {
			return nil, fmt.Errorf("no header at %d", offset)
		}
		var f [13]uint64
		for i := range f {
			start := offset + 6 + 8*i
			n, err := strconv.ParseUint(string(b[start:start+8]), 16, 32)
			if err != nil {
				return nil, err
			}
			f[i] = n
		}
		aligned := func(n int) int { return (n + 3) / 4 * 4 }
		name := string(b[offset+110 : offset+110+int(f[11])])
		start := aligned(offset + 110 + int(f[11]))
		end := start + int(f[6])
		if !strings.HasSuffix(name, "\x00") || end > len(b) {
			return nil, fmt.Errorf("member %q ends at %d of %d", name, end, len(b))
		}
		if f[2] != 0 || f[3] != 0 || f[5] != 0 || f[12] != 0 || f[4] != 1 {
			return nil, fmt.Errorf("member %q: owner, time, checksum or links: %d", name, f)
		}
		offset = aligned(end)
		if name = strings.TrimSuffix(name, "\x00"); name == cpioTrailer {
			if offset != len(b) {
				return nil, fmt.Errorf("%d bytes behind the trailer", len(b)-offset)
			}
			return entries, nil
		}
		if inodes[f[0]] {
			return nil, fmt.Errorf("member %q has inode %d again", name, f[0])
		}
		inodes[f[0]] = true
		entries = append(entries, entry{name, f[1], f[9], f[10], string(b[start:end])})
	}
}

func content(s string) Content { return Content{strings.NewReader(s), int64(len(s))} }

func build(t *testing.T, guest string, modules ...string) []byte {
	t.Helper()
	in := Input{Guest: content(guest)}
	for i := 0; i < len(modules); i += 2 {
		in.Modules = append(in.Modules, ModuleFile{modules[i], content(modules[i+1])})
	}
	var b bytes.Buffer
	if err := Build(&b, in); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBuild(t *testing.T) {
	archive := build(t, "guest", "virtio", "V", "virtio_blk", "block")
	got, err := parse(archive)
	if err != nil {
		t.Fatal(err)
	}
	want := []entry{
		{"dev", 0o040755, 0, 0, ""},
		{"dev/console", 0o020600, 5, 1, ""},
		{"modules", 0o040755, 0, 0, ""},
		{"modules/order", 0o100644, 0, 0, "virtio.ko\nvirtio_blk.ko\n"},
		{"modules/virtio.ko", 0o100644, 0, 0, "V"},
		{"modules/virtio_blk.ko", 0o100644, 0, 0, "block"},
		{"init", 0o100755, 0, 0, "guest"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	if !bytes.Equal(archive, build(t, "guest", "virtio", "V", "virtio_blk", "block")) {
		t.Error("the same input gave other bytes")
	}
}

func TestBuildReadsByCpio(t *testing.T) {
	tool, err := exec.LookPath("cpio")
	if err != nil {
		t.Skipf("needs cpio: %v", err)
	}
	cmd := exec.Command(tool, "-itv", "--quiet")
	cmd.Stdin = bytes.NewReader(build(t, "guest", "overlay", "12345"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	for _, want := range []string{"crw-------   1 root     root       5,   1", "dev/console", "-rwxr-xr-x", " 5 ", "modules/overlay.ko"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("cpio -itv does not say %q:\n%s", want, out)
		}
	}
}

func TestBuildErrors(t *testing.T) {
	for _, tc := range []struct {
		what  string
		guest Content
		want  error // nil: any
	}{
		{"short", Content{strings.NewReader("ab"), 3}, io.ErrUnexpectedEOF},
		{"long", Content{strings.NewReader("abc"), 2}, nil},
		{"too large", Content{strings.NewReader(""), 1 << 32}, nil},
		{"negative", Content{strings.NewReader(""), -1}, nil},
	} {
		err := Build(io.Discard, Input{Guest: tc.guest})
		if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: Build = %v, want %v", tc.what, err, tc.want)
		}
	}
}

// FuzzBuild builds an archive and reads it back.
func FuzzBuild(f *testing.F) {
	f.Add("guest", "overlay", "content", "b", "")
	f.Fuzz(func(t *testing.T, guest, name1, content1, name2, content2 string) {
		if strings.ContainsAny(name1+name2, "\x00\n") {
			t.Skipf("needs names that files can have")
		}
		entries, err := parse(build(t, guest, name1, content1, name2, content2))
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, e := range entries[4:] {
			got[e.Name] += e.Content
		}
		want := map[string]string{"init": guest, "modules/" + name1 + ".ko": content1}
		want["modules/"+name2+".ko"] += content2
		if len(entries) != 7 || !cmp.Equal(want, got) {
			t.Fatalf("read back %q, want %q", got, want)
		}
	})
}

// kernel makes a Lookup: "name: needed needed | soft" is a module, "name" alone is built in.
func kernel(lines ...string) Lookup {
	modules, builtIn := map[string][]Module{}, map[string]bool{}
	for _, line := range lines {
		name, rest, isModule := strings.Cut(line, ":")
		if !isModule {
			builtIn[name] = true
			continue
		}
		depends, before, _ := strings.Cut(rest, "|")
		m := Module{Name: name, Depends: strings.Fields(depends), Before: strings.Fields(before)}
		modules[name] = append(modules[name], m)
		if strings.HasPrefix(name, "crc32c_") {
			modules["crc32c"] = append(modules["crc32c"], m)
		}
	}
	return func(name string) ([]Module, bool) { return modules[name], builtIn[name] }
}

func TestClosure(t *testing.T) {
	base := []string{"virtio_mmio", "virtio_blk", "virtio_console", "overlay"}
	for _, tc := range []struct {
		what   string
		kernel []string
		want   string // names, or "error:" and a part of its message
	}{
		{"all built in", append(base, "ext4"), ""},
		{"dependencies first, each once",
			[]string{"virtio_mmio: virtio virtio_ring", "virtio_blk: virtio virtio_ring", "virtio: ", "virtio_ring: virtio", "virtio_console", "overlay: ", "ext4"},
			"virtio virtio_ring virtio_mmio virtio_blk overlay"},
		{"soft dependency by alias", append(base, "ext4: mbcache | crc32c nothing", "mbcache: ", "crc32c_intel: ", "crc32c_generic: "),
			"crc32c_intel crc32c_generic mbcache ext4"},
		{"soft dependency that can't be loaded", append(base, "ext4: | crc32c", "crc32c_intel: gone"), "ext4"},
		{"soft circle", append(base, "ext4: mbcache", "mbcache: | ext4"), "mbcache ext4"},
		{"wanted", append(base, "ext4", "virtio_net: net_failover", "net_failover: failover", "failover: "), "failover net_failover virtio_net"},
		{"wanted without its dependency", append(base, "ext4", "virtio_net: net_failover", "button: "), "button"},
		{"nothing", nil, "error: no virtio_mmio, no virtio_blk, no virtio_console, no overlay, no ext4"},
		{"one missing", append(base[:3:3], "ext4"), "error: no overlay"},
		{"dependency missing", append(base, "ext4: jbd2"), "error: no jbd2, which ext4 needs"},
	} {
		got, err := Closure(kernel(tc.kernel...))
		if want, fails := strings.CutPrefix(tc.want, "error:"); fails {
			if !errors.Is(err, banger.ErrUnsupported) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: Closure = %v, want an unsupported error with %q", tc.what, err, want)
			}
			continue
		}
		if err != nil || strings.Join(got, " ") != tc.want {
			t.Errorf("%s: Closure = %q, %v, want %q", tc.what, got, err, tc.want)
		}
	}
}
