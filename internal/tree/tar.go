package tree

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"banger"
)

// Limits bound what a stream may ask for; 0 is no limit.
type Limits struct {
	Entries int
	Bytes   int64 // of all contents
	Strict  bool  // an absolute path, or one with "..", is refused; else it ends up inside the root, whatever it says
}

const xattrRecord = "SCHILY.xattr."

var tarKinds = map[byte]Kind{tar.TypeReg: File, tar.TypeGNUSparse: File, tar.TypeCont: File, tar.TypeDir: Dir, tar.TypeSymlink: Symlink, tar.TypeLink: HardLink,
	tar.TypeChar: CharDevice, tar.TypeBlock: BlockDevice, tar.TypeFifo: FIFO}

// typeVolume is GNU tar's label of an archive, which makes no file.
const typeVolume = 'V'

// FromTar yields what a tar stream holds, in its order: PAX, GNU, their sparse files, and older formats. No path leads out of the root. It reads r up to the end mark, and perhaps some of what follows.
// Errors: ErrCorrupt for a damaged or truncated stream; ErrInvalid naming the entry or the limit.
func FromTar(r io.Reader, limits Limits) Source {
	return func(yield func(Entry, error) bool) {
		stream := &tarStream{r: bufio.NewReaderSize(r, readAhead)}
		stream.Reader = tar.NewReader(readFunc(stream.read))
		used := Limits{}
		for {
			header, err := stream.next()
			if err == io.EOF {
				return
			}
			var e Entry
			if err == nil {
				err = used.add(header, limits)
			}
			if err == nil && (header.Typeflag == tar.TypeXGlobalHeader || header.Typeflag == typeVolume) {
				continue
			}
			if err == nil {
				e, err = fromHeader(header, readFunc(stream.content))
			}
			if err == nil && limits.Strict && (leaves(header.Name) || e.Kind == HardLink && leaves(header.Linkname)) {
				e, err = Entry{}, badEntry(header, "a path that leads out of the tree")
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// add counts a header, also of what is skipped: a stream of nothing else would be as endless.
func (l *Limits) add(header *tar.Header, limits Limits) error {
	l.Entries++
	if limits.Entries > 0 && l.Entries > limits.Entries {
		return banger.Invalidf("more than %d entries", limits.Entries)
	}
	if kind := tarKinds[header.Typeflag]; kind != File && kind != 0 {
		return nil // older links and directories may tell a size and have no content
	}
	if header.Size < 0 || header.Size > math.MaxInt64-l.Bytes {
		return banger.Invalidf("entry %.200q: a size of %d bytes", header.Name, header.Size)
	}
	l.Bytes += header.Size
	if limits.Bytes > 0 && l.Bytes > limits.Bytes {
		return banger.Invalidf("more than %s of content, with %.200q", banger.FormatSize(limits.Bytes), header.Name)
	}
	return nil
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// tarStream tells a fault of the stream from one of what it is read from.
type tarStream struct {
	*tar.Reader
	r     io.Reader
	err   error // of r, but for its end
	zeros int   // bytes that the stream so far ends in, counted up to a block
}

const (
	tarBlock  = 512
	readAhead = 16 << 10 // larger reads go past it
)

func (s *tarStream) read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	tail := n
	for tail > 0 && n-tail < tarBlock && p[tail-1] == 0 {
		tail--
	}
	if tail > 0 && n-tail < tarBlock {
		s.zeros = 0
	}
	s.zeros = min(s.zeros+n-tail, tarBlock)
	return n, err
}

// next gives the next header. The end of a stream is a block of zeros: without one it was cut off, though between entries.
func (s *tarStream) next() (*tar.Header, error) {
	s.zeros = 0 // those of a file that ends in zeros are no end mark, and its padding is less than a block
	header, err := s.Next()
	switch {
	case err == io.EOF && s.zeros == tarBlock:
		return nil, io.EOF
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	case errors.Is(err, tar.ErrInsecurePath): // a setting of Go's runtime; such paths are cleaned here
		err = nil
	}
	return header, s.fault(err)
}

// content reads the file of the last header.
func (s *tarStream) content(p []byte) (int, error) {
	n, err := s.Read(p)
	if err != io.EOF {
		err = s.fault(err)
	}
	return n, err
}

func (s *tarStream) fault(err error) error {
	switch {
	case err == nil:
		return nil
	case s.err == nil, banger.KindName(s.err) == "internal" && errors.Is(s.err, io.ErrUnexpectedEOF):
		return &banger.Error{Kind: banger.ErrCorrupt, Op: "read tar", Err: err}
	}
	return fmt.Errorf("read tar: %w", s.err)
}

func fromHeader(header *tar.Header, content io.Reader) (Entry, error) {
	kind, ok := tarKinds[header.Typeflag]
	if !ok {
		return Entry{}, badEntry(header, "tar type %q is not known", header.Typeflag)
	}
	e := Entry{Path: inside(header.Name), Kind: kind, Mode: uint32(header.Mode & 0o7777), UID: uint32(header.Uid), GID: uint32(header.Gid),
		ModTime: header.ModTime, AccessTime: header.AccessTime, ChangeTime: header.ChangeTime}
	if err := checkPath(e.Path); err != nil {
		return Entry{}, badEntry(header, "%w", err)
	}
	switch {
	case e.Path == "." && kind != Dir:
		return Entry{}, badEntry(header, "the root is a directory")
	case header.Uid < 0 || header.Uid >= 1<<32-1 || header.Gid < 0 || header.Gid >= 1<<32-1:
		return Entry{}, badEntry(header, "owner %d:%d", header.Uid, header.Gid)
	}
	switch kind {
	case File:
		if e.Size = header.Size; e.Size > 0 {
			e.Content = content
		}
	case Symlink:
		if e.Link = header.Linkname; e.Link == "" || len(e.Link) > maxLink || strings.IndexByte(e.Link, 0) >= 0 {
			return Entry{}, badEntry(header, "a symlink to %.200q", e.Link)
		}
	case HardLink:
		e.Link = inside(header.Linkname)
		if err := checkPath(e.Link); err != nil {
			return Entry{}, badEntry(header, "a link: %w", err)
		}
	case CharDevice, BlockDevice:
		if header.Devmajor < 0 || header.Devmajor > maxMajor || header.Devminor < 0 || header.Devminor > maxMinor {
			return Entry{}, badEntry(header, "device %d:%d", header.Devmajor, header.Devminor)
		}
		e.Major, e.Minor = uint32(header.Devmajor), uint32(header.Devminor)
	}
	for name, value := range header.PAXRecords {
		if attr, ok := strings.CutPrefix(name, xattrRecord); ok {
			if attr == "" || len(attr) > maxName {
				return Entry{}, badEntry(header, "an extended attribute's name of %d bytes", len(attr))
			}
			if e.Xattrs == nil {
				e.Xattrs = map[string][]byte{}
			}
			e.Xattrs[attr] = []byte(value)
		}
	}
	return e, nil
}

func badEntry(header *tar.Header, format string, args ...any) error {
	return banger.Invalidf("entry %.200q: %w", header.Name, fmt.Errorf(format, args...))
}

// What Linux can have; maxPath, which no system call takes at once, bounds the directories that one name makes.
const (
	maxName  = 255
	maxLink  = 4095
	maxPath  = 64 << 10
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)

func checkPath(name string) error {
	if len(name) > maxPath {
		return fmt.Errorf("a path of %d bytes, more than %d", len(name), maxPath)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return errors.New("a zero byte in its name")
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > maxName {
			return fmt.Errorf("a name of %d bytes, more than %d", len(part), maxName)
		}
	}
	return nil
}

// leaves tells that a path as it stands begins or goes outside the root.
func leaves(name string) bool {
	return strings.HasPrefix(name, "/") || strings.Contains("/"+name+"/", "/../")
}

// inside cleans a path so that it does not leave the root.
func inside(name string) string {
	if name = path.Clean("/" + name)[1:]; name == "" {
		return "."
	}
	return name
}

// Names with a meaning in an image's layers: https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
const (
	whiteout     = ".wh."
	opaqueMarker = ".wh..wh..opq"
	reserved     = ".wh..wh."
)

// FromLayer is FromTar for a layer of a container image: it begins with Layer, and white-outs become Delete and Opaque.
func FromLayer(r io.Reader, limits Limits) Source {
	return func(yield func(Entry, error) bool) {
		if !yield(Entry{Path: ".", Kind: Layer}, nil) {
			return
		}
		for e, err := range FromTar(r, limits) {
			if dir, name := path.Split(e.Path); err == nil {
				switch rest, ok := strings.CutPrefix(name, whiteout); {
				case strings.Contains("/"+dir, "/"+reserved):
					continue
				case name == opaqueMarker:
					e = Entry{Path: inside(dir), Kind: Opaque}
				case strings.HasPrefix(name, reserved):
					continue // of another file system's book-keeping
				case ok && (rest == "" || rest == "." || rest == ".."):
					e, err = Entry{}, banger.Invalidf("entry %.200q: a white-out of no name", e.Path)
				case ok:
					e = Entry{Path: dir + rest, Kind: Delete}
				}
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

var tarTypes = map[Kind]byte{File: tar.TypeReg, Dir: tar.TypeDir, Symlink: tar.TypeSymlink, HardLink: tar.TypeLink, CharDevice: tar.TypeChar,
	BlockDevice: tar.TypeBlock, FIFO: tar.TypeFifo}

// WriteTar writes a PAX stream with its end mark. Sockets, which tar does not know, are left out.
// Errors: ErrInvalid for entries that only layers have.
func WriteTar(w io.Writer, src Source) error {
	writer := tar.NewWriter(w)
	for e, err := range src {
		if err != nil {
			return err
		}
		if e.Kind == Socket {
			continue
		}
		kind, ok := tarTypes[e.Kind]
		if !ok {
			return banger.Invalidf("entry %q: kind %d has no place in a tar stream", e.Path, e.Kind)
		}
		header := &tar.Header{Typeflag: kind, Name: e.Path, Linkname: e.Link, Mode: int64(e.Mode), Uid: int(e.UID), Gid: int(e.GID), Size: e.Size,
			ModTime: orEpoch(e.ModTime), AccessTime: e.AccessTime, ChangeTime: e.ChangeTime, Devmajor: int64(e.Major), Devminor: int64(e.Minor), Format: tar.FormatPAX}
		if e.Kind == Dir {
			header.Name += "/"
		}
		for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
			if header.PAXRecords == nil {
				header.PAXRecords = map[string]string{}
			}
			header.PAXRecords[xattrRecord+name] = string(e.Xattrs[name])
		}
		if err := writer.WriteHeader(header); err != nil {
			return fmt.Errorf("write tar: %q: %w", e.Path, err)
		}
		if e.Size > 0 {
			if _, err := io.CopyN(writer, e.Content, e.Size); err != nil {
				return fmt.Errorf("write tar: %q: %w", e.Path, err)
			}
		}
	}
	if err := writer.Close(); err != nil {
		return fmt.Errorf("write tar: %w", err)
	}
	return nil
}

func orEpoch(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(0, 0)
	}
	return t
}
