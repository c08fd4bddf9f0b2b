package debian

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"banger"
	"banger/internal/tree"
)

var limits = tree.Limits{Entries: 1000, Bytes: 1 << 20}

type part struct {
	name    string
	content []byte
}

func archive(parts ...part) []byte {
	b := bytes.NewBufferString(arMagic)
	for _, m := range parts {
		fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", m.name, 0, 0, 0, 0o100644, len(m.content))
		b.Write(m.content)
		if len(m.content)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func tarball(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: "./" + name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(files[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pack compresses as the extension says.
func pack(t testing.TB, extension string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch extension {
	case ".gz":
		w = gzip.NewWriter(&out)
	case ".xz":
		w, err = xz.NewWriter(&out)
	case ".zst":
		w, err = zstd.NewWriter(&out)
	default:
		return b
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

const control = "Package: linux-image-1\nVersion: 1:6.1-2~deb12u1\nArchitecture: amd64\nDescription: a kernel\n with two\n lines\n"

// version is the member that begins a package.
var version = part{"debian-binary", []byte("2.0\n")}

func controlPart(t testing.TB, text string) part {
	return part{"control.tar", tarball(t, map[string]string{"md5sums": "", "control": text})}
}

func openBytes(b []byte) (*Package, error) { return Open(bytes.NewReader(b), int64(len(b))) }

// read gives the contents of a package's files.
func read(p *Package) (map[string]string, error) {
	files := map[string]string{}
	for entry, err := range p.Files(limits) {
		if err != nil {
			return files, err
		}
		if entry.Kind != tree.File {
			continue
		}
		var content []byte
		if entry.Content != nil {
			if content, err = io.ReadAll(entry.Content); err != nil {
				return files, err
			}
		}
		files[entry.Path] = string(content)
	}
	return files, nil
}

func TestOpen(t *testing.T) {
	want := map[string]string{"boot/vmlinuz": "kernel", "usr/share/doc/x": strings.Repeat("long ", 1000), "empty": ""}
	for _, extension := range []string{"", ".gz", ".xz", ".zst"} {
		parts := []part{version, {"_gpgorigin", []byte("odd")},
			{"control.tar" + extension, pack(t, extension, controlPart(t, control).content)}, {"data.tar" + extension + "/", pack(t, extension, tarball(t, want))}}
		p, err := openBytes(archive(parts...))
		if err != nil {
			t.Errorf("%q: Open: %v", extension, err)
			continue
		}
		if p.Name != "linux-image-1" || p.Version != "1:6.1-2~deb12u1" || p.Architecture != "amd64" || p.Control.Get("description") != "a kernel\nwith two\nlines" {
			t.Errorf("%q: Open = %+v", extension, p)
		}
		for range 2 {
			if got, err := read(p); err != nil || !maps.Equal(got, want) {
				t.Errorf("%q: Files = %q, %v", extension, got, err)
			}
		}
	}
}

// TestOpenDpkg reads what dpkg-deb makes.
func TestOpenDpkg(t *testing.T) {
	tool, err := exec.LookPath("dpkg-deb")
	if err != nil {
		t.Skipf("needs dpkg-deb: %v", err)
	}
	dir := t.TempDir()
	script := `mkdir -p "$1/root/DEBIAN" "$1/root/opt" && printf '%s' "$2" > "$1/root/DEBIAN/control" && echo hello > "$1/root/opt/file"`
	if out, err := exec.Command("sh", "-c", script, "sh", dir, control+"Maintainer: nobody <x@example.org>\n").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, compression := range []string{"none", "gzip", "xz", "zstd"} {
		deb := filepath.Join(dir, compression+".deb")
		if out, err := exec.Command(tool, "--root-owner-group", "-Z"+compression, "--build", filepath.Join(dir, "root"), deb).CombinedOutput(); err != nil {
			t.Logf("this dpkg-deb does not know %s: %s", compression, out)
			continue
		}
		b, err := exec.Command("cat", deb).Output()
		if err != nil {
			t.Fatal(err)
		}
		p, err := openBytes(b)
		if err != nil {
			t.Errorf("%s: Open: %v", compression, err)
			continue
		}
		if got, err := read(p); err != nil || p.Name != "linux-image-1" || got["opt/file"] != "hello\n" {
			t.Errorf("%s: %s with %q, %v", compression, p.Name, got, err)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	data := part{"data.tar", tarball(t, nil)}
	good := archive(version, controlPart(t, control), data)
	for _, tc := range []struct {
		what string
		deb  []byte
		want error
		text string
	}{
		{"empty", nil, banger.ErrCorrupt, "ar archive"},
		{"no members", []byte(arMagic), banger.ErrCorrupt, "ends"},
		{"cut header", good[:30], banger.ErrCorrupt, "ends"},
		{"cut", good[:len(good)-1], banger.ErrCorrupt, "data.tar"},
		{"no data", archive(version, controlPart(t, control)), banger.ErrCorrupt, "data.tar"},
		{"no version", archive(controlPart(t, control), data), banger.ErrCorrupt, "debian-binary"},
		{"version 3", archive(part{"debian-binary", []byte("3.0\n")}, controlPart(t, control), data), banger.ErrUnsupported, "3.0"},
		{"no end of header", bytes.Replace(good, []byte(arEnd), []byte("xx"), 1), banger.ErrCorrupt, "end mark"},
		{"size that is no number", bytes.Replace(good, []byte("4         `"), []byte("-4        `"), 1), banger.ErrCorrupt, "size"},
		{"other member before control", archive(version, part{"x", nil}, controlPart(t, control), data), banger.ErrCorrupt, `"x"`},
		{"too many members", archive(append([]part{version}, make([]part, 100)...)...), banger.ErrCorrupt, ""},
		{"unknown compression", archive(version, part{"control.tar.lrz", nil}, data), banger.ErrUnsupported, ".lrz"},
		{"damaged compression", archive(version, part{"control.tar.xz", []byte("no xz at all")}, data), banger.ErrCorrupt, "control.tar.xz"},
		{"no control file", archive(version, part{"control.tar", tarball(t, nil)}, data), banger.ErrCorrupt, "no file control"},
		{"empty control file", archive(version, controlPart(t, ""), data), banger.ErrCorrupt, "0 paragraphs"},
		{"two paragraphs", archive(version, controlPart(t, control+"\n"+control), data), banger.ErrCorrupt, "2 paragraphs"},
		{"no package name", archive(version, controlPart(t, "Version: 1\nArchitecture: all\n"), data), banger.ErrCorrupt, "Package"},
		{"name with a slash", archive(version, controlPart(t, "Package: ../x\nVersion: 1\nArchitecture: all\n"), data), banger.ErrCorrupt, "Package"},
		{"version with a newline", archive(version, controlPart(t, "Package: xx\nVersion: 1\n 2\nArchitecture: all\n"), data), banger.ErrCorrupt, "Version"},
	} {
		if p, err := openBytes(tc.deb); !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: Open = %+v, %v, want %v with %q", tc.what, p, err, tc.want, tc.text)
		}
	}
}

// FuzzOpen wants of every package that one made of what was read of it reads the same.
func FuzzOpen(f *testing.F) {
	files := map[string]string{"boot/vmlinuz": "kernel"}
	for _, extension := range []string{"", ".gz", ".xz", ".zst"} {
		f.Add(archive(version, part{"control.tar" + extension, pack(f, extension, controlPart(f, control).content)},
			part{"data.tar" + extension, pack(f, extension, tarball(f, files))}))
	}
	f.Fuzz(func(t *testing.T, deb []byte) {
		p, err := openBytes(deb)
		if err != nil {
			return
		}
		contents, err := read(p)
		if err != nil {
			return
		}
		again, err := openBytes(archive(version, controlPart(t, p.Control.format()), part{"data.tar", tarball(t, contents)}))
		if err != nil || !maps.Equal(again.Control, p.Control) {
			t.Fatalf("Open again = %+v, %v, want %+v", again, err, p.Control)
		}
		if got, err := read(again); err != nil || !maps.Equal(got, contents) {
			t.Fatalf("Files again = %q, %v, want %q", got, err, contents)
		}
	})
}

// format writes a paragraph as ParseControl reads it.
func (p Paragraph) format() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p)) {
		b.WriteString(name + ": " + strings.ReplaceAll(p[name], "\n", "\n ") + "\n")
	}
	return b.String()
}

func TestParseControl(t *testing.T) {
	got, err := ParseControl(strings.NewReader("\n# comment\nPackage: a\nDepends: b (>= 1),\n c | d\n.x:  \n\n\nPackage: b\r\n"))
	want := []Paragraph{{"package": "a", "depends": "b (>= 1),\nc | d", ".x": ""}, {"package": "b"}}
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("ParseControl = %q, %v, want %q", got, err, want)
	}
	for _, text := range []string{" continued", "no colon", ": no name", "a b: space", "A: 1\na: 2", "-x: y", "A: 1\n\n continued", "A:" + strings.Repeat("x", maxControlLine)} {
		if got, err := ParseControl(strings.NewReader(text)); !errors.Is(err, banger.ErrCorrupt) {
			t.Errorf("ParseControl(%.20q) = %q, %v, want corrupt", text, got, err)
		}
	}
}

func FuzzParseControl(f *testing.F) {
	f.Add(control)
	f.Add("A: 1\n\nB:\n x\n .\n\ty\n")
	f.Fuzz(func(t *testing.T, text string) {
		paragraphs, err := ParseControl(strings.NewReader(text))
		if err != nil {
			return
		}
		var b strings.Builder
		for _, p := range paragraphs {
			b.WriteString(p.format() + "\n")
		}
		again, err := ParseControl(strings.NewReader(b.String()))
		if err != nil || !cmp.Equal(again, paragraphs) {
			t.Fatalf("ParseControl again = %q, %v, want %q", again, err, paragraphs)
		}
	})
}

func TestDependencies(t *testing.T) {
	got := Dependencies("kmod, linux-base (>= 4.3~), \n a:any (= 1-2) [amd64] | b <!nocheck>,, linux-image-6.1.0-56-cloud-amd64 (=6.1.192-2)")
	want := [][]Dependency{{{Name: "kmod"}}, {{"linux-base", ">=", "4.3~"}}, {{"a", "=", "1-2"}, {Name: "b"}},
		{{"linux-image-6.1.0-56-cloud-amd64", "=", "6.1.192-2"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Dependencies (-want +got):\n%s", diff)
	}
}
