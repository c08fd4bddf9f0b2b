package cli

import (
	"github.com/spf13/cobra"

	"banger"
)

func (a *app) imageDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete IMAGE...", Aliases: []string{"rm"}, Short: "remove images that no VM uses", Args: someImages,
		Long:              "An image is named by its name, which stands for the newest of that name, or by the beginning of its key.",
		Example:           "  banger image delete mine\n  banger image delete 5eed",
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			done := []banger.Image{}
			var failed failures
			for _, ref := range args {
				image, err := c.DeleteImage(cmd.Context(), ref)
				if err != nil {
					failed = append(failed, err)
					continue
				}
				done = append(done, image)
			}
			if err := a.printImages(done); err != nil || failed == nil {
				return err
			}
			return failed
		},
	}
}

func someImages(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return inputError(cmd, "which image? see: banger image list")
	}
	return nil
}
