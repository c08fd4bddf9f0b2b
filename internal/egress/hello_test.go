package egress

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"testing"
	"time"
)

// clientBytes is what Go's TLS client says first.
func clientBytes(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		tls.Client(client, cfg).Handshake()
		client.Close()
	}()
	server.SetDeadline(time.Now().Add(time.Minute))
	var got []byte
	for buf := make([]byte, 64<<10); ; {
		n, err := server.Read(buf)
		got = append(got, buf[:n]...)
		if _, parseErr := ParseHello(got); !errors.Is(parseErr, ErrShort) || err != nil {
			return got
		}
	}
}

// split cuts a hello into many records.
func split(b []byte, size int) (out []byte) {
	for body := b[recordHeader:]; len(body) > 0; {
		n := min(size, len(body))
		out = append(out, recordHandshake, 3, 1, byte(n>>8), byte(n))
		out = append(out, body[:n]...)
		body = body[n:]
	}
	return out
}

func TestParseHello(t *testing.T) {
	plain := clientBytes(t, &tls.Config{ServerName: "www.example.test"})
	none := clientBytes(t, &tls.Config{InsecureSkipVerify: true})
	damaged := func(at int, value byte) []byte {
		b := slices.Clone(plain)
		b[at] = value
		return b
	}
	for _, test := range []struct {
		name string
		in   []byte
		want Hello
		err  error
	}{
		{"plain", plain, Hello{ServerName: "www.example.test"}, nil},
		{"more follows", append(slices.Clone(plain), 1, 2, 3), Hello{ServerName: "www.example.test"}, nil},
		{"no name", none, Hello{}, nil},
		{"in small records", split(plain, 7), Hello{ServerName: "www.example.test"}, nil},
		{"nothing", nil, Hello{}, ErrShort}, {"one byte", plain[:1], Hello{}, ErrShort}, {"half", plain[:len(plain)/2], Hello{}, ErrShort},
		{"a request", []byte("GET / HTTP/1.1\r\n"), Hello{}, ErrNoTLS}, {"ssh", []byte("SSH-2.0-x\r\n"), Hello{}, ErrNoTLS}, {"22 alone", []byte{22, 9}, Hello{}, ErrNoTLS},
		{"no hello", damaged(5, 2), Hello{}, ErrBadHello}, {"empty record", []byte{22, 3, 1, 0, 0}, Hello{}, ErrBadHello},
		{"large record", []byte{22, 3, 1, 0xff, 0xff, 1}, Hello{}, ErrBadHello},
		{"another record between", append(split(plain, 7)[:12], 23, 3, 3, 0, 1, 0), Hello{}, ErrBadHello},
		{"huge message", damaged(6, 0xff), Hello{}, ErrBadHello},
	} {
		got, err := ParseHello(test.in)
		if got != test.want || !errors.Is(err, test.err) {
			t.Errorf("%s: ParseHello = %+v, %v, want %+v, %v", test.name, got, err, test.want, test.err)
		}
	}
	ech := append(slices.Clone(plain), 0xfe, 0x0d, 0, 1, 0)
	for _, at := range []struct{ at, size int }{{3, 2}, {6, 3}, {extensionsAt(plain), 2}} {
		n := 0
		for _, b := range ech[at.at : at.at+at.size] {
			n = n<<8 | int(b)
		}
		for n, i := n+5, at.size-1; i >= 0; n, i = n>>8, i-1 {
			ech[at.at+i] = byte(n)
		}
	}
	if got, err := ParseHello(ech); err != nil || !got.Encrypted || got.ServerName != "www.example.test" {
		t.Errorf("with ECH: %+v, %v", got, err)
	}
}

// extensionsAt is where the length of the extensions is.
func extensionsAt(b []byte) int {
	at := 5 + 4 + 34
	at += 1 + int(b[at])
	at += 2 + int(b[at])<<8 + int(b[at+1])
	return at + 1 + int(b[at])
}

func TestLooksQUIC(t *testing.T) {
	for _, test := range []struct {
		in   []byte
		want bool
	}{
		{[]byte{0xc3, 0, 0, 0, 1, 8, 1, 2}, true}, {[]byte{0xd3, 0x6b, 0x33, 0x43, 0xcf, 8, 1}, true}, {[]byte{0xc0, 0xff, 0, 0, 29, 8, 0}, true},
		{[]byte{0xc3, 'Q', '0', '5', '0', 8, 0}, true}, {[]byte{0x43, 0, 0, 0, 1, 8, 1}, false}, {[]byte("\xe3\x00\x06\xecntp packet"), false}, {nil, false},
	} {
		if got := LooksQUIC(test.in); got != test.want {
			t.Errorf("LooksQUIC(%x) = %v", test.in, got)
		}
	}
}

// FuzzParseHello holds that an answer does not change when more bytes come, and that it does not depend on the records.
func FuzzParseHello(f *testing.F) {
	plain := clientBytes(f, &tls.Config{ServerName: "www.example.test"})
	f.Add(plain, 3)
	f.Add(plain[:40], 1)
	f.Add([]byte("GET /"), 1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		whole, err := ParseHello(b)
		if cut < 0 || cut > len(b) {
			return
		}
		part, partErr := ParseHello(b[:cut])
		switch {
		case errors.Is(partErr, ErrShort):
		case partErr == nil && (err != nil || part != whole), partErr != nil && !errors.Is(err, partErr):
			t.Fatalf("of %d bytes: %+v, %v, of all: %+v, %v", cut, part, partErr, whole, err)
		}
		if len(whole.ServerName) > 255 || err != nil && whole.ServerName != "" && !errors.Is(err, ErrBadHello) {
			t.Fatalf("name %q with %v", whole.ServerName, err)
		}
		if len(b) >= MaxHello && errors.Is(err, ErrShort) {
			t.Fatal("asks for more without a bound")
		}
	})
}
