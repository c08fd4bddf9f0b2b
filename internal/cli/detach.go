package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"banger/api"
	"banger/client"
)

func addDetach(cmd *cobra.Command, detach *bool) {
	cmd.Flags().BoolVarP(detach, "detach", "d", false, "print an operation's id and leave it to the daemon (see: banger ops)")
}

// detach starts what route does and tells how to hear of it again.
func (a *app) detach(ctx context.Context, c *client.Client, route string, req any) error {
	op, err := c.Detach(ctx, route, req)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(op)
	}
	a.notice("%s goes on: banger ops wait %s", whatOf(op), op.ID)
	_, err = fmt.Fprintln(a.Out, op.ID)
	return err
}

// whatOf says what an operation does: "create vm devbox".
func whatOf(op api.Operation) string { return strings.TrimSpace(op.Kind + " " + op.Subject) }
