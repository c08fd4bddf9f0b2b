package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/client"
)

func (a *app) opsWait() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "wait OP... [--timeout D]", Short: "follow operations to their end", Args: someOps,
		Long: `It shows progress and result as the command that asked for them would have, and exits with 0 or by the error of the operation: 130
when it was cancelled. When this command ends, by Ctrl-C or --timeout, the operations go on.`,
		Example: `  banger ops wait $(banger image pull -d debian:13)
  banger ops wait --timeout 10m op-1a2b3c4d op-5e6f7a8b`,
		ValidArgsFunction: a.completeOps(0, api.OperationRunning),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("timeout") && timeout <= 0 {
				return inputError(cmd, "--timeout %s: want a positive duration", timeout)
			}
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			return a.waitOps(cmd.Context(), c, args, timeout)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "how `long` to wait: 90s, 10m (default: to their end)")
	_ = cmd.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions)
	return cmd
}

// waitOps follows operations and shows what they made. A timeout of 0 is none.
func (a *app) waitOps(ctx context.Context, c *client.Client, refs []string, timeout time.Duration) error {
	limited, cancel := ctx, context.CancelFunc(func() {})
	if timeout > 0 {
		limited, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	show, end := a.progress()
	made, err := together(refs, func(ref string) (api.Event, error) {
		last, err := c.WaitOperation(limited, ref, named(show, ref, len(refs) > 1))
		if err != nil && errors.Is(limited.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
			err = &banger.Error{Kind: banger.ErrUnavailable, Op: "wait for operation", Subject: ref, Err: fmt.Errorf("it still runs after %s", timeout),
				Hint: "it goes on: banger ops show " + ref}
		}
		return last, err
	})
	end()
	if a.json {
		ended, _ := together(refs, func(ref string) (api.Operation, error) { return c.ShowOperation(ctx, ref) }) // what is unknown is told by err
		return errorAfter(a.printJSON(append([]api.Operation{}, ended...)), err)
	}
	for _, last := range made {
		if err := a.printResult(last); err != nil {
			return err
		}
	}
	return err
}

// printResult shows what an operation made as the command that asked for it does.
func (a *app) printResult(last api.Event) error {
	switch {
	case last.VM != nil:
		return a.printVMs([]api.VMDetail{*last.VM}, vmName)
	case last.Image != nil:
		return a.printMade(*last.Image)
	case last.Kernel != nil:
		return a.printKernelNames([]banger.Kernel{*last.Kernel})
	}
	return nil
}
