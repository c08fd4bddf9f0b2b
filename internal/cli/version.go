package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger"
)

// versions are those of the programs that work together.
type versions struct {
	banger.Build
	Daemon  *banger.Build `json:"daemon,omitempty"` // that runs; absent: none
	Differs bool          `json:"differs"`          // the daemon is of another version or commit
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "which build this is, and which the daemon", Args: noArgs,
		Long:    "A daemon that runs tells its build, too; none is started for it. One that is older goes on until it is stopped: banger daemon stop.",
		Example: "  banger version\n  banger version --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := a.versions(cmd.Context())
			if a.json {
				return a.printJSON(v)
			}
			if v.Differs {
				a.notice("the daemon that runs is another one: %s", *v.Daemon)
				a.notice("hint: banger daemon stop")
			}
			_, err := fmt.Fprintln(a.Out, "banger", a.build)
			return err
		},
	}
}

// versions asks the daemon, if one runs.
func (a *app) versions(ctx context.Context) versions {
	v := versions{Build: a.build}
	c, err := a.dialExisting(ctx)
	if err != nil {
		return v
	}
	defer c.Close()
	if s, err := c.Status(ctx); err == nil {
		if s.Build == (banger.Build{}) { // of an older daemon
			s.Build.Version = s.Version
		}
		v.Daemon, v.Differs = &s.Build, s.Build.Version != a.build.Version || s.Build.Commit != a.build.Commit
	}
	return v
}
