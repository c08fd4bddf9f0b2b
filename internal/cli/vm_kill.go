package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/client"
	"banger/internal/machine"
)

func (a *app) vmKill() *cobra.Command {
	var signal string
	cmd := &cobra.Command{
		Use: "kill [flags] VM...", Short: "switch VMs off at once", Args: someVMs,
		Long: `The guest is not asked: what it has not written to its disk is lost, as when a computer loses its power. For when "vm stop" takes too
long. Another signal than KILL goes to the VMM, and what becomes of that is not waited for.`,
		Example:           "  banger vm kill devbox\n  banger vm kill --signal TERM devbox",
		ValidArgsFunction: a.completeVMs(0, banger.StateRunning, banger.StateStarting, banger.StateStopping, banger.StateError),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := machine.ParseSignal(signal); err != nil {
				return &banger.Error{Kind: banger.ErrInvalid, Op: "--signal", Err: err}
			}
			_, err := a.each(cmd.Context(), args, func(ctx context.Context, c *client.Client, ref string, show banger.ProgressFunc) (api.VMDetail, error) {
				return c.KillVM(ctx, ref, signal, show)
			})
			return err
		},
	}
	cmd.Flags().StringVarP(&signal, "signal", "s", "KILL", "`signal` for the VMM: a name or a number")
	_ = cmd.RegisterFlagCompletionFunc("signal", cobra.FixedCompletions([]cobra.Completion{"KILL", "TERM", "INT", "STOP", "CONT"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
