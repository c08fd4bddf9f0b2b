package cli

import (
	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/catalog"
)

func (a *app) kernelPublish() *cobra.Command {
	var p publishFlags
	cmd := &cobra.Command{
		Use: "publish [flags] KERNEL... --to DIR --key FILE", Short: "put kernels into a signed catalog",
		Long: `Each kernel becomes a bundle in DIR, and the index there names it from then on; then the index is signed. Images in the same catalog
that name the kernel bring it with them.`,
		Example: `  banger kernel publish mine --to ./catalog --key signing.pem
  banger image publish tools --to ./catalog --key signing.pem`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return inputError(cmd, "which kernel? see: banger kernel list")
			}
			return nil
		},
		ValidArgsFunction: a.completeKernels,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.check(cmd); err != nil {
				return err
			}
			var entries []banger.CatalogKernel
			var made []banger.Bundle
			err := a.makeBundles(cmd, &p, args, func(c *client.Client, name string, show banger.ProgressFunc) error {
				entry, err := c.BundleKernel(cmd.Context(), name, p.to, show)
				p.place(&entry.Bundle)
				entries, made = append(entries, entry), append(made, entry.Bundle)
				return err
			})
			if err != nil {
				return err
			}
			index, err := p.publish(catalog.Update{Now: a.now(), Kernels: entries})
			if err != nil {
				return err
			}
			return a.printPublished(index, made)
		},
	}
	p.add(cmd)
	return cmd
}
