package kernel

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"iter"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// A kernel that was built with CONFIG_IKCONFIG has its configuration in it (kernel/configs.c): gzip between two marks.
const (
	embeddedConfigStart = "IKCFG_ST"
	bannerStart         = "Linux version " // init/version.c: what the kernel says first
	scanChunk           = 1 << 20
	maxConfig           = 4 << 20
)

// buildConfig is what a kernel was configured with: 'y' or 'm' by option, without "CONFIG_".
type buildConfig map[string]byte

// parseConfig reads a .config; lines that it does not know are left out. It gives nil for a text without any option: that is
// no configuration.
func parseConfig(text []byte) buildConfig {
	found := buildConfig{}
	for line := range strings.SplitSeq(string(text), "\n") {
		option, value, ok := strings.Cut(strings.TrimSuffix(line, "\r"), "=")
		option, named := strings.CutPrefix(option, "CONFIG_")
		if ok && named && option != "" && (value == "y" || value == "m") {
			found[option] = value[0]
		}
	}
	if len(found) == 0 {
		return nil
	}
	return found
}

// readConfig gives the configuration in a file, which may be packed with gzip as /proc/config.gz is; nil when it is none.
func readConfig(r io.Reader) buildConfig {
	in := bufio.NewReader(r)
	if head, _ := in.Peek(2); !bytes.Equal(head, []byte{0x1f, 0x8b}) {
		return limitedConfig(in)
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil
	}
	return limitedConfig(z)
}

// limitedConfig takes a configuration that is damaged or has no end for none: it is of help, not of need.
func limitedConfig(r io.Reader) buildConfig {
	text, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err != nil || len(text) > maxConfig {
		return nil
	}
	return parseConfig(text)
}

// embeddedConfig gives the configuration that an unpacked kernel carries, nil when it carries none.
func embeddedConfig(vmlinux io.ReaderAt, size int64) buildConfig {
	for at := range find(vmlinux, size, embeddedConfigStart) {
		start := at + int64(len(embeddedConfigStart))
		z, err := gzip.NewReader(io.NewSectionReader(vmlinux, start, size-start))
		if err != nil {
			continue
		}
		z.Multistream(false) // the end mark follows
		if config := limitedConfig(z); config != nil {
			return config
		}
	}
	return nil
}

// bannerRelease gives what uname -r will say, by the banner in an unpacked kernel; "" when there is none.
func bannerRelease(vmlinux io.ReaderAt, size int64) string {
	for at := range find(vmlinux, size, bannerStart) {
		if release := firstWord(vmlinux, at+int64(len(bannerStart)), size); release != "" {
			return release
		}
	}
	return ""
}

// firstWord gives the version that stands at an offset, up to a space; "" for anything else.
func firstWord(r io.ReaderAt, at, size int64) string {
	const longest = 65
	if at < 0 || at >= size {
		return ""
	}
	b := make([]byte, min(longest, size-at))
	n, err := r.ReadAt(b, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	word, _, ok := strings.Cut(string(b[:n]), " ")
	if !ok || !versionPattern.MatchString(word) || word[0] < '0' || word[0] > '9' {
		return ""
	}
	return word
}

// find yields the offsets at which mark stands. It ends at the first error.
func find(r io.ReaderAt, size int64, mark string) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		chunk := make([]byte, scanChunk)
		for at := int64(0); at < size; at += scanChunk - int64(len(mark)-1) { // a mark may lie across two
			n, err := r.ReadAt(chunk[:min(scanChunk, size-at)], at)
			if err != nil && !errors.Is(err, io.EOF) {
				return
			}
			for from := 0; ; {
				i := bytes.Index(chunk[from:n], []byte(mark))
				if i < 0 {
					break
				}
				if !yield(at + int64(from+i)) {
					return
				}
				from += i + len(mark)
			}
		}
	}
}

// imageRelease gives what uname -r will say, as far as a kernel's file tells: a bzImage in its header, an ELF file by its banner.
func imageRelease(image io.ReaderAt, size int64) string {
	header := make([]byte, setupHeaderEnd)
	n, err := image.ReadAt(header, 0)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return ""
	case bytes.HasPrefix(header[:n], []byte(elfMagic)):
		return bannerRelease(image, size)
	case n < setupHeaderEnd || string(header[headerMagicAt:][:4]) != headerMagic:
		return ""
	}
	pointer := int64(le.Uint16(header[kernelVersionAt:]))
	if pointer == 0 {
		return ""
	}
	return firstWord(image, pointer+sectorSize, size)
}

// configIn reads the configuration beside a kernel in dir, or else the one in the kernel; nil when neither is there.
func configIn(dir *os.Root, vmlinux string) (buildConfig, error) {
	if f, err := dir.Open(unpackedConfig); err == nil {
		defer f.Close()
		if config := readConfig(f); config != nil {
			return config, nil
		}
	}
	f, err := os.Open(vmlinux)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return embeddedConfig(f, info.Size()), nil
}
