package egress

import "errors"

// Hello is what a TLS client says first (RFC 8446, 4.1.2), as far as it is not encrypted.
type Hello struct {
	ServerName string // "" when it names none
	Encrypted  bool   // it may name another one in an encrypted part (ECH)
}

var (
	// ErrShort asks for more bytes.
	ErrShort = errors.New("the message is not complete")
	// ErrNoTLS is for bytes that no TLS client begins with.
	ErrNoTLS = errors.New("this is no TLS")
	// ErrBadHello is for a TLS client that makes no sense, or sends more than anybody needs.
	ErrBadHello = errors.New("the TLS client hello is damaged")
)

// MaxHello bounds the first message with its records.
const MaxHello = 32 << 10

const (
	recordHandshake = 22
	recordHeader    = 5
	maxRecord       = 16 << 10
	clientHello     = 1
	extServerName   = 0
	extECH          = 0xfe0d
)

// ParseHello reads the first bytes of a connection. Errors: ErrShort until enough of it is there; ErrNoTLS; ErrBadHello.
func ParseHello(b []byte) (Hello, error) {
	if len(b) == 0 {
		return Hello{}, ErrShort
	}
	if b[0] != recordHandshake || len(b) > 1 && b[1] != 3 {
		return Hello{}, ErrNoTLS
	}
	var message []byte
	for rest := b; ; {
		if len(message) >= 4 {
			size := 4 + (int(message[1])<<16 | int(message[2])<<8 | int(message[3]))
			if message[0] != clientHello || size > MaxHello {
				return Hello{}, ErrBadHello
			}
			if len(message) >= size {
				return parseClientHello(message[4:size])
			}
		}
		if len(rest) < recordHeader {
			break
		}
		size := int(rest[3])<<8 | int(rest[4])
		if rest[0] != recordHandshake || rest[1] != 3 || size == 0 || size > maxRecord {
			return Hello{}, ErrBadHello
		}
		have := min(size, len(rest)-recordHeader)
		message = append(message, rest[recordHeader:recordHeader+have]...)
		rest = rest[recordHeader+have:]
		if have < size {
			rest = nil
		}
	}
	if len(b) >= MaxHello {
		return Hello{}, ErrBadHello
	}
	return Hello{}, ErrShort
}

// cursor cuts pieces from bytes; ok turns false when they do not suffice.
type cursor struct {
	b  []byte
	ok bool
}

func (c *cursor) take(n int) []byte {
	if !c.ok || n > len(c.b) {
		c.ok = false
		return nil
	}
	piece := c.b[:n]
	c.b = c.b[n:]
	return piece
}

func (c *cursor) number(size int) (n int) {
	for _, b := range c.take(size) {
		n = n<<8 | int(b)
	}
	return n
}

// vector takes a piece that begins with its length in so many bytes.
func (c *cursor) vector(size int) []byte { return c.take(c.number(size)) }

func parseClientHello(b []byte) (h Hello, err error) {
	c := &cursor{b, true}
	c.take(2 + 32) // version, random
	c.vector(1)    // session
	c.vector(2)    // cipher suites
	c.vector(1)    // compression
	if !c.ok {
		return h, ErrBadHello
	}
	if len(c.b) == 0 {
		return h, nil // without extensions
	}
	seen := map[int]bool{}
	extensions := &cursor{c.vector(2), c.ok}
	for extensions.ok && len(extensions.b) > 0 {
		kind := extensions.number(2)
		body := extensions.vector(2)
		if seen[kind] {
			return h, ErrBadHello // which one counts would be the server's choice
		}
		seen[kind] = true
		switch kind {
		case extServerName:
			if h.ServerName, err = parseServerName(body); err != nil {
				return h, err
			}
		case extECH:
			h.Encrypted = true
		}
	}
	if !c.ok || !extensions.ok || len(c.b) > 0 {
		return h, ErrBadHello
	}
	return h, nil
}

// parseServerName reads a list with one host name, which is all that RFC 6066 leaves room for.
func parseServerName(b []byte) (string, error) {
	c := &cursor{b, true}
	list := &cursor{c.vector(2), true}
	kind, name := list.number(1), list.vector(2)
	if !c.ok || !list.ok || len(c.b) > 0 || len(list.b) > 0 || kind != 0 || len(name) == 0 || len(name) > 255 {
		return "", ErrBadHello
	}
	return CleanName(string(name)), nil
}

// LooksQUIC tells a datagram that begins a QUIC connection (RFC 9000, 17.2; RFC 9369): the name in it is encrypted.
func LooksQUIC(b []byte) bool {
	const headerForm, fixedBit = 0x80, 0x40
	if len(b) < 7 || b[0]&(headerForm|fixedBit) != headerForm|fixedBit {
		return false
	}
	version := uint32(b[1])<<24 | uint32(b[2])<<16 | uint32(b[3])<<8 | uint32(b[4])
	return version == 1 || version == 0x6b3343cf || version>>8 == 0xff0000 || version>>24 == 'Q'
}
