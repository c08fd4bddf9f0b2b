package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/client"
)

func (a *app) vmStart() *cobra.Command {
	var timings, overcommit bool
	cmd := &cobra.Command{
		Use: "start [flags] VM...", Short: "start stopped VMs", Args: someVMs,
		Long: `All VMs that run may have 80 % of this computer's memory together, or what vm.max_memory says in the configuration; beyond that a start is
refused, with the VMs to stop.`,
		Example:           "  banger vm start devbox\n  banger vm shell devbox",
		ValidArgsFunction: a.completeVMs(0, banger.StateStopped, banger.StateError),
		RunE: func(cmd *cobra.Command, args []string) error {
			steps := &stages{}
			done, err := a.startVMs(cmd.Context(), args, overcommit, steps)
			if err != nil {
				return err
			}
			if timings && len(done) == 1 {
				return a.printTimings(steps, done[0].Timings)
			}
			return nil
		},
	}
	addTimings(cmd, &timings)
	addOvercommit(cmd, &overcommit)
	return cmd
}

// startVMs starts VMs and runs what their repositories want run then.
func (a *app) startVMs(ctx context.Context, refs []string, overcommit bool, steps *stages) ([]api.VMDetail, error) {
	start := a.now()
	done, err := a.each(ctx, refs, func(ctx context.Context, c *client.Client, ref string, show banger.ProgressFunc) (api.VMDetail, error) {
		return c.StartVM(ctx, ref, api.StartRequest{Overcommit: overcommit}, steps.record(show))
	})
	if err != nil {
		return nil, err
	}
	a.notice("ready in %s", seconds(a.now().Sub(start)))
	return done, a.startedAll(ctx, done)
}

// addOvercommit adds the flag that starts a VM although there is not the memory.
func addOvercommit(cmd *cobra.Command, overcommit *bool) {
	cmd.Flags().BoolVar(overcommit, "overcommit", false, "start even when running VMs have more memory than they may")
}
