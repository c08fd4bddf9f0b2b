package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
)

func (a *app) kernelList() *cobra.Command {
	var available bool
	cmd := &cobra.Command{
		Use: "list [flags]", Aliases: []string{"ls"}, Short: "list the kernels that are ready", Args: noArgs,
		Example: "  banger kernel list\n  banger kernel list --available",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if available {
				return a.listOffers(cmd.Context(), c)
			}
			list, err := c.Kernels(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(append([]banger.Kernel{}, list...))
			}
			if len(list) == 0 {
				a.notice("no kernel is ready yet: the first vm run fetches it")
			}
			rows := [][]string{{"NAME", "VERSION", "SIZE", "CREATED", "SOURCE"}}
			for _, k := range list {
				rows = append(rows, []string{k.Name, k.Version, banger.FormatSize(k.SizeBytes), ago(a.now(), k.CreatedAt), k.Source})
			}
			return a.printRows(rows)
		},
	}
	cmd.Flags().BoolVar(&available, "available", false, "list what can be had by name instead")
	return cmd
}

func (a *app) listOffers(ctx context.Context, c *client.Client) error {
	list, err := c.OfferedKernels(ctx)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(append([]banger.KernelOffer{}, list...))
	}
	rows := [][]string{{"NAME", "SOURCE", "DESCRIPTION"}}
	for _, offer := range list {
		rows = append(rows, []string{offer.Name, offer.Source, offer.Description})
	}
	return a.printRows(rows)
}

// printRows writes a table whose first row is the heading; with --quiet the first column alone.
func (a *app) printRows(rows [][]string) error {
	if !a.quiet {
		return table(a.Out, rows)
	}
	for _, row := range rows[1:] {
		if _, err := fmt.Fprintln(a.Out, escape(row[0])); err != nil {
			return err
		}
	}
	return nil
}
