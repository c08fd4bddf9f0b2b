package guestagent

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pkg/sftp"
)

const (
	sftpName = "banger-sftp"
	// sftpPacket is how much data a request or an answer carries at most: what OpenSSH's and our own clients ask for.
	sftpPacket = 255 << 10
	// sftpMessage is the largest packet that package sftp takes.
	sftpMessage = 256 << 10
	// sftpPipe is how much lies between the agent and the process that serves SFTP: a few requests, so that neither waits for each.
	sftpPipe = 1 << 20
)

// sftpMain serves SFTP on standard input and output. It is a process of its own, so that files belong to who signed in and the
// kernel checks what that user may do.
func sftpMain() int {
	server, err := sftp.NewServer(newSFTPStream(os.Stdin, os.Stdout), sftp.WithMaxTxPacket(sftpPacket), sftp.WithAllocator())
	if err == nil {
		err = server.Serve()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "sftp:", err)
		return 1
	}
	return 0
}

// wholeRequests passes on a client's requests as whole ones. In a guest of one CPU the process that serves them would otherwise get its turn
// for each piece of one.
type wholeRequests struct{ r io.Reader }

func (q wholeRequests) Read(p []byte) (int, error) { return q.r.Read(p) }

// WriteTo is what io.Copy calls.
func (q wholeRequests) WriteTo(w io.Writer) (written int64, err error) {
	buf := make([]byte, 4+sftpMessage)
	for have := 0; err == nil; {
		var n int
		n, err = q.r.Read(buf[have:])
		have += n
		whole := wholeUpTo(buf[:have])
		if err != nil || whole == 0 && have == len(buf) {
			whole = have // package sftp tells what is wrong with it
		}
		if whole == 0 {
			continue
		}
		n, werr := w.Write(buf[:whole])
		if written += int64(n); werr != nil {
			return written, werr
		}
		have = copy(buf, buf[whole:have])
	}
	if err == io.EOF {
		err = nil
	}
	return written, err
}

// wholeUpTo gives how many bytes of b are whole packets.
func wholeUpTo(b []byte) (n int) {
	for len(b)-n >= 4 {
		size := 4 + int(binary.BigEndian.Uint32(b[n:]))
		if size > len(b)-n {
			break
		}
		n += size
	}
	return n
}

// sftpStream adds to what package sftp serves OpenSSH's extension of limits: a client that knows them asks for as much at a time, else for
// 32 KiB. What it writes must be packets, each by one or two writes.
type sftpStream struct {
	r    *bufio.Reader
	left int // bytes of the packet that is read now

	io.WriteCloser
	held []byte // the beginning of a packet, until its data is written
}

const (
	sftpHeader        = 5 // length, kind
	sftpVersion       = 2 // kinds
	sftpExtended      = 200
	sftpExtendedReply = 201
	sftpJoined        = 4 << 10 // written at once for the sake of a header
)

// sftpLimits is the extension's name, as a string of the protocol.
const sftpLimits = "\x00\x00\x00\x12limits@openssh.com"

func newSFTPStream(r io.Reader, w io.WriteCloser) *sftpStream {
	return &sftpStream{r: bufio.NewReader(r), WriteCloser: w}
}

func (s *sftpStream) Read(p []byte) (int, error) {
	for s.left == 0 {
		head, err := s.r.Peek(sftpHeader - 1)
		if err != nil {
			s.left = len(head) // package sftp tells what is missing
			if s.left == 0 {
				return 0, err
			}
			break
		}
		size := int(binary.BigEndian.Uint32(head))
		answered, err := s.answer(size)
		if err != nil {
			return 0, err
		}
		if !answered {
			s.left = len(head) + size
		}
	}
	n, err := s.r.Read(p[:min(len(p), s.left)])
	s.left -= n
	return n, err
}

// answer answers the next packet if it asks for the limits.
func (s *sftpStream) answer(size int) (bool, error) {
	const want = 1 + 4 + len(sftpLimits)
	if size != want {
		return false, nil
	}
	packet, err := s.r.Peek(4 + want)
	if err != nil || packet[4] != sftpExtended || !bytes.HasSuffix(packet, []byte(sftpLimits)) {
		return false, nil
	}
	b := append([]byte{0, 0, 0, 0, sftpExtendedReply}, packet[sftpHeader:sftpHeader+4]...)
	for _, limit := range []uint64{sftpMessage, sftpPacket, sftpPacket, 0} { // packet, data read, data written, open files
		b = binary.BigEndian.AppendUint64(b, limit)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	if _, err := s.WriteCloser.Write(b); err != nil {
		return false, err
	}
	_, err = s.r.Discard(4 + want)
	return true, err
}

// Write writes a packet's beginning together with the first of its data.
func (s *sftpStream) Write(p []byte) (int, error) {
	if len(s.held) == 0 {
		whole := len(p) >= sftpHeader && len(p) >= 4+int(binary.BigEndian.Uint32(p))
		switch {
		case !whole:
			s.held = append(s.held, p...)
			return len(p), nil
		case p[sftpHeader-1] == sftpVersion:
			return len(p), s.tellVersion(p)
		}
		return s.WriteCloser.Write(p)
	}
	joined := min(len(p), max(0, sftpJoined-len(s.held)))
	_, err := s.WriteCloser.Write(append(s.held, p[:joined]...))
	s.held = s.held[:0]
	if err != nil || joined == len(p) {
		return joined, err
	}
	n, err := s.WriteCloser.Write(p[joined:])
	return joined + n, err
}

// tellVersion adds the extension to the server's first packet.
func (s *sftpStream) tellVersion(packet []byte) error {
	b := append(bytes.Clone(packet), sftpLimits+"\x00\x00\x00\x011"...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	_, err := s.WriteCloser.Write(b)
	return err
}
