package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/ext4/read"
	"banger/internal/tree"
)

func (a *app) diskCopy() *cobra.Command {
	return &cobra.Command{
		Use: "cp IMAGE PATH DEST", Short: "copy a file or directory out of an image",
		Long: `When DEST is a directory, the copy goes into it. Nothing that exists is overwritten. Permissions and times are kept;
owners, set-id bits and attributes are not. Devices, FIFOs and sockets are left out. A copy that fails or is interrupted
leaves nothing.`,
		Example: `  banger disk cp out.ext4 /var/log ./log
  banger disk cp out.ext4 /etc/passwd .`,
		Args: diskArgs(2, 2, "an image, a path in it and a destination"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := openImage(args[0])
			if err != nil {
				return err
			}
			defer i.Close()
			n, err := i.Lookup(args[1], true)
			if err != nil {
				return hostError("copy", args[0], err)
			}
			dest := args[2]
			if info, err := os.Stat(dest); err == nil && info.IsDir() {
				dest = filepath.Join(dest, path.Base(inImage(args[1])))
			}
			c := &diskCopier{a: a, ctx: cmd.Context()}
			if err := c.copy(i, n, args[1], dest); err != nil {
				return hostError("copy", args[1], err)
			}
			if a.json {
				return a.printJSON(diskCopy{dest, c.entries, c.bytes, c.skipped})
			}
			return nil
		},
	}
}

// diskCopy is what has come out of an image.
type diskCopy struct {
	Path    string `json:"path"`    // on the host
	Entries int    `json:"entries"` // files, directories and links
	Bytes   int64  `json:"bytes"`   // content of files
	Skipped int    `json:"skipped"` // entries that can't be here: devices and the like
}

// diskCopier writes a tree below a directory of the host, which no name or link of the image leaves.
type diskCopier struct {
	a       *app
	ctx     context.Context
	root    *os.Root
	entries int
	bytes   int64
	skipped int
	dirs    []tree.Entry
}

func (c *diskCopier) copy(i *image, n *read.Node, from, dest string) (err error) {
	if !n.IsDir() {
		if c.root, err = os.OpenRoot(filepath.Dir(dest)); err != nil {
			return err
		}
		defer c.root.Close()
		e, err := n.Entry(filepath.Base(dest))
		if err != nil {
			return err
		}
		return c.entry(e)
	}
	if err := os.Mkdir(dest, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dest))
		}
	}()
	if c.root, err = os.OpenRoot(dest); err != nil {
		return err
	}
	defer c.root.Close()
	for e, err := range i.Source(from) {
		if err == nil {
			err = c.ctx.Err()
		}
		if err == nil {
			err = c.entry(e)
		}
		if err != nil {
			return err
		}
	}
	for k := len(c.dirs) - 1; k >= 0; k-- { // children first: they change their directory's time
		d := c.dirs[k]
		if err := errors.Join(c.root.Chtimes(d.Path, d.ModTime, d.ModTime), c.root.Chmod(d.Path, os.FileMode(d.Mode&0o777))); err != nil {
			return err
		}
	}
	return nil
}

func (c *diskCopier) entry(e tree.Entry) error {
	c.entries++
	switch e.Kind {
	case tree.Dir:
		c.dirs = append(c.dirs, e)
		if e.Path == "." {
			return nil
		}
		return c.root.Mkdir(e.Path, 0o700)
	case tree.File:
		return c.file(e)
	case tree.Symlink:
		return c.root.Symlink(e.Link, e.Path)
	case tree.HardLink:
		return c.root.Link(e.Link, e.Path)
	}
	c.entries--
	c.skipped++
	c.a.notice("left out: %s", e.Path)
	return nil
}

// file copies content; its holes stay holes. After an error the file is gone.
func (c *diskCopier) file(e tree.Entry) (err error) {
	f, err := c.root.OpenFile(e.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, c.root.Remove(e.Path))
		}
	}()
	if content, ok := e.Content.(tree.HoleReader); ok {
		err = c.content(f, content)
	}
	if err == nil {
		err = errors.Join(f.Truncate(e.Size), f.Chmod(os.FileMode(e.Mode&0o777)))
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return err
	}
	return c.root.Chtimes(e.Path, e.ModTime, e.ModTime)
}

func (c *diskCopier) content(f *os.File, content tree.HoleReader) error {
	for off := int64(0); ; {
		start, end, err := content.NextData(off)
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if end <= start {
			return &banger.Error{Kind: banger.ErrCorrupt, Err: fmt.Errorf("data from %d to %d", start, end)}
		}
		n, err := io.Copy(io.NewOffsetWriter(f, start), contextReader{c.ctx, io.NewSectionReader(content, start, end-start)})
		c.bytes += n
		if err != nil {
			return err
		}
		off = end
	}
}

// contextReader reads until the context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
