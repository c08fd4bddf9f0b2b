package cli

import (
	"github.com/spf13/cobra"

	"banger"
)

func (a *app) imageList() *cobra.Command {
	var available bool
	cmd := &cobra.Command{
		Use: "list [flags]", Aliases: []string{"ls"}, Short: "list the images that are ready", Args: noArgs,
		Example: "  banger image list\n  banger image list --available     what the configured catalog has\n  banger image list --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if available {
				return a.listCatalogImages(cmd, c)
			}
			list, err := c.Images(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(append([]banger.Image{}, list...))
			}
			if len(list) == 0 {
				a.notice("no image is ready yet: the first vm run builds it")
			}
			rows := [][]string{{"NAME", "KEY", "BOOT", "SIZE", "CREATED", "SOURCE"}}
			for _, image := range list {
				rows = append(rows, []string{image.Name, image.Key[:min(len(image.Key), 12)], string(image.Boot),
					banger.FormatSize(image.SizeBytes), ago(a.now(), image.CreatedAt), image.Source})
			}
			return a.printRows(rows)
		},
	}
	cmd.Flags().BoolVar(&available, "available", false, "list the images of the configured catalog instead")
	return cmd
}
