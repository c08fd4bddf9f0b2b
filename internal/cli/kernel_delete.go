package cli

import (
	"github.com/spf13/cobra"

	"banger"
)

func (a *app) kernelDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete KERNEL...", Aliases: []string{"rm"}, Short: "remove kernels that no VM uses",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return inputError(cmd, "which kernel? see: banger kernel list")
			}
			return nil
		},
		Example:           "  banger kernel delete mine",
		ValidArgsFunction: a.completeKernels,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			done := []banger.Kernel{}
			var failed failures
			for _, name := range args {
				kernel, err := c.DeleteKernel(cmd.Context(), name)
				if err != nil {
					failed = append(failed, err)
					continue
				}
				done = append(done, kernel)
			}
			if err := a.printKernelNames(done); err != nil || failed == nil {
				return err
			}
			return failed
		},
	}
}
