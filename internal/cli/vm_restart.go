package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/client"
)

func (a *app) vmRestart() *cobra.Command {
	var timeout stopTimeout
	var overcommit bool
	cmd := &cobra.Command{
		Use: "restart [flags] VM...", Short: "stop VMs and start them again", Args: someVMs,
		Long:              "The same disk, a new boot. One that does not run is started.",
		Example:           "  banger vm restart devbox\n  banger vm restart --timeout 2m devbox webbox",
		ValidArgsFunction: a.completeVMs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := timeout.check(cmd); err != nil {
				return err
			}
			start := a.now()
			done, err := a.each(cmd.Context(), args, func(ctx context.Context, c *client.Client, ref string, show banger.ProgressFunc) (api.VMDetail, error) {
				return c.RestartVM(ctx, ref, api.RestartRequest{Timeout: time.Duration(timeout), Overcommit: overcommit}, show)
			})
			if err != nil {
				return err
			}
			a.notice("ready in %s", seconds(a.now().Sub(start)))
			return a.startedAll(cmd.Context(), done)
		},
	}
	timeout.add(cmd)
	addOvercommit(cmd, &overcommit)
	return cmd
}
