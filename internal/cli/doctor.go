package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/hostcheck"
	"banger/internal/proc"
)

func (a *app) doctorCommand() *cobra.Command {
	var fix bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "look for what is wrong with this computer and with banger's files, and say what to do", Args: noArgs,
		Long: `It looks at the computer (processor, QEMU, KVM, confinement, free space), the state directory, the database, the disk of each machine, images,
kernels, leftovers, processes and the configuration, and whether names of machines resolve here and ssh finds them. PASS is in order, WARN works but not as well or not for long, FAIL does not. It exits with 0 unless
something fails, and then with 1. No daemon is needed.

--fix repairs what is banger's own: it ends processes of machines that are gone and starts the daemon anew, which removes leftovers. Running
machines and the commands in them go on.`,
		Example: "  banger doctor\n  banger doctor --fix\n  banger doctor --json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context(), fix) },
	}
	cmd.Flags().BoolVar(&fix, "fix", false, "repair what is banger's own")
	return cmd
}

func (a *app) doctor(ctx context.Context, fix bool) error {
	if fix {
		if err := a.fix(ctx); err != nil {
			a.notice("repair: %v", err) // the report tells why
		}
	}
	report, err := examine(ctx)
	if err != nil {
		return err
	}
	report = append(report, a.daemonCheck(ctx), a.configCheck(ctx), a.namesCheck(ctx), a.sshCheck(ctx))
	if a.json {
		err = a.printJSON(report)
	} else {
		err = table(a.Out, checkRows(report))
	}
	if err == nil && report.Status() == hostcheck.Fail {
		err = commandExit{status: statusOther}
	}
	return err
}

// fix does what may be done without asking: nothing of it loses what anybody made.
func (a *app) fix(ctx context.Context) error {
	c, err := a.dialExisting(ctx)
	if err == nil {
		err = stopDaemon(ctx, c, false)
		c.Close()
	}
	if err != nil && !errors.Is(err, banger.ErrUnavailable) {
		return err
	}
	if _, err := examine(ctx, "--fix"); err != nil {
		return err
	}
	c, err = a.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Status(ctx)
	return err
}

// examine has the daemon's program look.
func examine(ctx context.Context, args ...string) (report hostcheck.Report, err error) {
	cfg, err := client.Config{}.Complete()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = proc.Run(ctx, proc.Command{Path: cfg.Daemon, Args: append([]string{"--doctor", "--state-dir", cfg.StateDir}, args...), Stdout: &out})
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &report)
	}
	if err != nil {
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "examine", Err: err, Hint: "bangerd belongs beside banger and is of the same version"}
	}
	return report, nil
}

// daemonCheck compares the daemon that runs with this program.
func (a *app) daemonCheck(ctx context.Context) hostcheck.Check {
	check := hostcheck.Check{Name: "daemon", Status: hostcheck.Pass, Details: "does not run; commands that need it start it"}
	c, err := a.dialExisting(ctx)
	if err != nil {
		return check
	}
	defer c.Close()
	status, err := c.Status(ctx)
	switch {
	case err != nil:
		check.Status, check.Details, check.Hint = hostcheck.Fail, err.Error(), banger.HintOf(err)
	case status.Version != a.build.Version:
		check.Status, check.Hint = hostcheck.Warn, "banger daemon stop"
		check.Details = fmt.Sprintf("version %s runs, this program is %s", status.Version, a.build.Version)
	default:
		check.Details = fmt.Sprintf("version %s, process %d, %d VMs run", status.Version, status.PID, status.Running)
	}
	return check
}

// checkRows has a line for each check and one below it for the next step.
func checkRows(report hostcheck.Report) [][]string {
	var rows [][]string
	for _, c := range report {
		rows = append(rows, []string{string(c.Status), c.Name, c.Details})
		if c.Hint != "" {
			rows = append(rows, []string{"", "", "next: " + c.Hint})
		}
	}
	return rows
}
