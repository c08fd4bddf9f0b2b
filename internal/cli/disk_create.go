package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/ext4/write"
	"banger/internal/tree"
)

type diskCreateFlags struct {
	size    diskBytes
	fromDir string
	fromTar string
	owner   ownerFlag
	label   string
	noSync  bool
	force   bool
}

func (a *app) diskCreate() *cobra.Command {
	var f diskCreateFlags
	cmd := &cobra.Command{
		Use: "create OUT --size SIZE [flags]", Short: "make an ext4 image",
		Long: "OUT takes up only what is written to it. Nothing is left of a run that fails or is interrupted.",
		Example: `  banger disk create out.ext4 --size 8G
  banger disk create out.ext4 --size 8G --from-dir ./tree --owner 0:0
  tar -c . | banger disk create out.ext4 --size 2G --from-tar -`,
		Args: diskArgs(0, 0, "the image to make"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.createDisk(cmd, args[0], f) },
	}
	flags := cmd.Flags()
	flags.Var(&f.size, "size", "size of the file system: 8G")
	flags.StringVar(&f.fromDir, "from-dir", "", "fill it with what is in this `directory`")
	flags.StringVar(&f.fromTar, "from-tar", "", "fill it with what is in this tar `file`; - is standard input")
	flags.Var(&f.owner, "owner", "owner of everything in it (default: as the source has it)")
	flags.StringVar(&f.label, "label", "", "`name` of the file system")
	flags.BoolVar(&f.noSync, "no-sync", false, "do not wait until it is on disk")
	flags.BoolVar(&f.force, "force", false, "replace OUT when it is a file")
	_ = cmd.MarkFlagDirname("from-dir")
	for _, name := range []string{"size", "owner", "label"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	return cmd
}

// tarLimits bound the memory that a tar stream takes.
var tarLimits = tree.Limits{Entries: 20_000_000}

func (a *app) createDisk(cmd *cobra.Command, out string, f diskCreateFlags) error {
	switch {
	case f.size == 0:
		return inputError(cmd, "--size is missing")
	case f.fromDir != "" && f.fromTar != "":
		return inputError(cmd, "--from-dir and --from-tar exclude each other")
	}
	replace, err := replaceable(out, f.force)
	if err != nil {
		return err
	}
	src, done, err := a.diskSource(cmd.Context(), f)
	if err != nil {
		return err
	}
	defer done()
	opts := write.Options{SizeBytes: int64(f.size), Label: f.label, Time: a.now(), Sync: !f.noSync, UUID: newUUID(), HashSeed: newUUID()}
	var result write.Result
	if replace {
		result, err = replaceDisk(cmd.Context(), out, opts, src)
	} else {
		result, err = write.CreateFile(cmd.Context(), out, opts, src)
	}
	if err != nil && cmd.Context().Err() != nil {
		return context.Cause(cmd.Context())
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(diskMade{out, result.SizeBytes, result.Inodes, result.BytesWritten})
	}
	a.notice("%s: %s, %s written", out, banger.FormatSize(result.SizeBytes), banger.FormatSize(result.BytesWritten))
	return nil
}

// diskMade is a new image.
type diskMade struct {
	Path         string `json:"path"`          // of the image, as it was given
	SizeBytes    int64  `json:"size_bytes"`    // of the file, holes included
	Inodes       uint64 `json:"inodes"`        // that the file system has, used or not
	BytesWritten int64  `json:"bytes_written"` // the rest is a hole
}

// replaceable tells whether out is a file that --force lets go. Errors: ErrConflict for what stays.
func replaceable(out string, force bool) (bool, error) {
	info, err := os.Lstat(out)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	case err != nil:
		return false, hostError("create", out, err)
	case !info.Mode().IsRegular():
		return false, &banger.Error{Kind: banger.ErrConflict, Op: "create", Subject: out, Err: fmt.Errorf("it exists and is no regular file (%s)", info.Mode().Type())}
	case !force:
		return false, &banger.Error{Kind: banger.ErrConflict, Op: "create", Subject: out, Err: errors.New("it exists"), Hint: "replace it with --force"}
	}
	return true, nil
}

// replaceDisk makes the image beside out, which it then replaces.
func replaceDisk(ctx context.Context, out string, opts write.Options, src tree.Source) (write.Result, error) {
	beside := filepath.Join(filepath.Dir(out), "."+filepath.Base(out)+"."+rand.Text())
	result, err := write.CreateFile(ctx, beside, opts, src)
	if err != nil {
		return result, err
	}
	if _, err = replaceable(out, true); err == nil {
		if err = os.Rename(beside, out); err == nil {
			return result, nil
		}
	}
	return result, errors.Join(err, os.Remove(beside))
}

// diskSource opens what the image is filled with.
func (a *app) diskSource(ctx context.Context, f diskCreateFlags) (src tree.Source, done func(), err error) {
	src, done = tree.Of(), func() {}
	switch {
	case f.fromDir != "":
		info, err := os.Stat(f.fromDir)
		if err == nil && !info.IsDir() {
			err = banger.Invalidf("it is no directory")
		}
		if err != nil {
			return nil, nil, hostError("--from-dir", f.fromDir, err)
		}
		src = tree.FromDir(f.fromDir)
	case f.fromTar != "":
		if f.fromTar == "-" {
			src = tree.FromTar(interruptible(ctx, a.In), tarLimits)
			break
		}
		file, err := os.Open(f.fromTar)
		if err != nil {
			return nil, nil, hostError("--from-tar", f.fromTar, err)
		}
		src, done = tree.FromTar(file, tarLimits), func() { file.Close() }
	}
	if f.owner.given {
		src = tree.WithOwner(src, f.owner.uid, f.owner.gid)
	}
	return src, done, nil
}

// interruptible reads r until the context ends, also while r has nothing to give.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	context.AfterFunc(ctx, func() { in.CloseWithError(context.Cause(ctx)) })
	go func() {
		_, err := io.CopyBuffer(in, struct{ io.Reader }{r}, make([]byte, 256<<10))
		in.CloseWithError(err)
	}()
	return out
}

// newUUID is a random one (RFC 9562, version 4).
func newUUID() (id [16]byte) {
	_, _ = rand.Read(id[:]) // never fails
	id[6], id[8] = id[6]&0x0F|0x40, id[8]&0x3F|0x80
	return id
}
