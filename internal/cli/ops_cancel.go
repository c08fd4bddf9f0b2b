package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"banger/api"
)

func (a *app) opsCancel() *cobra.Command {
	return &cobra.Command{
		Use: "cancel OP...", Short: "end operations and undo what they made", Args: someOps,
		Long: `It returns when all is undone. A pull or build that others wait for too goes on for them. To start, stop or delete a VM can't be
undone halfway: "banger vm stop" ends a start.`,
		Example:           "  banger ops cancel op-1a2b3c4d\n  banger ops cancel $(banger ops list --quiet)     all of them",
		ValidArgsFunction: a.completeOps(0, api.OperationRunning),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			done, err := together(args, func(ref string) (api.Operation, error) { return c.CancelOperation(cmd.Context(), ref) })
			if a.json {
				return errorAfter(a.printJSON(append([]api.Operation{}, done...)), err)
			}
			for _, op := range done {
				fmt.Fprintln(a.Out, op.ID)
			}
			return err
		},
	}
}
