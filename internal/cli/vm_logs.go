package cli

import (
	"github.com/spf13/cobra"

	"banger/internal/machine"
)

func (a *app) vmLogs() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "logs [flags] VM", Short: "show the console of a VM", Args: oneVM,
		Long: `What the guest's kernel and init wrote to the console: the newest part, after the VM has ended too. On a terminal, control
characters are escaped; into a file or a pipe goes every byte as it was.`,
		Example:           "  banger vm logs devbox\n  banger vm logs --follow devbox",
		ValidArgsFunction: a.completeVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			detail, err := a.show(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			out := a.Out
			if _, ok := terminal(a.Out); ok {
				safe := &safeWriter{w: a.Out}
				defer safe.Close()
				out = safe
			}
			return machine.Client{Socket: detail.MachineSocket}.Console(cmd.Context(), follow, out)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the VM ends")
	return cmd
}
