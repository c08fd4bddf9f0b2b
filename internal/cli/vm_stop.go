package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/client"
)

func (a *app) vmStop() *cobra.Command {
	var timeout stopTimeout
	cmd := &cobra.Command{
		Use: "stop [flags] VM...", Short: "stop VMs; their disks stay", Args: someVMs,
		Long:              "The guest is asked to write everything to its disk and to power off. One that has not done so in time is switched off.",
		Example:           "  banger vm stop devbox\n  banger vm stop --timeout 2m devbox webbox",
		ValidArgsFunction: a.completeVMs(0, banger.StateRunning, banger.StateStarting, banger.StateError),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := timeout.check(cmd); err != nil {
				return err
			}
			return a.stopVMs(cmd.Context(), args, time.Duration(timeout))
		},
	}
	timeout.add(cmd)
	return cmd
}

func (a *app) stopVMs(ctx context.Context, refs []string, timeout time.Duration) error {
	_, err := a.each(ctx, refs, func(ctx context.Context, c *client.Client, ref string, show banger.ProgressFunc) (api.VMDetail, error) {
		return c.StopVM(ctx, ref, timeout, show)
	})
	return err
}

// stopTimeout is a flag: what a guest gets to power off.
type stopTimeout time.Duration

func (t *stopTimeout) add(cmd *cobra.Command) {
	cmd.Flags().DurationVar((*time.Duration)(t), "timeout", 0, "how long the guest may take to power off (default: 10s, emulated 40s)")
	_ = cmd.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions)
}

func (t *stopTimeout) check(cmd *cobra.Command) error {
	if cmd.Flags().Changed("timeout") && *t <= 0 {
		return banger.Invalidf("--timeout %s: want a time such as 30s or 2m", time.Duration(*t))
	}
	return nil
}
