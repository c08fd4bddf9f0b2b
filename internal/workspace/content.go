package workspace

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Content gives a file at the root of the repository as it travels, at most max bytes and one more. Errors: fs.ErrNotExist for one that does
// not travel, or is no file.
func (p Plan) Content(ctx context.Context, name string, max int) ([]byte, error) {
	for _, f := range p.files {
		if f.path != name || f.mode == modeSymlink {
			continue
		}
		if p.from {
			out := &bounded{left: max + 1}
			err := (git{dir: p.Repo.Root}).run(ctx, nil, out, "cat-file", "blob", f.id)
			if out.left == 0 {
				err = nil // what is too much is cut off
			}
			return out.Bytes(), err
		}
		file, err := os.OpenFile(filepath.Join(p.Repo.Root, name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
			return nil, errors.Join(err, fs.ErrNotExist)
		}
		return io.ReadAll(io.LimitReader(file, int64(max)+1))
	}
	return nil, fs.ErrNotExist
}

// bounded takes no more than so many bytes.
type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	n, _ := b.Buffer.Write(p[:min(len(p), b.left)])
	if b.left -= n; n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}
