package cli

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/ext4/patch"
)

// diskWritten is a file that has gone into an image.
type diskWritten struct {
	Path  string `json:"path"`  // in the image
	Bytes int64  `json:"bytes"` // of its new content
}

func (a *app) diskWrite() *cobra.Command {
	var owner ownerFlag
	var mode modeFlag
	var parents, noSync bool
	cmd := &cobra.Command{
		Use: "write IMAGE PATH [flags]", Short: "write standard input to a file in an image",
		Long: `A file that exists gets new content and keeps its owner and mode; a new one belongs to 0:0 and has mode 0644. After a crash
the image has the old file or the new one. An image that a machine, a program or a mount uses is refused.`,
		Example: `  echo web | banger disk write out.ext4 /etc/hostname
  banger disk write out.ext4 /usr/local/bin/tool --mode 0755 < tool`,
		Args: diskArgs(1, 1, "an image and a path in it"), ValidArgsFunction: completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			content, size, done, err := sized(cmd.Context(), a.In)
			if err != nil {
				return hostError("read", "standard input", err)
			}
			defer done()
			err = patch.Apply(args[0], patch.Options{Now: a.now(), NoSync: noSync}, func(tx *patch.Tx) error {
				attr := patch.Attr{Mode: 0o644}
				n, err := tx.FS().Lookup(args[1], true)
				switch {
				case err == nil:
					s := n.Stat()
					attr = patch.Attr{Mode: uint32(s.Mode & 0o7777), UID: s.UID, GID: s.GID}
				case !errors.Is(err, banger.ErrNotFound):
					return err
				}
				if owner.given {
					attr.UID, attr.GID = owner.uid, owner.gid
				}
				if mode.given {
					attr.Mode = mode.mode
				}
				if parents {
					if err := tx.MkdirAll(parentOf(args[1]), patch.Attr{Mode: 0o755, UID: attr.UID, GID: attr.GID}); err != nil {
						return err
					}
				}
				return tx.WriteFile(args[1], size, content, attr)
			})
			if err != nil || !a.json {
				return err
			}
			return a.printJSON(diskWritten{inImage(args[1]), size})
		},
	}
	flags := cmd.Flags()
	flags.Var(&owner, "owner", "owner of the file")
	flags.Var(&mode, "mode", "permissions of the file: 0644")
	flags.BoolVarP(&parents, "parents", "p", false, "make the directories above it that are missing")
	flags.BoolVar(&noSync, "no-sync", false, "do not wait until it is on disk")
	_ = cmd.RegisterFlagCompletionFunc("owner", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("mode", cobra.NoFileCompletions)
	return cmd
}

// parentOf gives the directory part of a path, which stays as it was typed.
func parentOf(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '/' {
			return name[:i]
		}
	}
	return ""
}

// sized gives a stream and its length. What is no file goes through a temporary one first.
func sized(ctx context.Context, in io.Reader) (content io.Reader, size int64, done func(), err error) {
	if f, ok := in.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			off, err := f.Seek(0, io.SeekCurrent)
			return contextReader{ctx, in}, max(info.Size()-off, 0), func() {}, err
		}
	}
	spool, err := os.CreateTemp("", "banger-disk-write-*")
	if err != nil {
		return nil, 0, nil, err
	}
	err = os.Remove(spool.Name())
	if err == nil {
		size, err = io.Copy(spool, interruptible(ctx, in))
	}
	if err == nil {
		_, err = spool.Seek(0, io.SeekStart)
	}
	if err != nil {
		spool.Close()
		return nil, 0, nil, err
	}
	return spool, size, func() { spool.Close() }, nil
}
