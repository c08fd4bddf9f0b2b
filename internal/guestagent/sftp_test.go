package guestagent

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/pkg/sftp"
)

// sftpMessageOf is a packet with its length.
func sftpMessageOf(parts ...string) string {
	var body []byte
	for _, part := range parts {
		body = append(body, part...)
	}
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(body)))) + string(body)
}

var (
	sftpInit  = sftpMessageOf("\x01", "\x00\x00\x00\x03")
	askLimits = sftpMessageOf("\xc8", "\x00\x00\x00\x07", sftpLimits)
)

// written is the output of a stream.
type written struct{ bytes.Buffer }

func (*written) Close() error { return nil }

func TestSFTPLimits(t *testing.T) {
	in, client := io.Pipe()
	answers, out := io.Pipe()
	server, err := sftp.NewServer(newSFTPStream(iotest.OneByteReader(in), out))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve() }()
	ask := func(question string) string {
		t.Helper()
		if _, err := io.WriteString(client, question); err != nil {
			t.Fatal(err)
		}
		packet := make([]byte, 4)
		if _, err := io.ReadFull(answers, packet); err != nil {
			t.Fatal(err)
		}
		packet = append(packet, make([]byte, binary.BigEndian.Uint32(packet))...)
		if _, err := io.ReadFull(answers, packet[4:]); err != nil {
			t.Fatal(err)
		}
		return string(packet)
	}
	version := ask(sftpInit)
	for _, extension := range []string{sftpLimits + "\x00\x00\x00\x011", "posix-rename@openssh.com"} {
		if !strings.Contains(version, extension) {
			t.Errorf("the server's version %q lacks %q", version, extension)
		}
	}
	want := sftpMessageOf("\xc9", "\x00\x00\x00\x07", "\x00\x00\x00\x00\x00\x04\x00\x00", "\x00\x00\x00\x00\x00\x03\xfc\x00", "\x00\x00\x00\x00\x00\x03\xfc\x00", "\x00\x00\x00\x00\x00\x00\x00\x00")
	if got := ask(askLimits); got != want {
		t.Errorf("the limits are %q, want %q", got, want)
	}
	client.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestSFTPStreamWritesPacketsWhole(t *testing.T) {
	for _, size := range []int{1, sftpJoined - 13, sftpJoined, sftpPacket} {
		data := bytes.Repeat([]byte("x"), size)
		head := append(binary.BigEndian.AppendUint32(nil, uint32(9+size)), "\x67\x00\x00\x00\x01\x00\x00\x00\x00"...)
		status := []byte(sftpMessageOf("\x65", "12345678"))
		var out written
		s := newSFTPStream(nil, &out)
		for _, p := range [][]byte{status, head, data, status, head, data} {
			if n, err := s.Write(p); n != len(p) || err != nil {
				t.Fatalf("%d of %d, %v", n, len(p), err)
			}
		}
		if want := bytes.Repeat(bytes.Join([][]byte{status, head, data}, nil), 2); !bytes.Equal(out.Bytes(), want) {
			t.Errorf("data of %d bytes arrives changed", size)
		}
	}
}

// What a client sends reaches the server as it is, but for the questions that are answered here.
func FuzzSFTPStream(f *testing.F) {
	f.Add([]byte(sftpInit+askLimits), uint8(3))
	f.Add([]byte(askLimits+sftpInit+askLimits[:20]), uint8(1))
	f.Add([]byte(sftpMessageOf()+"\x00\x00"), uint8(0))
	f.Add([]byte(sftpMessageOf("\xc8\x00\x00\x00\x07", "\x00\x00\x00\x12limits@openssh.org")), uint8(255))
	f.Fuzz(func(t *testing.T, sent []byte, step uint8) {
		var want []byte
		asked := 0
		for rest := sent; len(rest) > 0; {
			size := len(rest)
			if len(rest) >= 4 {
				size = min(size, 4+int(binary.BigEndian.Uint32(rest)))
			}
			packet := rest[:size]
			rest = rest[size:]
			if len(packet) == len(askLimits) && string(packet[:4]) == askLimits[:4] && packet[4] == sftpExtended && string(packet[9:]) == sftpLimits {
				asked++
				continue
			}
			want = append(want, packet...)
		}
		var passed bytes.Buffer
		if n, err := (wholeRequests{iotest.HalfReader(bytes.NewReader(sent))}).WriteTo(&passed); err != nil || int(n) != len(sent) || !bytes.Equal(passed.Bytes(), sent) {
			t.Fatalf("of %q the process gets %q (%d), %v", sent, passed.Bytes(), n, err)
		}
		var out written
		s := newSFTPStream(iotest.HalfReader(bytes.NewReader(sent)), &out)
		var got []byte
		for p := make([]byte, int(step)+1); ; {
			n, err := s.Read(p)
			if got = append(got, p[:n]...); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("of %q the server gets %q, want %q", sent, got, want)
		}
		if n := out.Len() / (4 + 1 + 4 + 4*8); n != asked {
			t.Errorf("%d questions of %q are answered, want %d", n, sent, asked)
		}
	})
}

// chunks are the writes that arrive.
type chunks [][]byte

func (c *chunks) Write(p []byte) (int, error) {
	*c = append(*c, bytes.Clone(p))
	return len(p), nil
}

// The process gets requests whole, however they come, and all that comes.
func TestWholeRequests(t *testing.T) {
	write := sftpMessageOf("\x06", string(bytes.Repeat([]byte("x"), sftpPacket)))
	for name, tc := range map[string]struct {
		sent   string
		writes int
	}{
		"small ones":           {askLimits + sftpInit, 2},
		"large ones":           {write + write + sftpInit, 3},
		"half a one":           {sftpInit + write[:100], 2},
		"one that is too long": {"\xff\xff\xff\xff" + string(make([]byte, sftpMessage)) + "more", 2},
	} {
		var got chunks
		if n, err := io.Copy(struct{ io.Writer }{&got}, wholeRequests{iotest.OneByteReader(strings.NewReader(tc.sent))}); err != nil || n != int64(len(tc.sent)) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		if all := bytes.Join(got, nil); string(all) != tc.sent || len(got) != tc.writes {
			t.Errorf("%s: %d bytes arrive in %d writes, want %d in %d", name, len(all), len(got), len(tc.sent), tc.writes)
		}
	}
}
