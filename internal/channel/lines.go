package channel

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"banger"
)

// Longest lines of the events stream, in bytes.
const (
	MaxFromGuest = 64 << 10
	MaxToGuest   = 1 << 20
)

// ReadLine reads one JSON line of at most limit bytes into m, a *[FromGuest] or *[ToGuest]. r's buffer holds at least
// limit bytes. Errors: io.EOF at the end of the stream; ErrInvalid for a line that is too long, no JSON, or does not set
// exactly one field.
func ReadLine(r *bufio.Reader, m Message, limit int) error {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull) || len(line) > limit:
		return banger.Invalidf("channel line longer than %d bytes", limit)
	case errors.Is(err, io.EOF) && len(line) > 0:
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	}
	if err := json.Unmarshal(line, m); err != nil {
		return &banger.Error{Kind: banger.ErrInvalid, Op: "decode channel line", Err: err}
	}
	if n := m.fields(); n != 1 {
		return banger.Invalidf("channel line sets %d fields, want one", n)
	}
	return nil
}

// WriteLine writes m as one JSON line.
func WriteLine(w io.Writer, m Message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode channel line: %w", err)
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// Message is a line of the events stream.
type Message interface{ fields() int }

func (m *FromGuest) fields() int {
	return count(m.Hello != nil, m.Ready != nil, m.System != nil, m.Going != nil)
}

func (m *ToGuest) fields() int { return count(m.Identify != nil, m.PowerOff != nil) }

func count(set ...bool) (n int) {
	for _, s := range set {
		if s {
			n++
		}
	}
	return n
}
