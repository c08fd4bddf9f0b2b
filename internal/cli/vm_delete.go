package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

func (a *app) vmDelete() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "delete VM...", Aliases: []string{"rm"}, Short: "remove VMs with their disks", Args: someVMs,
		Long:              "The disk goes with the VM; nothing brings it back.",
		Example:           "  banger vm delete devbox\n  banger vm delete --force devbox     even while it runs",
		ValidArgsFunction: a.completeVMs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := a.each(cmd.Context(), args, func(ctx context.Context, c *client.Client, ref string, show banger.ProgressFunc) (api.VMDetail, error) {
				return c.DeleteVM(ctx, ref, force, show)
			})
			return err
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "stop a running VM first")
	return cmd
}
