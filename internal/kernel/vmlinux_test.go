package kernel

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"banger"
)

// memory is a file in memory.
type memory struct{ bytes.Buffer }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.Bytes()).ReadAt(p, off)
}

func unpackBytes(image []byte) ([]byte, error) {
	var dst memory
	n, err := unpackVmlinux(&dst, bytes.NewReader(image), int64(len(image)))
	return dst.Bytes()[:n], err
}

// byTool packs by a program that the kernel's build uses.
func byTool(name string, args ...string) func(*testing.T, []byte) []byte {
	return func(t *testing.T, b []byte) []byte {
		t.Helper()
		tool, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("needs %s: %v", name, err)
		}
		cmd := exec.Command(tool, args...)
		cmd.Stdin = bytes.NewReader(b)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return out
	}
}

func lz4Legacy(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := lz4.NewWriter(&out)
	if err := w.Apply(lz4.LegacyOption(true)); err != nil {
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

func TestUnpackVmlinux(t *testing.T) {
	const lz4Block = 8 << 20
	large, kernel := elfKernel(t, pvhNotes(t), lz4Block+1), elfKernel(t, pvhNotes(t), 1<<20)
	for _, tc := range []struct {
		name string
		pack func(*testing.T, []byte) []byte
	}{
		{"gzip", byTool("gzip", "-n", "-9")},
		{"xz with x86 filter", byTool("xz", "--check=crc32", "--x86", "--lzma2=dict=32MiB")},
		{"xz", byTool("xz", "--check=crc32")},
		{"zstd", byTool("zstd", "-3", "--ultra", "--long=27")},
		{"lz4", byTool("lz4", "-l", "-9", "-c")},
		{"lz4 of one block", byTool("lz4", "-l", "-9", "-c")},
		{"lz4 in frames", byTool("lz4", "-c")},
		{"bzip2", byTool("bzip2", "-9")},
		{"lzma", byTool("xz", "--format=lzma")},
		{"none", func(t *testing.T, b []byte) []byte { return b }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			kernel := kernel
			if tc.name == "lz4" {
				kernel = large
			}
			got, err := unpackBytes(bzImage(tc.pack(t, kernel), len(kernel)))
			if err != nil || !bytes.Equal(got, kernel) {
				t.Errorf("unpackVmlinux = %d bytes, %v, want the %d packed", len(got), err, len(kernel))
			}
		})
	}
	t.Run("plain ELF", func(t *testing.T) {
		if got, err := unpackBytes(kernel); err != nil || !bytes.Equal(got, kernel) {
			t.Errorf("unpackVmlinux = %d bytes, %v, want itself", len(got), err)
		}
	})
}

func TestUnpackVmlinuxErrors(t *testing.T) {
	kernel := elfKernel(t, pvhNotes(t), 1<<12)
	packed := gzipped(t, kernel)
	with := func(b []byte, at int, change ...byte) []byte {
		return append(append(slices.Clone(b[:at]), change...), b[at+len(change):]...)
	}
	good := bzImage(packed, len(kernel))
	payload := bytes.Index(good, packed)
	for _, tc := range []struct {
		what  string
		image []byte
		want  error
		text  string
	}{
		{"empty", nil, banger.ErrUnsupported, "neither"},
		{"text", []byte(strings.Repeat("vmlinuz ", 200)), banger.ErrUnsupported, "neither"},
		{"old boot protocol", with(good, headerVersionAt, 7, 2), banger.ErrUnsupported, "0x207"},
		{"payload behind the end", with(good, payloadLenAt, 0xff, 0xff, 0xff, 0x7f), banger.ErrCorrupt, "payload"},
		{"no payload", with(good, payloadLenAt, 4, 0, 0, 0), banger.ErrCorrupt, "payload"},
		{"unknown compression", with(good, payload, 'L', 'Z', 'O'), banger.ErrUnsupported, "4c 5a 4f"},
		{"damaged payload", with(good, payload+len(packed)/2, 1, 2, 3, 4, 5, 6, 7, 8), banger.ErrCorrupt, ""},
		{"longer than said", bzImage(lz4Legacy(t, kernel), len(kernel)-1), banger.ErrCorrupt, "want 4"},
		{"shorter than said", bzImage(lz4Legacy(t, kernel), len(kernel)+1), banger.ErrCorrupt, "want 4"},
		{"too large", bzImage(lz4Legacy(t, kernel), maxVmlinux+1), banger.ErrUnsupported, "1 GiB"},
		{"no PVH entry", elfKernel(t, note(t, "GNU", 3, make([]byte, 20)), 10), banger.ErrUnsupported, "PVH"},
		{"PVH note of another owner", elfKernel(t, note(t, "Zen", noteXenEntry, make([]byte, 8)), 10), banger.ErrUnsupported, "PVH"},
		{"cut note", elfKernel(t, pvhNotes(t)[:len(pvhNotes(t))-4], 0), banger.ErrUnsupported, "PVH"},
		{"other machine", with(kernel, 18, 183, 0), banger.ErrUnsupported, "EM_AARCH64"},
		{"cut ELF", kernel[:70], banger.ErrCorrupt, ""},
	} {
		if got, err := unpackBytes(tc.image); !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: unpackVmlinux = %d bytes, %v, want %v with %q", tc.what, len(got), err, tc.want, tc.text)
		}
	}
}

// FuzzVmlinux wants of what is accepted that it is a kernel that is accepted again as it is.
func FuzzVmlinux(f *testing.F) {
	kernel := elfKernel(f, pvhNotes(f), 300)
	f.Add(kernel)
	f.Add(bzImage(gzipped(f, kernel), len(kernel)))
	f.Add(bzImage(kernel, len(kernel)))
	for _, name := range []string{"xz", "zst", "lzma", "bz2", "lz4"} {
		packed, err := os.ReadFile(filepath.Join("testdata", "kernel."+name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bzImage(packed, len(kernel)))
	}
	f.Fuzz(func(t *testing.T, image []byte) {
		got, err := unpackBytes(image)
		if err != nil {
			return
		}
		again, err := unpackBytes(got)
		if err != nil || !bytes.Equal(again, got) {
			t.Fatalf("what was unpacked is refused: %v", err)
		}
	})
}

var update = flag.Bool("update", false, "write the files in testdata")

// TestPackedKernels keeps testdata/kernel.* equal to what the programs make of the small kernel of FuzzVmlinux.
func TestPackedKernels(t *testing.T) {
	kernel := elfKernel(t, pvhNotes(t), 300)
	for name, pack := range map[string]func(*testing.T, []byte) []byte{
		"xz": byTool("xz", "--check=crc32", "--x86", "--lzma2=dict=1MiB"), "lzma": byTool("xz", "--format=lzma"), "bz2": byTool("bzip2"),
		"lz4": lz4Legacy, "zst": func(t *testing.T, b []byte) []byte {
			w, err := zstd.NewWriter(nil)
			if err != nil {
				t.Fatal(err)
			}
			return w.EncodeAll(b, nil)
		},
	} {
		path := filepath.Join("testdata", "kernel."+name)
		if *update {
			if err := os.WriteFile(path, pack(t, kernel), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		packed, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := unpackBytes(bzImage(packed, len(kernel))); err != nil || !bytes.Equal(got, kernel) {
			t.Errorf("%s: unpackVmlinux = %d bytes, %v, want the %d packed", path, len(got), err, len(kernel))
		}
	}
}

// TestX86Filter compares with xz over contents that are nearly all calls, whatever the sizes of the reads.
func TestX86Filter(t *testing.T) {
	for _, size := range []int{0, 1, 4, 5, 6, 100, x86Chunk - 1, x86Chunk, x86Chunk + 3, 300_000} {
		want := codeLike(size)
		packed := byTool("xz", "--check=none", "--x86", "--lzma2")(t, want)
		content, err := openXZ(bytes.NewReader(packed))
		if size == 0 {
			if err == nil {
				t.Error("a stream without a block is read")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(&stutter{content, 0})
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: read %d other ones, %v", size, len(got), err)
		}
	}
}

// stutter reads 1, 2, 3 … bytes at a time.
type stutter struct {
	r io.Reader
	n int
}

func (s *stutter) Read(p []byte) (int, error) {
	s.n = s.n%97 + 1
	return s.r.Read(p[:min(len(p), s.n)])
}
