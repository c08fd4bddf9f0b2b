package cli

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"banger/api"
)

func (a *app) opsShow() *cobra.Command {
	return &cobra.Command{
		Use: "show OP", Short: "show what an operation does, or how it ended",
		Long:    "OP is an operation's id or the beginning of it. The daemon remembers the last operations that ended until it ends itself.",
		Example: "  banger ops show op-1a2b3c4d\n  banger ops show --json op-1a",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return inputError(cmd, "want the id of one operation; see: banger ops list --all")
			}
			return nil
		},
		ValidArgsFunction: a.completeOps(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			op, err := c.ShowOperation(cmd.Context(), args[0])
			switch {
			case err != nil:
				return err
			case a.json:
				return a.printJSON(op)
			case a.quiet:
				_, err = fmt.Fprintln(a.Out, op.ID)
				return err
			}
			return table(a.Out, showOpRows(op, a.now()))
		},
	}
}

// showOpRows leaves out what does not apply.
func showOpRows(op api.Operation, now time.Time) [][]string {
	rows := [][]string{{"id", op.ID}, {"operation", whatOf(op)}, {"state", string(op.State)}}
	if op.Error != nil {
		rows = append(rows, []string{"error", op.Error.Message}, []string{"hint", op.Error.Hint})
	}
	rows = append(rows, []string{"made", madeBy(op)}, []string{"client", clientOf(op)}, []string{"started", ago(now, op.StartedAt)})
	if !op.EndedAt.IsZero() {
		rows = append(rows, []string{"took", seconds(op.EndedAt.Sub(op.StartedAt))})
	}
	for _, stage := range op.Stages {
		text := describe(stage)
		if stage.Done {
			text = "done in " + seconds(stage.Elapsed)
		}
		rows = append(rows, []string{"stage", stage.Stage + ": " + text})
	}
	return slices.DeleteFunc(rows, func(row []string) bool { return row[1] == "" })
}

// madeBy names what an operation made.
func madeBy(op api.Operation) string {
	switch r := op.Result; {
	case r == nil:
		return ""
	case r.VM != nil:
		return "vm " + r.VM.Spec.Name
	case r.Image != nil:
		return "image " + r.Image.Name
	case r.Kernel != nil:
		return "kernel " + r.Kernel.Name
	}
	return ""
}
