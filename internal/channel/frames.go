package channel

import (
	"encoding/binary"
	"fmt"
	"io"

	"banger"
)

// Header of a yamux frame: version, type, flags, stream, length.
const (
	yamuxHeader    = 12
	yamuxVersion   = 0
	yamuxData      = 0
	yamuxMaxType   = 3 // go away
	offFrameType   = 1
	offFrameLength = 8
	maxWindow      = 1 << 20 // bytes of one stream that wait for their reader
)

// frameReader passes yamux frames on and ends at the first that no peer of ours writes. A guest that missed the end of a
// session reads the next host's hello as the rest of a frame: without this it could wait for gigabytes.
type frameReader struct {
	r      io.Reader
	header [yamuxHeader]byte
	have   int    // bytes of header read
	body   uint32 // bytes of the body to come
}

func (f *frameReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		skip := min(uint64(f.body), uint64(len(rest)))
		f.body -= uint32(skip)
		rest = rest[skip:]
		m := copy(f.header[f.have:], rest)
		f.have += m
		rest = rest[m:]
		// At once, not when the header is whole: a peer that has left its session writes one byte and waits for a hello.
		if m > 0 && f.header[0] != yamuxVersion || f.have == yamuxHeader {
			if err := f.next(); err != nil {
				return 0, err
			}
		}
	}
	return n, err
}

func (f *frameReader) next() error {
	version, kind, length := f.header[0], f.header[offFrameType], binary.BigEndian.Uint32(f.header[offFrameLength:])
	if version != yamuxVersion || kind > yamuxMaxType || kind == yamuxData && length > maxFrame {
		return fmt.Errorf("%w: channel frame %x", banger.ErrCorrupt, f.header)
	}
	f.have = 0
	if kind == yamuxData {
		f.body = length
	}
	return nil
}

// frameWriter writes the header of a frame together with its body: a write to a guest's port costs an exit of its processor,
// and a read at the other end. Of a long body only the beginning goes with the header; the rest is not worth copying.
type frameWriter struct {
	w       io.Writer
	pending []byte // a header whose body comes with the next write
}

// maxJoined is how much is written at once for the sake of a header, in bytes.
const maxJoined = 4 << 10

func (f *frameWriter) Write(p []byte) (int, error) {
	if len(f.pending) > 0 {
		return f.join(p)
	}
	if len(p) == yamuxHeader && p[offFrameType] == yamuxData && binary.BigEndian.Uint32(p[offFrameLength:]) > 0 {
		f.pending = append(f.pending, p...)
		return len(p), nil
	}
	return f.w.Write(p)
}

func (f *frameWriter) join(body []byte) (int, error) {
	joined := min(len(body), maxJoined-yamuxHeader)
	f.pending = append(f.pending, body[:joined]...)
	n, err := f.w.Write(f.pending)
	f.pending = f.pending[:0]
	n = max(n-yamuxHeader, 0)
	if err != nil || joined == len(body) {
		return n, err
	}
	rest, err := f.w.Write(body[joined:])
	return n + rest, err
}
