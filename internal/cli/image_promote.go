package cli

import (
	"github.com/spf13/cobra"
)

func (a *app) imagePromote() *cobra.Command {
	return &cobra.Command{
		Use: "promote IMAGE", Short: "copy a registered image, so that its file is not needed any more", Args: oneImage,
		Long: `The copy goes into banger's own directory and shares the file's blocks where the host can. Machines of the image keep working: one that
runs goes on with the file until it stops, and starts from the copy afterwards.`,
		Example:           "  banger image promote mine",
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			show, end := a.progress()
			image, err := c.PromoteImage(cmd.Context(), args[0], show)
			end()
			if err != nil {
				return err
			}
			return a.printMade(image)
		},
	}
}

func oneImage(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return inputError(cmd, "want one image; see: banger image list")
	}
	return nil
}
