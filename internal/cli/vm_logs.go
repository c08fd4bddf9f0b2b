package cli

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/internal/machine"
)

func (a *app) vmLogs() *cobra.Command {
	var follow bool
	var lines int
	cmd := &cobra.Command{
		Use: "logs [flags] VM", Short: "show the console of a VM", Args: oneVM,
		Long: `What the guest's kernel and init wrote to the console: the newest part, after the VM has ended too. On a terminal, control
characters are escaped, and what is long is shown by a pager; into a file or a pipe goes every byte as it was.

--follow goes on with what comes, also when the guest reboots, until the VM stops, and tells then how that came.`,
		Example:           "  banger vm logs devbox\n  banger vm logs --lines 20 devbox\n  banger vm logs --follow devbox",
		ValidArgsFunction: a.completeVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("lines") && lines < 1 {
				return banger.Invalidf("--lines %d: want at least 1", lines)
			}
			detail, err := a.show(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			req := machine.ConsoleRequest{Lines: lines}
			if follow {
				return a.safely(a.Out, func(out io.Writer) error { return a.followLogs(cmd.Context(), detail, req, out) })
			}
			return a.paged(cmd.Context(), func(w io.Writer, _ bool) error {
				return a.safely(w, func(out io.Writer) error {
					_, err := machine.Client{Socket: detail.MachineSocket}.Console(cmd.Context(), req, out)
					return err
				})
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the VM stops")
	cmd.Flags().IntVarP(&lines, "lines", "n", 0, "only so `many` of the last lines")
	_ = cmd.RegisterFlagCompletionFunc("lines", cobra.NoFileCompletions)
	return cmd
}

// safely escapes what show writes to w when a person sees it, through a pager or not.
func (a *app) safely(w io.Writer, show func(io.Writer) error) error {
	if _, on := terminal(a.Out); !on {
		return show(w)
	}
	safe := &safeWriter{w: w}
	defer safe.Close()
	return show(safe)
}

// followLogs copies the console until the daemon says that the VM has stopped or is gone. A run that goes on is followed to its end
// whatever becomes of the daemon.
func (a *app) followLogs(ctx context.Context, vm api.VMDetail, req machine.ConsoleRequest, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan struct{})
	var end api.VMDetail
	var endErr error
	go func() {
		defer close(over)
		end, endErr = a.awaitStop(ctx, vm)
	}()
	err := machine.Client{Socket: vm.MachineSocket}.FollowConsole(ctx, req, out, over)
	cancel()
	<-over
	switch {
	case err != nil:
		return err
	case errors.Is(endErr, banger.ErrNotFound):
		a.notice("%s: deleted", vm.Spec.Name)
		return nil
	case endErr != nil:
		return endErr
	}
	a.notice("%s", waitLine(end, string(banger.StateStopped)))
	return nil
}

func (a *app) awaitStop(ctx context.Context, vm api.VMDetail) (api.VMDetail, error) {
	c, err := a.dial(ctx)
	if err != nil {
		return vm, err
	}
	defer c.Close()
	return a.waitVM(ctx, c, string(vm.ID), string(banger.StateStopped))
}
