package cli

import (
	"github.com/spf13/cobra"

	"banger"
	"banger/api"
)

func (a *app) imagePull() *cobra.Command {
	var req api.PullRequest
	var detach bool
	cmd := &cobra.Command{
		Use: "pull [flags] REF", Short: "make an image of what the catalog or a registry has",
		Long: `A plain name is looked for in the configured catalog first (see: banger image list --available). Else REF is what "docker pull" takes.
The image for linux/amd64 is taken, and boots as it is: nothing is installed in it. Private registries take the credentials of
"docker login" or "podman login", also those of a credential helper.`,
		Example: `  banger image pull alpine:3
  banger image pull registry.example/team/app@sha256:… --name app
  banger vm run --image app`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return inputError(cmd, "want one reference, such as alpine:3")
			}
			return nil
		},
		ValidArgsFunction: a.completeCatalogImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.Name != "" {
				if err := banger.ValidateImageName(req.Name); err != nil {
					return err
				}
			}
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			req.Ref = args[0]
			if detach {
				return a.detach(cmd.Context(), c, api.RouteImagePull, req)
			}
			show, end := a.progress()
			image, err := c.PullImage(cmd.Context(), req, show)
			end()
			if err != nil {
				return err
			}
			return a.printMade(image)
		},
	}
	a.imageFlags(cmd, &req.Name, &req.Boot, &req.Kernel, "of the repository")
	cmd.Flags().StringVar(&req.Platform, "platform", "linux/amd64", "`platform` of the image; machines run this one alone")
	_ = cmd.RegisterFlagCompletionFunc("platform", cobra.FixedCompletions([]cobra.Completion{"linux/amd64"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().BoolVar(&req.Insecure, "insecure", false, "ask a registry without encryption if need be")
	addDetach(cmd, &detach)
	return cmd
}

// imageFlags are those of the commands that make an image.
func (a *app) imageFlags(cmd *cobra.Command, name *string, boot *banger.BootKind, kernel *string, otherwise string) {
	cmd.Flags().StringVar(name, "name", "", "`name` of the image (default: "+otherwise+")")
	cmd.Flags().StringVar((*string)(boot), "boot", "", "first process: `agent` or system (default: system if the image has systemd)")
	cmd.Flags().StringVar(kernel, "kernel", "", "`kernel` that its machines boot (default: the one that vm run takes)")
	_ = cmd.RegisterFlagCompletionFunc("kernel", a.completeAnyKernel)
	_ = cmd.RegisterFlagCompletionFunc("name", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("boot", cobra.FixedCompletions([]cobra.Completion{"agent", "system"}, cobra.ShellCompDirectiveNoFileComp))
}

func (a *app) printMade(image banger.Image) error {
	if a.json {
		return a.printJSON(image)
	}
	return a.printImages([]banger.Image{image})
}
