package transfer

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"banger"
	"banger/internal/tree"
)

// A stream is frames: a kind, a number (32 bits, big endian) and, but for zeros, that many bytes. It ends with a frame that tells how
// it went, so that a stream that was cut off is never taken for a whole one. Holes of files cost no bytes.
const (
	frameData   = 'd' // bytes
	frameZeros  = 'z' // so many zero bytes
	frameEnd    = 'e' // end as JSON; nothing follows
	frameHeader = 5
	maxFrame    = 64 << 10 // with its header, of what is written: the channel carries as much at once
	minZeros    = 4 << 10  // fewer are sent as they are
	readAhead   = 8 << 10  // small enough that most of a file goes past the buffer
)

// end is how a stream went.
type end struct {
	Report Report            `json:"report"`
	Error  *banger.ErrorBody `json:"error,omitempty"`
}

// streamWriter makes frames of what is written to it.
type streamWriter struct {
	w     io.Writer
	buf   []byte // a frame with room for its header
	zeros uint32
	err   error // of w
}

func newStreamWriter(w io.Writer) *streamWriter {
	return &streamWriter{w: w, buf: make([]byte, frameHeader, maxFrame)}
}

var noData [32 << 10]byte

func (s *streamWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		part := p[done:min(len(p), done+len(noData))]
		var err error
		if len(part) >= minZeros && bytes.Equal(part, noData[:len(part)]) {
			err = s.skip(uint32(len(part)))
		} else {
			err = s.put(part)
		}
		if err != nil {
			return done, err
		}
		done += len(part)
	}
	return done, nil
}

func (s *streamWriter) skip(n uint32) error {
	if err := s.flush(); err != nil {
		return err
	}
	if s.zeros > 1<<31 {
		if err := s.flushZeros(); err != nil {
			return err
		}
	}
	s.zeros += n
	return nil
}

func (s *streamWriter) put(p []byte) error {
	if err := s.flushZeros(); err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(len(p), cap(s.buf)-len(s.buf))
		s.buf, p = append(s.buf, p[:n]...), p[n:]
		if len(s.buf) < cap(s.buf) {
			break
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
	return nil
}

func (s *streamWriter) flush() error {
	if len(s.buf) == frameHeader {
		return nil
	}
	s.buf[0] = frameData
	binary.BigEndian.PutUint32(s.buf[1:], uint32(len(s.buf)-frameHeader))
	err := s.write(s.buf)
	s.buf = s.buf[:frameHeader]
	return err
}

func (s *streamWriter) write(frame []byte) error {
	if s.err == nil {
		_, s.err = s.w.Write(frame)
	}
	return s.err
}

func (s *streamWriter) flushZeros() error {
	if s.zeros == 0 {
		return nil
	}
	err := s.write(binary.BigEndian.AppendUint32([]byte{frameZeros}, s.zeros))
	s.zeros = 0
	return err
}

// finish writes the last frame.
func (s *streamWriter) finish(e end) error {
	if err := errors.Join(s.flush(), s.flushZeros()); err != nil {
		return err
	}
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return s.write(append(binary.BigEndian.AppendUint32([]byte{frameEnd}, uint32(len(text))), text...))
}

// streamReader gives the bytes of a stream. At its end it gives io.EOF, or the error that the sender tells of.
type streamReader struct {
	r     *bufio.Reader
	left  uint32 // of the frame
	zeros bool
	got   *end
	err   error
}

func (s *streamReader) Read(p []byte) (n int, err error) {
	for s.err == nil && s.left == 0 && len(p) > 0 {
		s.err = s.next()
	}
	if s.err != nil || len(p) == 0 {
		return 0, s.err
	}
	p = p[:min(uint32(min(len(p), maxFrame)), s.left)]
	if s.zeros {
		clear(p)
		n = len(p)
	} else if n, err = s.r.Read(p); err != nil {
		s.err = cutOff(err)
	}
	s.left -= uint32(n)
	return n, s.err
}

func (s *streamReader) next() error {
	var header [frameHeader]byte
	if _, err := io.ReadFull(s.r, header[:]); err != nil {
		return cutOff(err)
	}
	n := binary.BigEndian.Uint32(header[1:])
	switch kind := header[0]; {
	case kind != frameZeros && n > maxFrame:
		return &banger.Error{Kind: banger.ErrCorrupt, Err: fmt.Errorf("a frame of %d bytes", n)}
	case kind == frameData, kind == frameZeros:
		s.left, s.zeros = n, kind == frameZeros
		return nil
	case kind == frameEnd:
		return s.finish(n)
	default:
		return &banger.Error{Kind: banger.ErrCorrupt, Err: fmt.Errorf("a frame of unknown kind %q", kind)}
	}
}

func (s *streamReader) finish(n uint32) error {
	text := make([]byte, n)
	if _, err := io.ReadFull(s.r, text); err != nil {
		return cutOff(err)
	}
	var e end
	if err := json.Unmarshal(text, &e); err != nil {
		return &banger.Error{Kind: banger.ErrCorrupt, Op: "decode the end of a stream", Err: err}
	}
	if s.got = &e; e.Error != nil {
		return e.Error.Decode()
	}
	return io.EOF
}

// cutOff is what the end of a connection means where none may be.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return &banger.Error{Kind: banger.ErrUnavailable, Op: "copy", Err: errors.Join(errGone, err)}
}

var errGone = errors.New("the other end is gone")

// holes reads a file's content without reading its holes: in a guest they would fill its memory.
type holes struct {
	tree.HoleReader
	size       int64
	at         int64
	start, end int64 // of the data that is next; at is before end
}

func (h *holes) Read(p []byte) (n int, err error) {
	if h.at >= h.end {
		h.start, h.end, err = h.NextData(h.at)
		if errors.Is(err, io.EOF) {
			h.start, h.end, err = h.size, h.size, nil
		} else if err != nil {
			return 0, err
		} else if h.start < h.at || h.end <= h.start || h.end > h.size {
			return 0, &banger.Error{Kind: banger.ErrCorrupt, Err: fmt.Errorf("data from %d to %d of a file of %d bytes", h.start, h.end, h.size)}
		}
	}
	switch {
	case h.at >= h.size:
		return 0, io.EOF
	case h.at < h.start:
		n = int(min(int64(len(p)), h.start-h.at))
		clear(p[:n])
	default:
		n, err = h.ReadAt(p[:min(int64(len(p)), h.end-h.at)], h.at)
		if n > 0 && errors.Is(err, io.EOF) {
			err = nil
		}
	}
	h.at += int64(n)
	return n, err
}
