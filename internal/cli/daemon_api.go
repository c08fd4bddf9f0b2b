package cli

import (
	"io"

	"github.com/spf13/cobra"

	"banger/api"
)

func (a *app) daemonAPI() *cobra.Command {
	return &cobra.Command{
		Use: "api", Short: "print the description of the daemon's API (OpenAPI 3.1)", Args: noArgs,
		Long: `The JSON document says what a daemon of this version can be asked over its unix socket, and what it answers; docs/api.md tells how. A daemon
that runs gives its own: GET /v1/openapi.json. The daemon need not run.`,
		Example: `  banger daemon api > openapi.json
  curl --unix-socket "$(banger daemon status --json | jq -r .socket)" http://bangerd/v1/openapi.json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.paged(cmd.Context(), func(w io.Writer, _ bool) error {
				_, err := w.Write(api.OpenAPI)
				return err
			})
		},
	}
}
