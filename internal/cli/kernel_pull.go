package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
	"banger/client"
)

func (a *app) kernelPull() *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use: "pull [flags] KERNEL", Short: "fetch a kernel that can be had by its name",
		Long: `The default kernel, debian-cloud, is Debian's for virtual machines. Where there is apt, apt gets its package; elsewhere banger reads
Debian's archive itself and checks its signature. The configuration can name a mirror, a proxy and the keys of another archive.
A configured catalog is looked in first. A kernel that is already there is left as it is.`,
		Example: `  banger kernel list --available
  banger kernel pull debian-cloud
  BANGER_MIRROR=http://mirror.example/debian banger kernel pull debian-cloud     # before the daemon starts`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return inputError(cmd, "want one kernel; see: banger kernel list --available")
			}
			return nil
		},
		ValidArgsFunction: a.completeOffers,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			kernel, err := c.ShowKernel(cmd.Context(), args[0])
			switch {
			case err == nil:
				a.notice("kernel %s is already there", kernel.Name)
			case detach && errors.Is(err, banger.ErrNotFound):
				return a.detach(cmd.Context(), c, api.RouteKernelPull, api.PullKernelRequest{Name: args[0]})
			case errors.Is(err, banger.ErrNotFound):
				show, end := a.progress()
				kernel, err = c.PullKernel(cmd.Context(), args[0], show)
				end()
			}
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(kernel)
			}
			return a.printKernelNames([]banger.Kernel{kernel})
		},
	}
	addDetach(cmd, &detach)
	return cmd
}

// completeOffers offers the kernels that can be had by name.
func (a *app) completeOffers(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeNames(cmd, func(ctx context.Context, c *client.Client) (names []cobra.Completion) {
		offers, _ := c.OfferedKernels(ctx)
		for _, offer := range offers {
			names = append(names, cobra.CompletionWithDesc(offer.Name, escape(offer.Source)))
		}
		return names
	})
}
