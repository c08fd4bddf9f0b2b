package cli

import (
	"github.com/spf13/cobra"

	"banger"
)

func (a *app) vmShell() *cobra.Command {
	var flags execFlags
	cmd := &cobra.Command{
		Use: "shell [flags] VM", Short: "get a shell in a VM", Args: oneVM,
		Long:              "The login shell of the user. Leaving it leaves the VM running.",
		Example:           "  banger vm shell devbox\n  banger vm shell --user www-data devbox",
		ValidArgsFunction: a.completeVMs(1, banger.StateRunning),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.execIn(cmd.Context(), args[0], nil, flags)
		},
	}
	flags.add(cmd)
	return cmd
}
