package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/client"
)

// pruneFlags are those of the commands that remove what is not needed.
type pruneFlags struct {
	dryRun bool
	force  bool
}

func (f *pruneFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "only tell what would be removed")
	cmd.Flags().BoolVarP(&f.force, "force", "f", false, "do not ask")
}

func (a *app) imagePrune() *cobra.Command {
	var flags pruneFlags
	var all bool
	cmd := &cobra.Command{
		Use: "prune [flags]", Short: "remove images that are not needed any more", Args: noArgs,
		Long: `An image goes when no VM uses it and a newer one has its name; with --all, whenever no VM uses it. What can't be read and what
commands that were cut off left goes too. On a terminal you are asked first.`,
		Example: "  banger image prune --dry-run\n  banger image prune --all --force",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.prune(cmd.Context(), flags, func(c *client.Client, dryRun bool) (api.Pruned, error) {
				return c.PruneImages(cmd.Context(), api.PruneRequest{All: all, DryRun: dryRun})
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every image that no VM uses")
	flags.add(cmd)
	return cmd
}

func (a *app) imageCache() *cobra.Command {
	return a.group("cache", "what pulls keep for the next one", `
Layers of registries stay, so that images that share them download them once, and so does what has come of a download that was cut
off. Images and machines need none of it.`, `
  banger image cache prune                     away with it`,
		a.imageCachePrune())
}

func (a *app) imageCachePrune() *cobra.Command {
	var flags pruneFlags
	cmd := &cobra.Command{
		Use: "prune [flags]", Short: "remove the layers and downloads that no pull is using", Args: noArgs,
		Long:    "Images and machines stay as they are; the next pull downloads all of its layers. On a terminal you are asked first.",
		Example: "  banger image cache prune --dry-run\n  banger image cache prune --force",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.prune(cmd.Context(), flags, func(c *client.Client, dryRun bool) (api.Pruned, error) { return c.PruneCache(cmd.Context(), dryRun) })
		},
	}
	flags.add(cmd)
	return cmd
}

// prune removes by do, after a question when a person sits there, and tells what that frees.
func (a *app) prune(ctx context.Context, flags pruneFlags, do func(c *client.Client, dryRun bool) (api.Pruned, error)) error {
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, person := terminal(a.In); person && !flags.dryRun && !flags.force {
		pruned, err := do(c, true)
		if err != nil {
			return err
		}
		if len(pruned.Items) > 0 {
			if err := table(a.Err, pruneRows(pruned)); err != nil {
				return err
			}
			yes, err := a.confirm(ctx, fmt.Sprintf("Remove this and free %s?", banger.FormatSize(pruned.Bytes)))
			if err != nil || !yes {
				return err
			}
		}
	}
	pruned, err := do(c, flags.dryRun)
	if err != nil {
		return err
	}
	if err := a.printPruned(pruned, flags.dryRun); err != nil || pruned.Failed == nil {
		return err
	}
	var failed failures
	for _, body := range pruned.Failed {
		failed = append(failed, body.Decode())
	}
	return failed
}

func (a *app) printPruned(pruned api.Pruned, dryRun bool) error {
	switch {
	case a.json:
		return a.printJSON(pruned)
	case a.quiet:
		for _, item := range pruned.Items {
			if _, err := fmt.Fprintln(a.Out, escape(or(item.Key, item.Name))); err != nil {
				return err
			}
		}
		return nil
	case len(pruned.Items) == 0:
		if pruned.Failed == nil {
			a.notice("nothing to remove")
		}
		return nil
	}
	if err := table(a.Out, pruneRows(pruned)); err != nil {
		return err
	}
	if dryRun {
		a.notice("would free %s", banger.FormatSize(pruned.Bytes))
	} else {
		a.notice("freed %s", banger.FormatSize(pruned.Bytes))
	}
	return nil
}

func pruneRows(pruned api.Pruned) [][]string {
	rows := [][]string{{"NAME", "KEY", "SIZE", "WHY"}}
	for _, item := range pruned.Items {
		rows = append(rows, []string{item.Name, item.Key[:min(len(item.Key), 12)], banger.FormatSize(item.Bytes), item.Reason})
	}
	return rows
}

// confirm asks a person; anything but a yes is a no.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	fmt.Fprint(a.Err, question+" [y/N] ")
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.In).ReadString('\n') // no answer is none
		answer <- line
	}()
	select {
	case line := <-answer:
		yes := strings.ToLower(strings.TrimSpace(line))
		return yes == "y" || yes == "yes", nil
	case <-ctx.Done():
		fmt.Fprintln(a.Err)
		return false, context.Cause(ctx)
	}
}
