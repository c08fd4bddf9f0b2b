package workspace

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"banger"
)

// The index of a work tree (git's documentation, "index format"): a header, entries in the order of their paths, extensions, and
// a SHA-1 of all that.
const (
	indexMagic      = "DIRC"
	indexHeader     = 12
	indexEntrySize  = 62 // without extended flags and path
	maxIndexEntries = 4_000_000

	flagAssumeValid = 0x8000
	flagExtended    = 0x4000
	flagNameMask    = 0x0fff
	flagSkip        = 0x4000 // of the extended flags
	flagIntentToAdd = 0x2000
)

// stat is what git remembers of a file to see whether it has changed; all zero means: look at the content.
type stat struct {
	CTime, CTimeNs, MTime, MTimeNs uint32
	Dev, Ino                       uint32
	UID, GID                       uint32
	Size                           uint32 // the low 32 bits
}

// indexEntry is one path of an index.
type indexEntry struct {
	Path        string
	Mode        uint32
	ID          string // hexadecimal
	Stage       uint8  // 0, or 1 to 3 of a conflict
	AssumeValid bool
	Skip        bool // skip-worktree
	IntentToAdd bool
	Stat        stat
}

// encodeIndex writes an index of version 2, or 3 when an entry needs it. It sorts entries.
func encodeIndex(entries []indexEntry) ([]byte, error) {
	slices.SortFunc(entries, func(a, b indexEntry) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), cmp.Compare(a.Stage, b.Stage))
	})
	version := uint32(2)
	if slices.ContainsFunc(entries, func(e indexEntry) bool { return e.Skip || e.IntentToAdd }) {
		version = 3
	}
	out := append([]byte(indexMagic), 0, 0, 0, byte(version))
	out = binary.BigEndian.AppendUint32(out, uint32(len(entries)))
	for _, e := range entries {
		begin := len(out)
		s := e.Stat
		for _, field := range []uint32{s.CTime, s.CTimeNs, s.MTime, s.MTimeNs, s.Dev, s.Ino, e.Mode, s.UID, s.GID, s.Size} {
			out = binary.BigEndian.AppendUint32(out, field)
		}
		id, err := hex.DecodeString(e.ID)
		if err != nil || len(id) != sha1.Size {
			return nil, fmt.Errorf("index: %q: object id %.100q", e.Path, e.ID)
		}
		out = append(out, id...)
		flags := uint16(e.Stage)<<12 | uint16(min(len(e.Path), flagNameMask))
		if e.AssumeValid {
			flags |= flagAssumeValid
		}
		if e.Skip || e.IntentToAdd {
			out = binary.BigEndian.AppendUint16(out, flags|flagExtended)
			out = binary.BigEndian.AppendUint16(out, extendedFlags(e))
		} else {
			out = binary.BigEndian.AppendUint16(out, flags)
		}
		out = append(out, e.Path...)
		out = append(out, make([]byte, 8-(len(out)-begin)%8)...) // one to eight NULs
	}
	sum := sha1.Sum(out)
	return append(out, sum[:]...), nil
}

func extendedFlags(e indexEntry) (flags uint16) {
	if e.Skip {
		flags |= flagSkip
	}
	if e.IntentToAdd {
		flags |= flagIntentToAdd
	}
	return flags
}

// parseIndex reads an index of version 2, 3 or 4. Optional extensions are passed over.
// Errors: ErrCorrupt; ErrUnsupported for what can't be understood without its extension: split and sparse indexes.
func parseIndex(b []byte) ([]indexEntry, error) {
	corrupt := func(format string, args ...any) ([]indexEntry, error) {
		return nil, fmt.Errorf("%w: index: %s", banger.ErrCorrupt, fmt.Sprintf(format, args...))
	}
	if len(b) < indexHeader+sha1.Size || string(b[:4]) != indexMagic {
		return corrupt("no header")
	}
	body, sum := b[:len(b)-sha1.Size], b[len(b)-sha1.Size:]
	if got := sha1.Sum(body); !bytes.Equal(got[:], sum) && !bytes.Equal(sum, make([]byte, sha1.Size)) { // zero: index.skipHash
		return corrupt("checksum")
	}
	version, count := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	if version < 2 || version > 4 {
		return nil, fmt.Errorf("%w: index of version %d", banger.ErrUnsupported, version)
	}
	if count > maxIndexEntries || uint64(count)*indexEntrySize > uint64(len(body)) {
		return corrupt("%d entries in %d bytes", count, len(b))
	}
	entries := make([]indexEntry, 0, count)
	r, previous := indexReader{rest: body[indexHeader:], version: version}, indexEntry{}
	for range count {
		e, err := r.next(previous.Path)
		if err != nil {
			return corrupt("entry %d: %v", len(entries), err)
		}
		if len(entries) > 0 && cmp.Or(strings.Compare(previous.Path, e.Path), cmp.Compare(previous.Stage, e.Stage)) >= 0 {
			return corrupt("entry %d: out of order", len(entries))
		}
		entries, previous = append(entries, e), e
	}
	return entries, r.extensions()
}

// indexReader takes entries off the front of rest.
type indexReader struct {
	rest    []byte
	version uint32
}

var errShort = errors.New("cut off")

func (r *indexReader) next(previous string) (e indexEntry, err error) {
	if len(r.rest) < indexEntrySize {
		return e, errShort
	}
	b := r.rest
	field := func(n int) uint32 { return binary.BigEndian.Uint32(b[4*n:]) }
	e.Stat = stat{field(0), field(1), field(2), field(3), field(4), field(5), field(7), field(8), field(9)}
	e.Mode, e.ID = field(6), hex.EncodeToString(b[40:60])
	flags, size := binary.BigEndian.Uint16(b[60:]), indexEntrySize
	e.Stage, e.AssumeValid = uint8(flags>>12)&3, flags&flagAssumeValid != 0
	if flags&flagExtended != 0 {
		if r.version < 3 || len(b) < size+2 {
			return e, errors.New("extended flags where none may be")
		}
		extended := binary.BigEndian.Uint16(b[size:])
		e.Skip, e.IntentToAdd, size = extended&flagSkip != 0, extended&flagIntentToAdd != 0, size+2
	}
	if r.version == 4 {
		err = r.compressedPath(&e, previous, size)
	} else {
		err = r.paddedPath(&e, size)
	}
	if err == nil && int(flags&flagNameMask) != min(len(e.Path), flagNameMask) {
		err = errors.New("length of the path")
	}
	return e, err
}

func (r *indexReader) paddedPath(e *indexEntry, size int) error {
	length := bytes.IndexByte(r.rest[size:], 0)
	if length < 0 {
		return errShort
	}
	e.Path = string(r.rest[size : size+length])
	size += length
	size += 8 - size%8
	if size > len(r.rest) {
		return errShort
	}
	r.rest = r.rest[size:]
	return nil
}

// compressedPath reads a path of version 4: how many bytes of the one before go, in git's offset encoding, and what comes.
func (r *indexReader) compressedPath(e *indexEntry, previous string, size int) error {
	strip, used := uint64(0), 0
	for b := r.rest[size:]; ; used++ {
		if used >= len(b) || used > 8 {
			return errShort
		}
		if used > 0 {
			strip++
		}
		strip = strip<<7 | uint64(b[used]&0x7f)
		if b[used]&0x80 == 0 {
			used++
			break
		}
	}
	size += used
	length := bytes.IndexByte(r.rest[size:], 0)
	if length < 0 || strip > uint64(len(previous)) {
		return errShort
	}
	e.Path = previous[:len(previous)-int(strip)] + string(r.rest[size:size+length])
	r.rest = r.rest[size+length+1:]
	return nil
}

// extensions looks for those that change what the entries mean: their names begin with a lower-case letter.
func (r *indexReader) extensions() error {
	for len(r.rest) >= 8 {
		name, size := string(r.rest[:4]), binary.BigEndian.Uint32(r.rest[4:])
		if name[0] < 'A' || name[0] > 'Z' {
			return fmt.Errorf("%w: index with the extension %q (a split or sparse index)", banger.ErrUnsupported, name)
		}
		if uint64(size) > uint64(len(r.rest)-8) {
			return fmt.Errorf("%w: index: extension %q: cut off", banger.ErrCorrupt, name)
		}
		r.rest = r.rest[8+size:]
	}
	return nil
}
