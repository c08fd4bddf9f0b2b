package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
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
}

const xattrRecord = "SCHILY.xattr."

var tarKinds = map[byte]Kind{tar.TypeReg: File, tar.TypeGNUSparse: File, tar.TypeCont: File, tar.TypeDir: Dir, tar.TypeSymlink: Symlink, tar.TypeLink: HardLink,
	tar.TypeChar: CharDevice, tar.TypeBlock: BlockDevice, tar.TypeFifo: FIFO}

// FromTar yields what a tar stream holds, in its order: PAX, GNU, their sparse files, and older formats. Paths end up inside
// the root, whatever they say. It reads r up to the end mark.
// Errors: ErrCorrupt for a damaged or truncated stream; ErrInvalid naming the entry or the limit.
func FromTar(r io.Reader, limits Limits) Source {
	return func(yield func(Entry, error) bool) {
		reader := tar.NewReader(r)
		count, bytes := 0, int64(0)
		for {
			header, err := reader.Next()
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(Entry{}, damaged(err))
				return
			}
			if header.Typeflag == tar.TypeXGlobalHeader {
				continue
			}
			e, err := fromHeader(header, reader)
			count, bytes = count+1, bytes+e.Size
			switch {
			case err != nil:
			case limits.Entries > 0 && count > limits.Entries:
				err = banger.Invalidf("more than %d entries", limits.Entries)
			case limits.Bytes > 0 && (bytes > limits.Bytes || bytes < 0):
				err = banger.Invalidf("more than %s of content, with %q", banger.FormatSize(limits.Bytes), e.Path)
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// damaged gives a fault of the stream its kind; one of the reader below keeps its own.
func damaged(err error) error {
	if banger.KindName(err) == "internal" && (errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF)) {
		return &banger.Error{Kind: banger.ErrCorrupt, Op: "read tar", Err: err}
	}
	return fmt.Errorf("read tar: %w", err)
}

// tarContent is a file's content; a stream that ends within is damaged.
type tarContent struct{ r io.Reader }

func (c tarContent) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF {
		err = damaged(err)
	}
	return n, err
}

func fromHeader(header *tar.Header, content io.Reader) (Entry, error) {
	kind, ok := tarKinds[header.Typeflag]
	if !ok {
		return Entry{}, banger.Invalidf("entry %q: tar type %q is not known", header.Name, header.Typeflag)
	}
	e := Entry{Path: inside(header.Name), Kind: kind, Mode: uint32(header.Mode & 0o7777), UID: uint32(header.Uid), GID: uint32(header.Gid),
		ModTime: header.ModTime, AccessTime: header.AccessTime, ChangeTime: header.ChangeTime}
	switch {
	case header.Uid < 0 || header.Uid >= 1<<32-1 || header.Gid < 0 || header.Gid >= 1<<32-1:
		return Entry{}, banger.Invalidf("entry %q: owner %d:%d", header.Name, header.Uid, header.Gid)
	case strings.IndexByte(e.Path, 0) >= 0:
		return Entry{}, banger.Invalidf("entry %q: a zero byte in its name", header.Name)
	}
	switch kind {
	case File:
		if e.Size = header.Size; e.Size < 0 {
			return Entry{}, banger.Invalidf("entry %q: a size of %d bytes", header.Name, header.Size)
		}
		if e.Size > 0 {
			e.Content = tarContent{content}
		}
	case Symlink:
		e.Link = header.Linkname
	case HardLink:
		e.Link = inside(header.Linkname)
	case CharDevice, BlockDevice:
		if header.Devmajor < 0 || header.Devmajor > 1<<31 || header.Devminor < 0 || header.Devminor > 1<<31 {
			return Entry{}, banger.Invalidf("entry %q: device %d:%d", header.Name, header.Devmajor, header.Devminor)
		}
		e.Major, e.Minor = uint32(header.Devmajor), uint32(header.Devminor)
	}
	for name, value := range header.PAXRecords {
		if attr, ok := strings.CutPrefix(name, xattrRecord); ok {
			if e.Xattrs == nil {
				e.Xattrs = map[string][]byte{}
			}
			e.Xattrs[attr] = []byte(value)
		}
	}
	return e, nil
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
				case name == opaqueMarker:
					e = Entry{Path: inside(dir), Kind: Opaque}
				case strings.HasPrefix(name, reserved):
					continue // of another file system's book-keeping
				case ok && (rest == "" || rest == "." || rest == ".."):
					e, err = Entry{}, banger.Invalidf("entry %q: a white-out of no name", e.Path)
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
