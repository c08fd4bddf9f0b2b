package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/api"
)

func (a *app) vmStart() *cobra.Command {
	var timings bool
	cmd := &cobra.Command{
		Use: "start VM...", Short: "start stopped VMs", Args: someVMs,
		Example:           "  banger vm start devbox\n  banger vm shell devbox",
		ValidArgsFunction: a.completeVMs(0, banger.StateStopped, banger.StateError),
		RunE: func(cmd *cobra.Command, args []string) error {
			start := a.now()
			steps := &stages{}
			done, err := a.each(cmd.Context(), args, func(ctx context.Context, c *client.Client, ref string, show banger.ProgressFunc) (api.VMDetail, error) {
				return c.StartVM(ctx, ref, steps.record(show))
			})
			if err != nil {
				return err
			}
			a.notice("ready in %s", seconds(a.now().Sub(start)))
			if timings && len(done) == 1 {
				return a.printTimings(steps, done[0].Timings)
			}
			return nil
		},
	}
	addTimings(cmd, &timings)
	return cmd
}
