package kernel

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
)

func put(t testing.TB, w io.Writer, parts ...any) {
	t.Helper()
	for _, p := range parts {
		if err := binary.Write(w, le, p); err != nil {
			t.Fatal(err)
		}
	}
}

// elfKernel is a vmlinux of 64-bit x86 with the given notes and size bytes that look like code.
func elfKernel(t testing.TB, notes []byte, size int) []byte {
	t.Helper()
	const headerEnd = 64 + 56
	var b bytes.Buffer
	put(t, &b, elf.Header64{Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64),
		Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64},
		elf.Prog64{Type: uint32(elf.PT_NOTE), Off: headerEnd, Filesz: uint64(len(notes)), Memsz: uint64(len(notes)), Align: 4}, notes,
		codeLike(size))
	return b.Bytes()
}

// codeLike is bytes with many calls and jumps in them, the same each time.
func codeLike(size int) []byte {
	random := rand.New(rand.NewPCG(1, 2))
	common := []byte{0xe8, 0xe9, 0, 0xff, 0, 0xff, 0x0f, 0x84}
	b := make([]byte, size)
	for i := range b {
		if b[i] = byte(random.Uint32()); random.Uint32()%3 != 0 {
			b[i] = common[random.IntN(len(common))]
		}
	}
	return b
}

func note(t testing.TB, name string, kind uint32, desc []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	put(t, &b, uint32(len(name)+1), uint32(len(desc)), kind, append([]byte(name), 0))
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
	b.Write(desc)
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
	return b.Bytes()
}

func pvhNotes(t testing.TB) []byte {
	return append(note(t, "GNU", 3, make([]byte, 20)), note(t, "Xen", noteXenEntry, []byte{0, 0, 0, 1, 0, 0, 0, 0})...)
}

// bzImage wraps a packed kernel: size is what it unpacks to, said by four bytes behind it unless it is gzip's.
func bzImage(payload []byte, size int) []byte {
	const setupSects, payloadOff = 2, 0x40
	b := make([]byte, (setupSects+1)*sectorSize+payloadOff)
	b[setupSectsAt] = setupSects
	le.PutUint16(b[bootFlagAt:], bootFlag)
	copy(b[headerMagicAt:], headerMagic)
	le.PutUint16(b[headerVersionAt:], 0x020f)
	if !bytes.HasPrefix(payload, []byte{0x1f, 0x8b}) {
		payload = le.AppendUint32(slices.Clone(payload), uint32(size))
	}
	le.PutUint32(b[payloadOffAt:], payloadOff)
	le.PutUint32(b[payloadLenAt:], uint32(len(payload)))
	return append(append(b, payload...), "more of the setup code"...)
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// elfModule is a .ko with these lines of .modinfo and these symbols: "+x" is exported, "x" is needed.
func elfModule(t testing.TB, info []string, symbols ...string) []byte {
	t.Helper()
	names := []byte("\x00.modinfo\x00.symtab\x00.strtab\x00")
	strtab, symtab := []byte{0}, bytes.NewBuffer(make([]byte, elf.Sym64Size))
	for _, s := range symbols {
		sym := elf.Sym64{Name: uint32(len(strtab)), Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_NOTYPE)}
		if name, ok := strings.CutPrefix(s, "+"); ok {
			sym.Shndx, s = uint16(elf.SHN_ABS), crcSymbolPrefix+name
		}
		strtab = append(append(strtab, s...), 0)
		put(t, symtab, sym)
	}
	modinfo := []byte(strings.Join(info, "\x00") + "\x00")
	contents := [][]byte{modinfo, symtab.Bytes(), append(strtab, names...)}
	nameAt := func(name string) uint32 { return uint32(len(strtab) + bytes.Index(names, []byte(name))) }
	sections := []elf.Section64{{},
		{Name: nameAt(".modinfo"), Type: uint32(elf.SHT_PROGBITS)},
		{Name: nameAt(".symtab"), Type: uint32(elf.SHT_SYMTAB), Link: 3, Entsize: elf.Sym64Size},
		{Name: nameAt(".strtab"), Type: uint32(elf.SHT_STRTAB)}}
	offset := uint64(64)
	for i, c := range contents {
		sections[i+1].Off, sections[i+1].Size = offset, uint64(len(c))
		offset += uint64(len(c))
	}
	var b bytes.Buffer
	put(t, &b, elf.Header64{Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Shoff: offset, Ehsize: 64, Shentsize: 64, Shnum: uint16(len(sections)), Shstrndx: 3}, bytes.Join(contents, nil), sections)
	return b.Bytes()
}

// packageFiles is what a small kernel package installs.
func packageFiles(t testing.TB) map[string][]byte {
	t.Helper()
	kernel := elfKernel(t, pvhNotes(t), 1<<16)
	const modules = "lib/modules/6.1.0-test/"
	files := map[string][]byte{
		"boot/vmlinuz-6.1.0-test":               bzImage(gzipped(t, kernel), len(kernel)),
		"boot/config-6.1.0-test":                []byte("CONFIG_BLK_DEV_INITRD=y\nCONFIG_DEVTMPFS=y\nCONFIG_ACPI=y\n# CONFIG_FUSE_FS is not set\n"),
		modules + modulesBuiltin:                []byte("kernel/fs/ext4/ext4.ko\nkernel/drivers/virtio/virtio_mmio.ko\n"),
		modules + builtinModinfo:                []byte("ext4.alias=fs-ext4\x00ext4.license=GPL\x00"),
		modules + "kernel/fs/overlay.ko":        elfModule(t, []string{"alias=fs-overlay", "depends="}, "printk"),
		modules + "kernel/virtio/virtio.ko":     elfModule(t, []string{"license=GPL", "depends="}, "+register_virtio_driver", "printk"),
		modules + "kernel/virtio/virtio_blk.ko": elfModule(t, []string{"alias=virtio:d00000002v*", "depends=virtio"}, "register_virtio_driver"),
		modules + "kernel/char/virtio-console.ko.gz": gzipped(t, elfModule(t, []string{"alias=virtio:d00000003v*", "depends=virtio"},
			"register_virtio_driver")),
	}
	var order strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name, ok := strings.CutPrefix(strings.TrimSuffix(name, ".gz"), modules); ok && strings.HasSuffix(name, ".ko") {
			order.WriteString(name + "\n")
		}
	}
	files[modules+modulesOrder] = []byte(order.String())
	return files
}

// tarball packs files in the order of their names.
func tarball(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: "./" + name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(files[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// debPackage writes a package and gives its path.
func debPackage(t testing.TB, path string, files map[string][]byte) string {
	t.Helper()
	return namedPackage(t, path, "Package: linux-image-6.1.0-test\nVersion: 6.1-1\nArchitecture: amd64\n", files)
}

// namedPackage writes a package with this control file.
func namedPackage(t testing.TB, path, control string, files map[string][]byte) string {
	t.Helper()
	b := bytes.NewBufferString("!<arch>\n")
	for _, m := range []struct {
		name    string
		content []byte
	}{
		{"debian-binary", []byte("2.0\n")},
		{"control.tar.gz", gzipped(t, tarball(t, map[string][]byte{"control": []byte(control)}))},
		{"data.tar.gz", gzipped(t, tarball(t, files))},
	} {
		fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", m.name, 0, 0, 0, 0o100644, len(m.content))
		b.Write(m.content)
		if len(m.content)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
