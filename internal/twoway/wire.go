package twoway

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"banger"
)

// A conversation is frames: a kind, a length (32 bits, big endian) and that many bytes. The host asks one thing at a time; the guest
// answers, and tells of changes at any time.
const (
	frameOp     = 'q' // host: an op as JSON; a write's content follows
	frameAnswer = 'a' // guest: an answer as JSON; the content of what was read follows
	frameData   = 'd' // content
	frameEnd    = 'e' // of content: ending as JSON
	frameChange = 'c' // guest: change as JSON
	frameHeader = 5
	maxFrame    = 1 << 20
	maxData     = 64 << 10
	maxBatch    = 128 << 10 // bytes of the paths in one frame
)

// op is what the host asks. Exactly one field is set.
type op struct {
	List   [][]byte `json:"list,omitempty"`
	Look   [][]byte `json:"look,omitempty"`
	Blobs  bool     `json:"blobs,omitempty"` // with Look
	Read   []byte   `json:"read,omitempty"`
	Write  *change  `json:"write,omitempty"` // content follows, for a link too
	Remove *change  `json:"remove,omitempty"`
	Aside  *change  `json:"aside,omitempty"`
}

// change is a [Put] with what is to be there, or the two names of an Aside.
type change struct {
	Path   []byte `json:"p"`
	Keep   []byte `json:"keep"`
	Expect State  `json:"expect,omitzero"`
	Always bool   `json:"always,omitempty"`
	Item   Item   `json:"item,omitzero"`
}

func (c change) put() Put { return Put{string(c.Path), c.Expect, string(c.Keep), c.Always} }

// answer is what the guest says. More means that another one follows.
type answer struct {
	Error    *banger.ErrorBody `json:"error,omitempty"`
	More     bool              `json:"more,omitempty"`
	Children []child           `json:"children,omitempty"`
	Found    []Found           `json:"found,omitempty"`
	Item     *Item             `json:"item,omitempty"`
	Result   *Result           `json:"result,omitempty"`
	Kept     []byte            `json:"kept,omitempty"`
}

type child struct {
	Path []byte `json:"p"`
	Dir  bool   `json:"d,omitempty"`
}

// ending tells whether content is whole.
type ending struct {
	Error *banger.ErrorBody `json:"error,omitempty"`
}

// news is what may have changed.
type news struct {
	Paths [][]byte          `json:"paths,omitempty"`
	All   bool              `json:"all,omitempty"`
	Error *banger.ErrorBody `json:"error,omitempty"`
}

type frame struct {
	kind    byte
	payload []byte
}

func writeFrame(w io.Writer, kind byte, payload []byte) error {
	if len(payload) > maxFrame {
		return banger.Invalidf("a frame of %d bytes", len(payload))
	}
	b := make([]byte, frameHeader, frameHeader+len(payload))
	b[0] = kind
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload)))
	if _, err := w.Write(append(b, payload...)); err != nil {
		return gone(err)
	}
	return nil
}

func writeMessage(w io.Writer, kind byte, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFrame(w, kind, payload)
}

func readFrame(r *bufio.Reader) (frame, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return frame{}, gone(err)
	}
	n := binary.BigEndian.Uint32(header[1:])
	if n > maxFrame {
		return frame{}, corrupt("a frame of %d bytes", n)
	}
	f := frame{kind: header[0], payload: make([]byte, n)}
	if _, err := io.ReadFull(r, f.payload); err != nil {
		return frame{}, gone(err)
	}
	return f, nil
}

// decode reads a message of the kind that is wanted.
func (f frame) decode(kind byte, v any) error {
	if f.kind != kind {
		return corrupt("a frame of kind %q, want %q", f.kind, kind)
	}
	if err := json.Unmarshal(f.payload, v); err != nil {
		return &banger.Error{Kind: banger.ErrCorrupt, Op: "watch: decode", Err: err}
	}
	return nil
}

func corrupt(format string, args ...any) error {
	return &banger.Error{Kind: banger.ErrCorrupt, Op: "watch", Err: fmt.Errorf(format, args...)}
}

var errGone = errors.New("the other end is gone")

// gone is what the end of a connection means.
func gone(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return &banger.Error{Kind: banger.ErrUnavailable, Op: "watch", Err: errors.Join(errGone, err)}
}

func encodeError(err error) *banger.ErrorBody {
	if err == nil {
		return nil
	}
	body := banger.EncodeError(err, "")
	return &body
}

// sendContent writes content and how it ended. The error is one of w only.
func sendContent(w io.Writer, content io.Reader) error {
	buf := make([]byte, maxData)
	for {
		n, err := content.Read(buf)
		if n > 0 {
			if err := writeFrame(w, frameData, buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return writeMessage(w, frameEnd, ending{})
		}
		if err != nil {
			return writeMessage(w, frameEnd, ending{encodeError(pathError(err))})
		}
	}
}

// received is content that comes in frames.
type received struct {
	next func() (frame, error)
	rest []byte
	err  error // io.EOF: whole
}

func (c *received) Read(p []byte) (int, error) {
	for len(c.rest) == 0 && c.err == nil {
		var f frame
		if f, c.err = c.next(); c.err != nil {
			break
		}
		if f.kind == frameData {
			c.rest = f.payload
			continue
		}
		var end ending
		if c.err = f.decode(frameEnd, &end); c.err == nil {
			if c.err = io.EOF; end.Error != nil {
				c.err = &failed{end.Error.Decode()}
			}
		}
	}
	if len(c.rest) == 0 {
		return 0, c.err
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// failed is an error that the other end tells of: the conversation goes on.
type failed struct{ error }

func (f *failed) Unwrap() error { return f.error }

// drain reads what is left, so that the conversation can go on. Errors: those of the connection, and ErrCorrupt beyond what a file may have.
func (c *received) drain() error {
	n, err := io.Copy(io.Discard, io.LimitReader(c, MaxSize+1))
	if _, told := errors.AsType[*failed](err); told {
		return nil
	}
	if n > MaxSize {
		return corrupt("a file of more than %d bytes", MaxSize)
	}
	return err
}
