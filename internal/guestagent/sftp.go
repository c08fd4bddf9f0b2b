package guestagent

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pkg/sftp"
)

const (
	sftpName = "banger-sftp"
	// sftpPacket is the largest answer with data: what OpenSSH's and our own clients ask for at most.
	sftpPacket = 255 << 10
)

// sftpMain serves SFTP on standard input and output. It is a process of its own, so that files belong to who signed in and the
// kernel checks what that user may do.
func sftpMain() int {
	stream := struct {
		io.Reader
		io.WriteCloser
	}{os.Stdin, os.Stdout}
	server, err := sftp.NewServer(stream, sftp.WithMaxTxPacket(sftpPacket), sftp.WithAllocator())
	if err == nil {
		err = server.Serve()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "sftp:", err)
		return 1
	}
	return 0
}
