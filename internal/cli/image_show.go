package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banger"
)

func (a *app) imageShow() *cobra.Command {
	return &cobra.Command{
		Use: "show IMAGE", Short: "show everything about an image",
		Args:              oneImage,
		Example:           "  banger image show debian-bookworm-slim",
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			image, err := c.ShowImage(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(image)
			}
			if a.quiet {
				_, err := fmt.Fprintln(a.Out, image.Key)
				return err
			}
			rows := [][]string{{"name", image.Name}, {"key", image.Key}, {"boot", string(image.Boot)}, {"kernel", image.Kernel},
				{"size", banger.FormatSize(image.SizeBytes)}, {"on disk", banger.FormatSize(image.DiskBytes)}, {"created", ago(a.now(), image.CreatedAt)}, {"source", image.Source}, {"description", image.Description},
				{"used by", strings.Join(image.VMs, ", ")}}
			if r := image.Registered; r != nil {
				rows = append(rows, []string{"file", r.Path}, []string{"file sha256", r.SHA256})
			}
			if c := image.Config; c != nil {
				rows = append(rows, []string{"user", c.User}, []string{"directory", c.WorkingDir}, []string{"entry point", strings.Join(c.Entrypoint, " ")},
					[]string{"command", strings.Join(c.Cmd, " ")}, []string{"ports", strings.Join(c.ExposedPorts, ", ")})
				for _, env := range c.Env {
					rows = append(rows, []string{"env", env})
				}
			}
			return table(a.Out, slices.DeleteFunc(rows, func(row []string) bool { return row[1] == "" }))
		},
	}
}

// printImages tells the names of images; with --quiet their keys.
func (a *app) printImages(list []banger.Image) error {
	if a.json {
		return a.printJSON(list)
	}
	for _, image := range list {
		name := image.Name
		if a.quiet {
			name = image.Key
		}
		if _, err := fmt.Fprintln(a.Out, escape(name)); err != nil {
			return err
		}
	}
	return nil
}
