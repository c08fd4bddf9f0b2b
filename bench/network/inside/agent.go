package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"banger/internal/channel"
	"banger/internal/guest"
	"banger/internal/guestagent"
)

// measureHandshake gives the microseconds that a guest takes for what "ssh NAME true" asks of it: a connection to the agent's SSH server
// in this process, the sign-in, and true.
func measureHandshake(times string, figures map[string]float64) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	keys, err := guest.GenerateKeys("")
	if err != nil {
		return err
	}
	server := guestagent.NewServer(false)
	if err := server.SetIdentity(channel.Identify{HostKey: string(keys.HostPrivate), UserKeys: []string{keys.UserPublic}}); err != nil {
		return err
	}
	user, err := ssh.ParsePrivateKey(keys.UserPrivate)
	if err != nil {
		return err
	}
	host, err := ssh.ParsePrivateKey(keys.HostPrivate)
	if err != nil {
		return err
	}
	cfg := &ssh.ClientConfig{
		Config:          ssh.Config{KeyExchanges: []string{ssh.KeyExchangeCurve25519}, Ciphers: []string{ssh.CipherChaCha20Poly1305}},
		User:            "root",
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(user)},
		HostKeyCallback: ssh.FixedHostKey(host.PublicKey()),
	}
	dir, err := os.MkdirTemp("", "handshake")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go server.ServeSSH(conn)
		}
	}()
	figures["handshake"], err = medianOf(n, func() error { return signIn(l.Addr().String(), cfg) })
	return err
}

func signIn(sock string, cfg *ssh.ClientConfig) error {
	conn, err := net.Dial("unix", sock)
	if err != nil {
		return err
	}
	c, chans, reqs, err := ssh.NewClientConn(conn, "guest", cfg)
	if err != nil {
		return err
	}
	client := ssh.NewClient(c, chans, reqs)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	return session.Run("true")
}

// Ports of the second channel, on which nothing but bytes travel.
const (
	rawSink   = 9  // counts what comes until the end, then tells the number
	rawFile   = 10 // the same, and what comes lands in a file in memory
	rawSource = 19 // sends as many bytes as it is asked for: 64 bits, big endian
	rawBack   = 20 // sends what is in that file
)

const memoryFile = "/dev/shm/raw"

// serveChannel is the guest's end of a channel like the agent's own, until the host is gone.
func serveChannel() error {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return err
	}
	for _, path := range names {
		name, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(name)) != "bench.channel" {
			continue
		}
		port, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(path)), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		session, err := channel.Guest(port)
		if err != nil {
			return err
		}
		return session.Serve(rawRoute)
	}
	return fmt.Errorf("no port is named bench.channel among %q", names)
}

func rawRoute(port uint32) channel.Handler {
	switch port {
	case rawSink:
		return func(conn net.Conn) {
			n, _ := io.Copy(io.Discard, conn)
			fmt.Fprintf(conn, "%d", n)
		}
	case rawFile:
		return func(conn net.Conn) {
			f, err := os.Create(memoryFile)
			if err != nil {
				return
			}
			defer f.Close()
			n, _ := channel.Copy(f, conn)
			fmt.Fprintf(conn, "%d", n)
		}
	case rawBack:
		return func(conn net.Conn) {
			f, err := os.Open(memoryFile)
			if err != nil {
				return
			}
			defer f.Close()
			channel.Copy(conn, f)
		}
	case rawSource:
		return func(conn net.Conn) {
			var size [8]byte
			if _, err := io.ReadFull(conn, size[:]); err == nil {
				io.CopyN(conn, zeros{}, int64(binary.BigEndian.Uint64(size[:])))
			}
		}
	}
	return nil
}

// zeros is an endless reader that costs nothing.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
