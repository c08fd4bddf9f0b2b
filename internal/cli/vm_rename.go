package cli

import (
	"github.com/spf13/cobra"

	"banger"
	"banger/api"
)

func (a *app) vmRename() *cobra.Command {
	return &cobra.Command{
		Use: "rename VM NAME", Short: "give a VM another name",
		Long: `The VM keeps its id, its disk and what runs in it. Inside, the host name changes at once.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return inputError(cmd, "want a VM and its new name, got %d arguments", len(args))
			}
			return banger.ValidateVMName(args[1])
		},
		Example:           "  banger vm rename brisk-otter devbox",
		ValidArgsFunction: a.completeVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			show, end := a.progress()
			detail, err := c.RenameVM(cmd.Context(), args[0], args[1], show)
			end()
			if err != nil {
				return err
			}
			return a.printVMs([]api.VMDetail{detail}, vmName)
		},
	}
}
