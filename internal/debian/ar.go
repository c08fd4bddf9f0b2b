package debian

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"banger"
)

// The layout of an ar member's header (deb(5), ar(5)); all fields are text, padded with spaces.
const (
	arMagic      = "!<arch>\n"
	arHeaderSize = 60
	arNameEnd    = 16
	arSizeStart  = 48
	arSizeEnd    = 58
	arEnd        = "`\n"
	maxMembers   = 64
)

// member is one file of an ar archive.
type member struct {
	name    string
	content *io.SectionReader
}

// arReader walks the members of an ar archive.
type arReader struct {
	r      io.ReaderAt
	size   int64
	offset int64 // of the next header
	count  int
}

func (a *arReader) magic() error {
	var b [len(arMagic)]byte
	if _, err := a.r.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if string(b[:]) != arMagic {
		return fmt.Errorf("%w: it is no ar archive", banger.ErrCorrupt)
	}
	a.offset = int64(len(arMagic))
	return nil
}

// next gives the next member. Errors: ErrCorrupt, also at the end.
func (a *arReader) next() (member, error) {
	corrupt := func(format string, args ...any) (member, error) {
		return member{}, fmt.Errorf("%w: ar member at %d: %s", banger.ErrCorrupt, a.offset, fmt.Sprintf(format, args...))
	}
	if a.count++; a.count > maxMembers {
		return corrupt("more than %d members", maxMembers)
	}
	if a.size-a.offset < arHeaderSize {
		return corrupt("the archive ends")
	}
	var b [arHeaderSize]byte
	if _, err := a.r.ReadAt(b[:], a.offset); err != nil {
		return corrupt("%v", err)
	}
	if string(b[arSizeEnd:]) != arEnd {
		return corrupt("its header has no end mark")
	}
	size, err := strconv.ParseUint(strings.TrimRight(string(b[arSizeStart:arSizeEnd]), " "), 10, 62)
	start := a.offset + arHeaderSize
	if err != nil || int64(size) > a.size-start {
		return corrupt("size %q, %d bytes are left", b[arSizeStart:arSizeEnd], a.size-start)
	}
	name := strings.TrimSuffix(strings.TrimRight(string(b[:arNameEnd]), " "), "/")
	a.offset = start + int64(size) + int64(size&1) // members begin at even offsets
	return member{name, io.NewSectionReader(a.r, start, int64(size))}, nil
}

// find gives the next member that is called base or base with an extension. Only members that begin with '_' may lie
// before it.
func (a *arReader) find(base string) (member, error) {
	for {
		m, err := a.next()
		if err != nil {
			return m, fmt.Errorf("look for %s: %w", base, err)
		}
		switch {
		case m.name == base || strings.HasPrefix(m.name, base+"."):
			return m, nil
		case !strings.HasPrefix(m.name, "_"):
			return m, fmt.Errorf("%w: member %q where %s should be", banger.ErrCorrupt, m.name, base)
		}
	}
}
