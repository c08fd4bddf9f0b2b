package cli

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"banger/api"
)

func (a *app) opsList() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "list [--all]", Aliases: []string{"ls"}, Short: "list the operations that run", Args: noArgs,
		Example: "  banger ops list\n  banger ops list --all --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			list, err := c.Operations(cmd.Context())
			if err != nil {
				return err
			}
			list = slices.DeleteFunc(list, func(op api.Operation) bool { return !all && op.State != api.OperationRunning })
			switch {
			case a.json:
				return a.printJSON(append([]api.Operation{}, list...))
			case a.quiet:
				for _, op := range list {
					fmt.Fprintln(a.Out, op.ID)
				}
				return nil
			case len(list) == 0:
				a.notice("nothing is running")
			}
			return table(a.Out, opRows(list, a.now()))
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those that ended")
	return cmd
}

func opRows(list []api.Operation, now time.Time) [][]string {
	rows := [][]string{{"ID", "OPERATION", "STATE", "STAGE", "CLIENT", "STARTED"}}
	for _, op := range list {
		rows = append(rows, []string{op.ID, whatOf(op), string(op.State), stageOf(op), clientOf(op), ago(now, op.StartedAt)})
	}
	return rows
}

// stageOf says what a running operation does right now.
func stageOf(op api.Operation) string {
	if op.State != api.OperationRunning {
		return "-"
	}
	for _, stage := range slices.Backward(op.Stages) {
		if !stage.Done {
			return stage.Stage + ": " + describe(stage)
		}
	}
	return "-"
}

// clientOf says whose end ends an operation.
func clientOf(op api.Operation) string {
	switch {
	case op.Detached:
		return "detached"
	case op.ClientPID == 0:
		return "-"
	}
	return strconv.Itoa(op.ClientPID)
}
