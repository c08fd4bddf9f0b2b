package cli

import (
	"context"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"banger/api"
	"banger/client"
)

func (a *app) opsGroup() *cobra.Command {
	return a.group("ops", "what the daemon is doing", `
Whatever takes long is an operation with an id, which stands in its errors and in the daemon's log. One that was asked for with
--detach goes on without its client; all others that make something end with their client, and what they made is undone.

The daemon remembers the last operations that ended until it ends itself.`, `
  banger image pull -d debian:13               prints an id at once
  banger ops list                              what is running
  banger ops wait op-1a2b3c4d                  its progress, then its result; Ctrl-C leaves it alone
  banger ops cancel op-1a2b3c4d                ends it and undoes what it made
  banger ops show op-1a2b3c4d                  also how it ended`,
		a.opsList(), a.opsShow(), a.opsWait(), a.opsCancel())
}

// someOps checks the arguments of a command on operations.
func someOps(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return inputError(cmd, "want the id of an operation; see: banger ops list")
	}
	return nil
}

// completeOps offers the operations in one of states (all when none is given), at most limit of them on one command line (0: any number).
func (a *app) completeOps(limit int, states ...api.OperationState) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if limit > 0 && len(args) >= limit {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.completeNames(cmd, func(ctx context.Context, c *client.Client) (ids []cobra.Completion) {
			list, _ := c.Operations(ctx)
			for _, op := range list {
				if (len(states) == 0 || slices.Contains(states, op.State)) && !slices.Contains(args, op.ID) {
					ids = append(ids, cobra.CompletionWithDesc(op.ID, escape(string(op.State)+", "+whatOf(op))))
				}
			}
			return ids
		})
	}
}

// errorAfter is err, unless its output could not be written.
func errorAfter(output, err error) error {
	if output != nil {
		return output
	}
	return err
}

// together does the same for all refs at once and gives what succeeded, in the order of refs. One that fails does not stop the others.
func together[T any](refs []string, do func(ref string) (T, error)) (done []T, err error) {
	results, errs := make([]T, len(refs)), make([]error, len(refs))
	var group sync.WaitGroup
	for i, ref := range refs {
		group.Go(func() { results[i], errs[i] = do(ref) })
	}
	group.Wait()
	var failed failures
	for i, err := range errs {
		if err != nil {
			failed = append(failed, err)
			continue
		}
		done = append(done, results[i])
	}
	if failed != nil {
		return done, failed
	}
	return done, nil
}
