package machine

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"banger"
)

// A frame is a kind, the length of its payload (32 bits, big endian) and the payload.
const (
	frameHeader = 5
	maxPayload  = 64 << 10
)

// Kinds of frames from the client.
const (
	frameStdin    = 'i' // bytes, within the window
	frameStdinEnd = 'e'
	frameResize   = 'w' // rows and columns, 16 bits each
	frameSignal   = 'k' // a name as in banger.SignalNumber
)

// Kinds of frames to the client. After a result or a failure nothing follows.
const (
	frameStdout = 'o' // bytes
	frameStderr = 'r' // bytes
	frameWindow = 'a' // 32 bits: so many more bytes of stdin may be sent
	frameResult = 'x' // banger.ExecResult as JSON
	frameFailed = 'f' // banger.ErrorBody as JSON
)

// stdinWindow is how many bytes of stdin may be on the way that the command has not taken. A command that does not read
// thus never keeps signals and sizes from coming through.
const stdinWindow = 256 << 10

type frame struct {
	kind    byte
	payload []byte // valid until the next read
}

// frameReader reads frames. Errors: io.EOF between two frames; ErrCorrupt for a frame that is too long.
type frameReader struct {
	r   *bufio.Reader
	buf []byte
}

func (f *frameReader) next() (frame, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(f.r, header[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(header[1:])
	if size > maxPayload {
		return frame{}, fmt.Errorf("%w: frame %q of %d bytes", banger.ErrCorrupt, header[0], size)
	}
	if int(size) > cap(f.buf) {
		f.buf = make([]byte, size)
	}
	f.buf = f.buf[:size]
	if _, err := io.ReadFull(f.r, f.buf); err != nil {
		return frame{}, noEOF(err)
	}
	return frame{header[0], f.buf}, nil
}

// noEOF is for an end where none may be.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// frameWriter writes frames, each by one write. It is safe for concurrent use.
type frameWriter struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

func (f *frameWriter) write(kind byte, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buf = append(f.buf[:0], kind)
	f.buf = binary.BigEndian.AppendUint32(f.buf, uint32(len(payload)))
	f.buf = append(f.buf, payload...)
	_, err := f.w.Write(f.buf)
	return err
}

// stream is an io.Writer whose bytes become frames of one kind.
type stream struct {
	frames *frameWriter
	kind   byte
}

func (s stream) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		chunk := p[n:min(len(p), n+maxPayload)]
		if err = s.frames.write(s.kind, chunk); err == nil {
			n += len(chunk)
		}
	}
	return n, err
}

func encodeSize(size banger.PTY) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, size.Rows), size.Cols)
}

func decodeSize(p []byte) (banger.PTY, error) {
	if len(p) != 4 {
		return banger.PTY{}, fmt.Errorf("%w: terminal size of %d bytes", banger.ErrCorrupt, len(p))
	}
	return banger.PTY{Rows: binary.BigEndian.Uint16(p), Cols: binary.BigEndian.Uint16(p[2:])}, nil
}
