package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"banger"
)

func (a *app) imageExport() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "export [flags] IMAGE OUT", Short: "write an image's root file system as a tar",
		Long: `OUT is a file, compressed when its name ends in .tar.gz or .tar.zst, or "-" for standard output. The tar has owners, modes, times,
extended attributes, devices and hard links; sockets, which tar does not know, are left out. What "banger image import" makes of
it has the same files. A file that is there is replaced with --force only, and only by a whole one.`,
		Example: `  banger image export mine mine.tar.zst
  banger image export mine - | tar -t
  banger image export mine - | ssh other banger image import - --name mine`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 || args[1] == "" {
				return inputError(cmd, "want an image and a file, or - for standard output")
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.completeImages(cmd, args, word)
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.export(cmd.Context(), args[0], args[1], force) },
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace OUT if it is there")
	return cmd
}

func (a *app) export(ctx context.Context, ref, out string, force bool) (err error) {
	pack, err := packerOf(out)
	if err != nil {
		return err
	}
	if out == "-" {
		if _, ok := terminal(a.Out); ok {
			return &banger.Error{Kind: banger.ErrInvalid, Op: "image export", Err: errors.New("a tar is nothing for a terminal"), Hint: "name a file, or send it on: banger image export " + ref + " - | tar -t"}
		}
	} else if _, err := replaceable(out, force); err != nil {
		return err
	}
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	show, end := a.progress()
	count := &exported{show: show, text: "exporting image " + ref}
	done := show.Begin("export", count.text)
	if out == "-" {
		err = c.ExportImage(ctx, ref, io.MultiWriter(count, a.Out))
	} else {
		err = writeWhole(out, force, func(file io.Writer) error {
			w, err := pack(file)
			if err != nil {
				return err
			}
			err = c.ExportImage(ctx, ref, io.MultiWriter(count, w))
			return errors.Join(err, w.Close())
		})
	}
	if err == nil {
		done()
	}
	end()
	if err == nil || banger.KindName(err) != "internal" { // else it is of our own file
		return err
	}
	return hostError("export", out, err)
}

// exported counts a tar on its way.
type exported struct {
	show banger.ProgressFunc
	text string
	n    int64
	told time.Time
}

func (e *exported) Write(p []byte) (int, error) {
	const often = 100 * time.Millisecond
	e.n += int64(len(p))
	if now := time.Now(); now.Sub(e.told) > often {
		e.told = now
		e.show.Report(banger.Progress{Stage: "export", Text: e.text, Bytes: e.n})
	}
	return len(p), nil
}

var (
	gzipEnding   = regexp.MustCompile(`(?i)\.(tar\.gz|tgz)$`)
	zstdEnding   = regexp.MustCompile(`(?i)\.(tar\.zst|tzst)$`)
	otherPacking = regexp.MustCompile(`(?i)\.(tar\.(xz|bz2|lz4|lzma|z)|txz|tbz2?|zip)$`)
)

// packerOf gives what compresses a file of that name. Errors: ErrUnsupported.
func packerOf(name string) (func(io.Writer) (io.WriteCloser, error), error) {
	switch {
	case gzipEnding.MatchString(name):
		return func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }, nil
	case zstdEnding.MatchString(name):
		return func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }, nil
	case otherPacking.MatchString(name):
		return nil, &banger.Error{Kind: banger.ErrUnsupported, Op: "export", Subject: name, Err: errors.New("banger does not write that"),
			Hint: "choose a name that ends in .tar, .tar.gz or .tar.zst"}
	}
	return func(w io.Writer) (io.WriteCloser, error) { return unpacked{w}, nil }, nil
}

type unpacked struct{ io.Writer }

func (unpacked) Close() error { return nil }

// writeWhole makes a file that is there only once it is whole.
func writeWhole(path string, force bool, write func(io.Writer) error) (err error) {
	beside := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text())
	file, err := os.OpenFile(beside, os.O_CREATE|os.O_EXCL|os.O_WRONLY|unix.O_NOFOLLOW, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(beside))
		}
	}()
	if err := errors.Join(write(file), file.Sync(), file.Close()); err != nil {
		return err
	}
	if force {
		return os.Rename(beside, path)
	}
	err = unix.Renameat2(unix.AT_FDCWD, beside, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) { // the file system can't
		if _, there := os.Lstat(path); !errors.Is(there, os.ErrNotExist) {
			return os.ErrExist
		}
		return os.Rename(beside, path)
	}
	return err
}
