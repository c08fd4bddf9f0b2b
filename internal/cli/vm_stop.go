package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

func (a *app) vmStop() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "stop VM...", Short: "stop VMs; their disks stay", Args: someVMs,
		Long:              "The guest is asked to write everything to its disk and to power off. One that has not done so in time is switched off.",
		Example:           "  banger vm stop devbox\n  banger vm stop --timeout 2m devbox webbox",
		ValidArgsFunction: a.completeVMs(0, banger.StateRunning, banger.StateStarting, banger.StateError),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("timeout") && timeout <= 0 {
				return banger.Invalidf("--timeout %s: want a time such as 30s or 2m", timeout)
			}
			_, err := a.each(cmd.Context(), args, func(ctx context.Context, c *client.Client, ref string, show banger.ProgressFunc) (api.VMDetail, error) {
				return c.StopVM(ctx, ref, timeout, show)
			})
			return err
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "how long the guest may take to power off (default: 30s)")
	_ = cmd.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions)
	return cmd
}
