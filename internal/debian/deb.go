// Package debian gets packages from a Debian archive and reads them, where there is no apt.
//
// archive.go finds and downloads packages: release.go checks the signed list of an archive's files against keys.go's keys, and
// what that list says is checked of every other file before it is unpacked. deb.go and ar.go open a package (deb(5): an ar archive
// of two tar files), control.go reads paragraphs (deb-control(5)), version.go orders versions (deb-version(7)). Everything that is
// read is taken for hostile. No program is started.
package debian

import (
	"archive/tar"
	"bufio"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"banger"
	"banger/internal/tree"
)

const (
	maxControlTar = 16 << 20  // unpacked
	maxWindow     = 128 << 20 // memory of a zstd decoder
)

// Package is an opened binary package. It reads from the file that it was opened on, which must stay.
type Package struct {
	Name         string
	Version      string
	Architecture string
	Control      Paragraph // all fields

	data member
}

// The rules of deb-control(5) and deb-version(7), as far as they keep a field from being more than a word.
var (
	namePattern    = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	versionPattern = regexp.MustCompile(`^[A-Za-z0-9.+~:-]+$`)
	archPattern    = regexp.MustCompile(`^[a-z0-9-]+$`)
)

// Open reads a package's control data. Errors: ErrCorrupt; ErrUnsupported for an unknown format version or compression.
func Open(r io.ReaderAt, size int64) (*Package, error) {
	pkg, err := open(r, size)
	if err != nil {
		return nil, fmt.Errorf("open debian package: %w", err)
	}
	return pkg, nil
}

func open(r io.ReaderAt, size int64) (*Package, error) {
	archive := &arReader{r: r, size: size}
	if err := archive.magic(); err != nil {
		return nil, err
	}
	version, err := archive.next()
	if err != nil {
		return nil, err
	}
	if err := checkFormat(version); err != nil {
		return nil, err
	}
	control, err := archive.find("control.tar")
	if err != nil {
		return nil, err
	}
	pkg := &Package{}
	if pkg.Control, err = readControl(control); err != nil {
		return nil, err
	}
	if pkg.data, err = archive.find("data.tar"); err != nil {
		return nil, err
	}
	pkg.Name, pkg.Version, pkg.Architecture = pkg.Control.Get("Package"), pkg.Control.Get("Version"), pkg.Control.Get("Architecture")
	for _, field := range []struct {
		name, value string
		pattern     *regexp.Regexp
	}{{"Package", pkg.Name, namePattern}, {"Version", pkg.Version, versionPattern}, {"Architecture", pkg.Architecture, archPattern}} {
		if len(field.value) > 255 || !field.pattern.MatchString(field.value) {
			return nil, fmt.Errorf("%w: control field %s is %.64q", banger.ErrCorrupt, field.name, field.value)
		}
	}
	return pkg, nil
}

// checkFormat accepts format 2 of any minor number, as deb(5) asks.
func checkFormat(m member) error {
	if m.name != "debian-binary" {
		return fmt.Errorf("%w: the first member is %q, want debian-binary", banger.ErrCorrupt, m.name)
	}
	text := make([]byte, min(m.content.Size(), 16))
	if _, err := io.ReadFull(m.content, text); err != nil {
		return fmt.Errorf("%w: debian-binary: %w", banger.ErrCorrupt, err)
	}
	if line, _, ok := strings.Cut(string(text), "\n"); !ok || !strings.HasPrefix(line, "2.") {
		return fmt.Errorf("%w: package format %.16q, want 2.x", banger.ErrUnsupported, text)
	}
	return nil
}

// readControl gives the paragraph of control.tar's file "control".
func readControl(m member) (Paragraph, error) {
	unpacked, closer, err := m.open()
	if err != nil {
		return nil, err
	}
	defer closer()
	files := tar.NewReader(io.LimitReader(unpacked, maxControlTar))
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: %s has no file control", banger.ErrCorrupt, m.name)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", banger.ErrCorrupt, m.name, err)
		}
		if header.Typeflag != tar.TypeReg || path.Clean(header.Name) != "control" {
			continue
		}
		paragraphs, err := ParseControl(files)
		if err != nil {
			return nil, err
		}
		if len(paragraphs) != 1 {
			return nil, fmt.Errorf("%w: control has %d paragraphs, want 1", banger.ErrCorrupt, len(paragraphs))
		}
		return paragraphs[0], nil
	}
}

// Files gives what the package installs, in its order. It may be ranged over more than once.
func (p *Package) Files(limits tree.Limits) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		unpacked, closer, err := p.data.open()
		if err != nil {
			yield(tree.Entry{}, err)
			return
		}
		defer closer()
		tree.FromTar(unpacked, limits)(yield)
	}
}

// open gives the member's unpacked bytes; it is called by the member's name, as dpkg does.
func (m member) open() (r io.Reader, closer func(), err error) {
	packed := bufio.NewReaderSize(io.NewSectionReader(m.content, 0, m.content.Size()), 64<<10)
	closer = func() {}
	switch extension := path.Ext(m.name); extension {
	case ".tar":
		r = packed
	case ".gz":
		r, err = gzip.NewReader(packed)
	case ".xz":
		r, err = xz.NewReader(packed)
	case ".bz2":
		r = bzip2.NewReader(packed)
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow)); err == nil {
			r, closer = d, d.Close
		}
	default:
		return nil, nil, fmt.Errorf("%w: member %s: compression %q", banger.ErrUnsupported, m.name, extension)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: member %s: %w", banger.ErrCorrupt, m.name, err)
	}
	return r, closer, nil
}
