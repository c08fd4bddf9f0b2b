package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/client"
	"banger/internal/hostcheck"
	"banger/internal/proc"
)

func (a *app) doctorCommand() *cobra.Command {
	var fix bool
	cmd := &cobra.Command{
		Use: "doctor [flags]", Short: "look for what is wrong with this computer and with banger's files, and say what to do", Args: noArgs,
		Long: `It looks at the computer (system, processor, QEMU, KVM, confinement, programs, free space, limits, clock), the state directory, the
database, the disk of each machine, images, kernels, leftovers, processes and the configuration, and whether names of machines resolve here
and ssh finds them. PASS is in order, WARN works but not as well or not for long, FAIL does not; and the line below says the next step. What commands
refuse, they refuse for the same reasons and in the same words. It exits with 0 unless something fails, and then with 1. No daemon is needed.

--fix repairs what is banger's own, if there is something: it ends processes of machines that are gone and starts the daemon anew, which
removes leftovers. On a terminal it asks first, elsewhere it does so at once. Running machines and the commands in them go on.`,
		Example: "  banger doctor\n  banger doctor --fix\n  banger doctor --json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context(), fix) },
	}
	cmd.Flags().BoolVar(&fix, "fix", false, "repair what is banger's own")
	return cmd
}

func (a *app) doctor(ctx context.Context, fix bool) error {
	report, err := a.fullReport(ctx)
	if err != nil {
		return err
	}
	if repairs := repairable(report); fix && len(repairs) > 0 {
		if yes, err := a.mayRepair(ctx, repairs); err != nil {
			return err
		} else if yes {
			if err := a.fix(ctx); err != nil {
				a.notice("repair: %v", err) // the report tells why
			}
			if report, err = a.fullReport(ctx); err != nil {
				return err
			}
		}
	}
	if a.json {
		err = a.printJSON(report)
	} else {
		err = tableWithin(a.Out, checkRows(report), 0) // whole: the end of a line may be the path that matters
	}
	if err == nil && report.Status() == hostcheck.Fail {
		err = commandExit{status: statusOther}
	}
	return err
}

// fullReport is the daemon's program's look, and ours.
func (a *app) fullReport(ctx context.Context) (hostcheck.Report, error) {
	report, err := examine(ctx)
	if err != nil {
		return nil, err
	}
	return append(report, a.daemonCheck(ctx), a.configCheck(ctx), a.namesCheck(ctx), a.sshCheck(ctx)), nil
}

// repairable are the checks whose next step is a repair of ours.
func repairable(report hostcheck.Report) (list hostcheck.Report) {
	for _, c := range report {
		if c.Status != hostcheck.Pass && (strings.HasPrefix(c.Hint, "banger doctor --fix") || strings.HasPrefix(c.Hint, "banger daemon stop")) {
			list = append(list, c)
		}
	}
	return list
}

// mayRepair asks a person. Where nobody can be asked, --fix is the answer: no repair loses what anybody made.
func (a *app) mayRepair(ctx context.Context, repairs hostcheck.Report) (bool, error) {
	if _, person := terminal(a.In); !person {
		return true, nil
	}
	for i := range repairs {
		repairs[i].Hint = ""
	}
	if err := tableWithin(a.Err, checkRows(repairs), 0); err != nil {
		return false, err
	}
	return a.confirm(ctx, "Repair this? The daemon starts anew, VMs go on.")
}

// fix repairs: nothing of it loses what anybody made.
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
	var why banger.ErrorBody
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &report)
	} else if json.Unmarshal(out.Bytes(), &why) == nil && why.Kind != "" {
		return nil, why.Decode()
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
