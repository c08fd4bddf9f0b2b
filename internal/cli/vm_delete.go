package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/client"
)

func (a *app) vmDelete() *cobra.Command {
	var force, discard bool
	cmd := &cobra.Command{
		Use: "delete [flags] VM...", Aliases: []string{"rm"}, Short: "remove VMs with their disks", Args: someVMs,
		Long: `The disk goes with the VM; nothing brings it back but for work on repositories that were put in: commits and changes that the
host does not have are kept, and come into the repository that they are of as refs/banger/… ("banger autosave list" shows them).
On a terminal you are asked about a VM that runs; elsewhere it stays, and that is an error.`,
		Example:           "  banger vm delete devbox\n  banger vm delete --force devbox     even while it runs\n  banger vm delete --discard-work devbox",
		ValidArgsFunction: a.completeVMs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.deleteVMs(cmd.Context(), args, force, discard)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask, and stop a running VM first")
	cmd.Flags().BoolVar(&discard, "discard-work", false, "keep no work; means --force")
	return cmd
}

// deleteVMs removes VMs. The daemon says which ones it removes by force alone; a person is asked about each of these.
func (a *app) deleteVMs(ctx context.Context, refs []string, force, discard bool) error {
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := newBatch(ctx, c, refs)
	if err != nil {
		return err
	}
	first := deletion(force)
	if discard {
		first, force = discardVM, true
	}
	a.runBatch(ctx, c, b, first)
	if _, person := terminal(a.In); person && !force {
		again, err := a.askToForce(ctx, b)
		if err != nil {
			return err
		}
		a.runBatch(ctx, c, again, deletion(true))
		b.merge(again)
	}
	a.landWork(ctx, c)
	_, err = a.finishBatch(b, vmName)
	return err
}

func discardVM(ctx context.Context, c *client.Client, ref string, show banger.ProgressFunc) (api.VMDetail, error) {
	return c.DiscardVM(ctx, ref, show)
}

func deletion(force bool) operation {
	return func(ctx context.Context, c *client.Client, ref string, show banger.ProgressFunc) (api.VMDetail, error) {
		return c.DeleteVM(ctx, ref, force, show)
	}
}

// askToForce gives the VMs that a person wants deleted although the daemon has a reason against it.
func (a *app) askToForce(ctx context.Context, b *batch) (*batch, error) {
	again := &batch{}
	for i, target := range b.targets {
		if !errors.Is(b.errs[i], banger.ErrConflict) {
			continue
		}
		yes, err := a.confirm(ctx, escape(b.errs[i].Error())+". Delete it with its disk?")
		if err != nil {
			return nil, err
		}
		if b.errs[i] = errSkipped; yes {
			again.targets, again.errs, again.details = append(again.targets, target), append(again.errs, nil), append(again.details, api.VMDetail{})
		}
	}
	return again, nil
}

// merge takes over what became of the VMs of other.
func (b *batch) merge(other *batch) {
	for i, target := range b.targets {
		for j := range other.targets {
			if other.targets[j].ID == target.ID && target.ID != "" {
				b.details[i], b.errs[i] = other.details[j], other.errs[j]
			}
		}
	}
}
