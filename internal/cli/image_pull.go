package cli

import (
	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api"
)

func (a *app) imagePull() *cobra.Command {
	var name, boot string
	var insecure bool
	cmd := &cobra.Command{
		Use: "pull REF", Short: "make an image of what a registry has",
		Long: `REF is what "docker pull" takes. The image for linux/amd64 is taken, and boots as it is: nothing is installed in it. Private registries
take the credentials of "docker login".`,
		Example: `  banger image pull alpine:3
  banger image pull registry.example/team/app@sha256:… --name app
  banger vm run --image app`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return inputError(cmd, "want one reference, such as alpine:3")
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if name != "" {
				if err := banger.ValidateImageName(name); err != nil {
					return err
				}
			}
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			show, end := a.progress()
			image, err := c.PullImage(cmd.Context(), api.PullRequest{Ref: args[0], Name: name, Boot: banger.BootKind(boot), Insecure: insecure}, show)
			end()
			if err != nil {
				return err
			}
			return a.printMade(image)
		},
	}
	imageFlags(cmd, &name, &boot, "of the repository")
	cmd.Flags().BoolVar(&insecure, "insecure", false, "ask a registry without encryption if need be")
	return cmd
}

// imageFlags are those of the commands that make an image.
func imageFlags(cmd *cobra.Command, name, boot *string, otherwise string) {
	cmd.Flags().StringVar(name, "name", "", "`name` of the image (default: "+otherwise+")")
	cmd.Flags().StringVar(boot, "boot", "", "first process: `agent` or system (default: system if the image has systemd)")
	_ = cmd.RegisterFlagCompletionFunc("name", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("boot", cobra.FixedCompletions([]cobra.Completion{"agent", "system"}, cobra.ShellCompDirectiveNoFileComp))
}

func (a *app) printMade(image banger.Image) error {
	if a.json {
		return a.printJSON(image)
	}
	return a.printImages([]banger.Image{image})
}
