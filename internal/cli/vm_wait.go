package cli

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/client"
)

// waitStates are what vm wait waits for.
var waitStates = []string{"stopped", "running", "error", "deleted"}

// A wait goes on after the daemon's end, but not for ever with daemons that end at once.
const (
	shortWait     = time.Second
	maxShortWaits = 3
)

func (a *app) vmWait() *cobra.Command {
	var what string
	cmd := &cobra.Command{
		Use: "wait [flags] VM...", Short: "wait until VMs have stopped", Args: someVMs,
		Long: `Until the runs of all of them have ended, in whatever way, and then tell how. A guest's own reboot is no end. With --for it waits for something
else; a VM that can't come there by itself, such as one whose start failed, ends the waiting with an error.`,
		Example: `  banger vm wait devbox                   until its run has ended
  banger vm wait --for running one two    until both are ready
  banger vm wait --for deleted scratch`,
		ValidArgsFunction: a.completeVMs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(waitStates, what) {
				return &banger.Error{Kind: banger.ErrInvalid, Err: errors.New("--for: want one of " + strings.Join(waitStates, ", ")), Hint: banger.DidYouMean(what, waitStates)}
			}
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			b, err := newBatch(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			a.runBatch(cmd.Context(), c, b, func(ctx context.Context, c *client.Client, ref string, _ banger.ProgressFunc) (api.VMDetail, error) {
				return a.waitVM(ctx, c, ref, what)
			})
			_, err = a.finishBatch(b, func(vm api.VMDetail) string { return waitLine(vm, what) })
			return err
		},
	}
	cmd.Flags().StringVar(&what, "for", "stopped", "`what` to wait for: stopped, running, error or deleted")
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(waitStates, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// waitVM goes on waiting when the daemon ends meanwhile: VMs do not notice that, and neither does who waits for them.
func (a *app) waitVM(ctx context.Context, c *client.Client, ref, what string) (api.VMDetail, error) {
	for short := 0; ; {
		begun := a.now()
		detail, err := c.WaitVM(ctx, ref, what)
		if a.now().Sub(begun) < shortWait {
			short++
		}
		if !errors.Is(err, banger.ErrUnavailable) || short == maxShortWaits {
			return detail, err
		}
		again, dialErr := a.dial(ctx)
		if dialErr != nil {
			return detail, dialErr
		}
		defer again.Close()
		c = again
	}
}

// waitLine says what has become of a VM.
func waitLine(vm api.VMDetail, what string) string {
	line := vm.Spec.Name + ": " + string(vm.State)
	switch {
	case what == "deleted":
		return vm.Spec.Name + ": deleted"
	case vm.State == banger.StateRunning || vm.Exit == nil:
		return line
	}
	return line + " (" + causeText(*vm.Exit) + ")"
}
