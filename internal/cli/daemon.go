package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/proc"
)

// daemonEndTimeout is how long a daemon may take to end: requests under way are undone first.
const daemonEndTimeout = 30 * time.Second

func (a *app) daemonStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "show whether the daemon runs, where it listens and logs", Args: noArgs,
		Example: "  banger daemon status\n  banger daemon status --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dialExisting(cmd.Context())
			if errors.Is(err, banger.ErrUnavailable) {
				return &banger.Error{Kind: banger.ErrUnavailable, Err: errors.New("the daemon does not run"), Hint: "commands that need it start it: banger vm list"}
			}
			if err != nil {
				return err
			}
			defer c.Close()
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(s)
			}
			return table(a.Out, [][]string{
				{"pid", strconv.Itoa(s.PID)}, {"version", s.Version}, {"started", ago(a.now(), s.StartedAt)},
				{"running VMs", strconv.Itoa(s.Running)}, {"operations", strconv.Itoa(s.Ops)}, {"runs VMs by", or(s.Accel, "not probed yet")},
				{"state", s.StateDir}, {"socket", s.Socket}, {"log", s.Log},
				{".vm names", or(s.DNS, "not answered: see the log")}, {"HTTP entry", or(s.HTTP, "not there: see the log")},
			})
		},
	}
}

func (a *app) daemonStop() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "stop [flags]", Short: "end the daemon; VMs and the commands in them go on", Args: noArgs,
		Long: `It refuses while operations run (see: banger ops list). With --force those get a moment, then what they make is undone; a start or a
stop of a VM that is cut off so is finished by the next daemon.`,
		Example: "  banger daemon stop\n  banger daemon stop --force",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dialExisting(cmd.Context())
			if errors.Is(err, banger.ErrUnavailable) {
				a.notice("the daemon does not run")
				return nil
			}
			if err != nil {
				return err
			}
			defer c.Close()
			return stopDaemon(cmd.Context(), c, force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also while operations run")
	return cmd
}

// stopDaemon returns when the daemon's process is gone: the next command starts another.
func stopDaemon(ctx context.Context, c *client.Client, force bool) error {
	status, err := c.Status(ctx)
	if err != nil {
		return err
	}
	daemon, err := proc.HandleOf(status.PID)
	if err != nil {
		return err
	}
	if err := c.Shutdown(ctx, force); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, daemonEndTimeout)
	defer cancel()
	if err := daemon.Wait(limited); err != nil && ctx.Err() == nil {
		return &banger.Error{Kind: banger.ErrUnavailable, Op: "stop the daemon", Err: fmt.Errorf("process %d still runs after %s", status.PID, daemonEndTimeout),
			Hint: "see its log: " + status.Log}
	}
	return ctx.Err()
}
