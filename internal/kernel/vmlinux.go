package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"banger"
)

// The header of an x86 bzImage (Documentation/arch/x86/boot.rst).
const (
	setupSectsAt    = 0x1f1 // sectors of real-mode code behind the first
	bootFlagAt      = 0x1fe
	headerMagicAt   = 0x202
	headerVersionAt = 0x206
	kernelVersionAt = 0x20e // from the end of the first sector
	payloadOffAt    = 0x248 // from the end of the real-mode code
	payloadLenAt    = 0x24c
	setupHeaderEnd  = 0x250

	bootFlag        = 0xaa55
	headerMagic     = "HdrS"
	payloadVersion  = 0x0208 // the first that tells where the payload is
	sectorSize      = 512
	defaultSetup    = 4 // sectors that 0 means
	payloadSizeTail = 4 // the unpacked size, behind the payload
)

const (
	elfMagic   = "\x7fELF"
	maxVmlinux = 1 << 30
	maxNotes   = 1 << 20

	// noteXenEntry is XEN_ELFNOTE_PHYS32_ENTRY: where a VMM starts a kernel by the PVH boot protocol.
	noteXenEntry = 18
	noteXenName  = "Xen\x00"
)

var le = binary.LittleEndian

// readWriterAt is a file that is written from its beginning and then read.
type readWriterAt interface {
	io.Writer
	io.ReaderAt
}

// unpackVmlinux writes the ELF kernel that is in image, a bzImage or the ELF file itself, to dst and gives its size.
// Errors: ErrUnsupported for what is no kernel that the VMMs start; ErrCorrupt.
func unpackVmlinux(dst readWriterAt, image io.ReaderAt, size int64) (int64, error) {
	content, want, err := openPayload(image, size)
	if err != nil {
		return 0, fmt.Errorf("unpack kernel: %w", err)
	}
	defer content.Close()
	n, err := io.Copy(dst, io.LimitReader(content, want+1))
	if err != nil {
		return 0, fmt.Errorf("unpack kernel: %w", err)
	}
	if n != want {
		return 0, fmt.Errorf("unpack kernel: %w: %d bytes or more, want %d", banger.ErrCorrupt, n, want)
	}
	return n, checkVmlinux(dst, n)
}

// openPayload gives the unpacked kernel and its size.
func openPayload(image io.ReaderAt, size int64) (io.ReadCloser, int64, error) {
	header := make([]byte, setupHeaderEnd)
	if n, err := image.ReadAt(header, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	} else if bytes.HasPrefix(header[:n], []byte(elfMagic)) {
		return checkSize(io.NopCloser(io.NewSectionReader(image, 0, size)), size)
	}
	if size < setupHeaderEnd || le.Uint16(header[bootFlagAt:]) != bootFlag || string(header[headerMagicAt:][:4]) != headerMagic {
		return nil, 0, fmt.Errorf("%w: neither an ELF file nor a bzImage", banger.ErrUnsupported)
	}
	if version := le.Uint16(header[headerVersionAt:]); version < payloadVersion {
		return nil, 0, fmt.Errorf("%w: boot protocol %#x, want %#x or later", banger.ErrUnsupported, version, payloadVersion)
	}
	setup := int64(header[setupSectsAt])
	if setup == 0 {
		setup = defaultSetup
	}
	start := (setup+1)*sectorSize + int64(le.Uint32(header[payloadOffAt:]))
	length := int64(le.Uint32(header[payloadLenAt:]))
	if length <= payloadSizeTail || start+length > size {
		return nil, 0, fmt.Errorf("%w: payload of %d bytes at %d, the file has %d", banger.ErrCorrupt, length, start, size)
	}
	var tail [payloadSizeTail]byte
	if _, err := image.ReadAt(tail[:], start+length-payloadSizeTail); err != nil {
		return nil, 0, err
	}
	if !isGzip(image, start) { // gzip has the size in its own format, behind the others it is added
		length -= payloadSizeTail
	}
	content, err := decompress(io.NewSectionReader(image, start, length))
	if err != nil {
		return nil, 0, err
	}
	return checkSize(content, int64(le.Uint32(tail[:])))
}

func isGzip(r io.ReaderAt, at int64) bool {
	var magic [2]byte
	_, err := r.ReadAt(magic[:], at)
	return err == nil && magic == [2]byte{0x1f, 0x8b}
}

func checkSize(content io.ReadCloser, size int64) (io.ReadCloser, int64, error) {
	if size > maxVmlinux {
		content.Close()
		return nil, 0, fmt.Errorf("%w: an unpacked kernel of %s", banger.ErrUnsupported, banger.FormatSize(size))
	}
	return content, size, nil
}

// checkVmlinux checks that a VMM can start the kernel: an ELF file for x86-64 with a PVH entry.
func checkVmlinux(r io.ReaderAt, size int64) error {
	file, err := elf.NewFile(io.NewSectionReader(r, 0, size))
	if err != nil {
		return fmt.Errorf("read vmlinux: %w: %w", banger.ErrCorrupt, err)
	}
	if file.Machine != elf.EM_X86_64 || file.ByteOrder != binary.ByteOrder(le) {
		return fmt.Errorf("%w: a kernel for %s, want x86-64", banger.ErrUnsupported, file.Machine)
	}
	for _, p := range file.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		notes := make([]byte, min(p.Filesz, maxNotes))
		n, err := p.ReadAt(notes, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read vmlinux: %w: %w", banger.ErrCorrupt, err)
		}
		if hasPVHEntry(notes[:n]) {
			return nil
		}
	}
	return &banger.Error{Kind: banger.ErrUnsupported, Err: errors.New("the kernel has no PVH entry"),
		Hint: "take a kernel that is built with CONFIG_PVH, as distributions' kernels for virtual machines are"}
}

// hasPVHEntry looks through ELF notes: sizes of name and descriptor, type, both padded to 4 bytes.
func hasPVHEntry(notes []byte) bool {
	const headerSize = 12
	padded := func(n uint32) uint64 { return (uint64(n) + 3) &^ 3 }
	for len(notes) >= headerSize {
		nameSize, descSize, kind := le.Uint32(notes), le.Uint32(notes[4:]), le.Uint32(notes[8:])
		end := headerSize + padded(nameSize) + padded(descSize)
		if end > uint64(len(notes)) {
			return false
		}
		if kind == noteXenEntry && descSize >= 4 && string(notes[headerSize:headerSize+nameSize]) == noteXenName {
			return true
		}
		notes = notes[end:]
	}
	return false
}
