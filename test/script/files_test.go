package script

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"

	"banger/internal/disk"
	"banger/internal/ext4/write"
	"banger/internal/lifecycle"
	"banger/internal/machine"
	"banger/internal/statedir"
	"banger/internal/transfer"
	"banger/internal/tree"
)

// base is the file of the image.
func (w *world) base() string { return w.dir.Image(image.Key).Rootfs() }

// makeFiles makes the image's file and a VM's disk.
func makeFiles(ctx context.Context, dir statedir.Dir, home lifecycle.Home) error {
	base := dir.Image(home.ImageKey)
	src := tree.Of(tree.Directory("etc", 0o755), tree.Literal("etc/motd", 0o640, []byte("hello\n")), tree.Entry{Path: "etc/link", Kind: tree.Symlink, Link: "motd"},
		tree.Entry{Path: "etc/tty", Kind: tree.CharDevice, Mode: 0o620, Major: 5}, tree.Directory("root", 0o700))
	if err := os.MkdirAll(base.Path, 0o700); err != nil {
		return err
	}
	_, err := write.CreateFile(ctx, base.Rootfs(), write.Options{SizeBytes: 8 << 20}, src)
	return errors.Join(err, disk.Create(ctx, dir.VM(home.ID), disk.Options{SizeBytes: home.DiskBytes}))
}

// serveFiles connects a client to a guest whose files are this host's.
func serveFiles(conn net.Conn, r *bufio.Reader) {
	if err := machine.WriteResponse(conn, machine.Response{}); err != nil {
		return
	}
	transfer.Server{
		Owner: func() (transfer.Owner, error) {
			return transfer.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}, nil
		},
		Enter: func(uint64) bool { return true },
	}.Serve(&begun{conn, r})
}

// begun is a connection of which something was read.
type begun struct {
	net.Conn
	r *bufio.Reader
}

func (b *begun) Read(p []byte) (int, error) { return b.r.Read(p) }
