package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/catalog"
)

func (a *app) imagePublish() *cobra.Command {
	var p publishFlags
	cmd := &cobra.Command{
		Use: "publish [flags] IMAGE... --to DIR --key FILE", Short: "put images into a signed catalog",
		Long: `Each image becomes a bundle in DIR, and the index there names it from then on; then the index is signed. Serve DIR with any web
server; who has its URL and your public key in the configuration gets the image by "banger image pull".`,
		Example: `  banger catalog keygen signing.pem
  banger image publish mine --to ./catalog --key signing.pem
  banger image publish mine --to ./catalog --key signing.pem --url https://files.example/bundles`,
		Args:              someImages,
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.check(cmd); err != nil {
				return err
			}
			var entries []banger.CatalogImage
			var made []banger.Bundle
			err := a.makeBundles(cmd, &p, args, func(c *client.Client, ref string, show banger.ProgressFunc) error {
				entry, err := c.BundleImage(cmd.Context(), ref, p.to, show)
				p.place(&entry.Bundle)
				entries, made = append(entries, entry), append(made, entry.Bundle)
				return err
			})
			if err != nil {
				return err
			}
			index, err := p.publish(catalog.Update{Now: a.now(), Images: entries})
			if err != nil {
				return err
			}
			for _, e := range entries {
				if e.Kernel != "" && !slices.ContainsFunc(index.Kernels, func(k banger.CatalogKernel) bool { return k.Name == e.Kernel }) {
					a.notice("machines of %s boot the kernel %s, which the catalog does not have", e.Name, e.Kernel)
				}
			}
			return a.printPublished(index, made)
		},
	}
	p.add(cmd)
	return cmd
}
