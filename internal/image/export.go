package image

import (
	"context"
	"errors"
	"io"
	"os"

	"banger"
	"banger/internal/ext4/read"
	"banger/internal/tree"
)

// Export writes the root file system of an image as a tar (PAX): owners, modes, times, attributes, devices and hard links, but no
// sockets, which tar does not know.
// Errors: ErrNotFound; those of Base; ErrCorrupt for a damaged base; those of w.
func (m *Manager) Export(ctx context.Context, ref string, w io.Writer) (err error) {
	image, err := m.Resolve(ref)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = &banger.Error{Op: "export image", Subject: image.Name, Err: err}
		}
	}()
	if image.Registered != nil {
		host, err := m.openRegistered(ctx, image, nil)
		if err != nil {
			return err
		}
		defer host.Close()
		return errors.Join(tree.WriteTar(contextWriter{ctx, w}, host.Source(".")), host.Unchanged())
	}
	base, err := os.Open(m.Dir.Image(image.Key).Rootfs())
	if err != nil {
		return err
	}
	defer base.Close()
	fsys, err := read.Open(base, image.SizeBytes)
	if err != nil {
		return err
	}
	return tree.WriteTar(contextWriter{ctx, w}, fsys.Source("."))
}

// contextWriter writes until the context ends.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (w contextWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}
