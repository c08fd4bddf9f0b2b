package cli

import (
	"io"

	"github.com/spf13/cobra"

	"banger"
)

func (a *app) diskCat() *cobra.Command {
	return &cobra.Command{
		Use: "cat IMAGE PATH...", Short: "write files of an image to standard output",
		Example: "  banger disk cat out.ext4 /etc/hostname",
		Args:    diskArgs(1, 1<<20, "an image and a path in it"), ValidArgsFunction: completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := openImage(args[0])
			if err != nil {
				return err
			}
			defer i.Close()
			for _, name := range args[1:] {
				n, err := i.Lookup(name, true)
				if err == nil && !n.IsFile() {
					err = banger.Invalidf("%s is no regular file", inImage(name))
				}
				if err == nil {
					_, err = io.Copy(a.Out, contextReader{cmd.Context(), io.NewSectionReader(n, 0, n.Size())})
				}
				if err != nil {
					return hostError("read", args[0], err)
				}
			}
			return nil
		},
	}
}
