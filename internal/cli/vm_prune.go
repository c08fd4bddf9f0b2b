package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
)

func (a *app) vmPrune() *cobra.Command {
	var flags pruneFlags
	var conditions []string
	cmd := &cobra.Command{
		Use: "prune [flags]", Short: "remove VMs that do not run, with their disks", Args: noArgs,
		Long: `All that are stopped or in state error, or those of them that a filter chooses. What runs, starts or stops is left alone. On a terminal you
see them and are asked first; elsewhere it takes --force.`,
		Example: `  banger vm prune --dry-run
  banger vm prune --filter label=scratch --force`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.pruneVMs(cmd.Context(), flags, conditions)
		},
	}
	flags.add(cmd)
	a.addFilter(cmd, &conditions)
	return cmd
}

func (a *app) pruneVMs(ctx context.Context, flags pruneFlags, conditions []string) error {
	filter, err := banger.ParseVMFilter(conditions)
	if err != nil {
		return err
	}
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.ListVMs(ctx)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(filter.Choose(list), func(vm banger.VM) bool { return vm.State != banger.StateStopped && vm.State != banger.StateError })
	if flags.dryRun || len(list) == 0 {
		return a.wouldPrune(list)
	}
	if yes, err := a.agreed(ctx, flags, list); err != nil || !yes {
		return err
	}
	b := &batch{details: make([]api.VMDetail, len(list)), errs: make([]error, len(list))}
	for _, vm := range list {
		b.targets = append(b.targets, api.ResolvedVM{ID: vm.ID, Name: vm.Spec.Name})
	}
	a.runBatch(ctx, c, b, deletion(false)) // one that has been started meanwhile stays
	_, err = a.finishBatch(b, vmName)
	return err
}

// wouldPrune tells what would be removed.
func (a *app) wouldPrune(list []banger.VM) error {
	switch {
	case a.json:
		return a.printJSON(list)
	case len(list) == 0:
		a.notice("nothing to remove")
		return nil
	case !a.quiet:
		return table(a.Out, vmRows(list, a.now()))
	}
	for _, vm := range list {
		if _, err := fmt.Fprintln(a.Out, vm.ID); err != nil {
			return err
		}
	}
	return nil
}

// agreed asks a person whether VMs may go. Where nobody can be asked, a flag has to say so.
func (a *app) agreed(ctx context.Context, flags pruneFlags, list []banger.VM) (bool, error) {
	if flags.force {
		return true, nil
	}
	if _, person := terminal(a.In); !person {
		return false, &banger.Error{Kind: banger.ErrRefused, Op: "vm prune", Err: errors.New("nobody can be asked: standard input is no terminal"),
			Hint: "--force does not ask, --dry-run shows what would go"}
	}
	if err := table(a.Err, vmRows(list, a.now())); err != nil {
		return false, err
	}
	question := fmt.Sprintf("Delete these %d VMs with their disks?", len(list))
	if len(list) == 1 {
		question = "Delete this VM with its disk?"
	}
	return a.confirm(ctx, question)
}
