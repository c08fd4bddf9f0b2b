package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
)

func (a *app) vmShow() *cobra.Command {
	return &cobra.Command{
		Use: "show VM", Short: "show everything about a VM", Args: oneVM,
		Example:           "  banger vm show devbox\n  banger vm show --json devbox",
		ValidArgsFunction: a.completeVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			detail, err := c.ShowVM(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(detail)
			}
			if a.quiet {
				_, err := fmt.Fprintln(a.Out, detail.ID)
				return err
			}
			if err := table(a.Out, showRows(detail, a.now())); err != nil {
				return err
			}
			if detail.Exit != nil && detail.Exit.Console != "" && detail.State == banger.StateError {
				_, err = fmt.Fprintf(a.Out, "\nlast lines of its console:\n%s\n", escape(strings.TrimRight(detail.Exit.Console, "\n"), '\n', '\t'))
			}
			return err
		},
	}
}

// showRows leaves out what does not apply.
func showRows(d api.VMDetail, now time.Time) [][]string {
	spec := d.Spec
	state := string(d.State)
	if d.Phase != "" && d.Phase != "ready" {
		state += " (" + d.Phase + ")"
	}
	rows := [][]string{
		{"name", spec.Name}, {"id", string(d.ID)}, {"state", state}, {"error", d.LastError}, {"last run", exitText(d.Exit, now)},
		{"image", spec.Image}, {"kernel", d.Kernel}, {"vcpu", strconv.Itoa(spec.VCPU)}, {"memory", fmt.Sprintf("%d MiB", spec.MemoryMiB)},
		{"disk", banger.FormatSize(spec.DiskBytes)}, netRow(d), {"user", spec.User}, {"runs by", d.Accel}, {"boots", strconv.Itoa(d.Boots)},
		{"created", ago(now, d.CreatedAt)},
	}
	if d.State == banger.StateRunning {
		rows = append(rows, []string{"started", ago(now, d.StartedAt)})
	}
	if d.Remove {
		rows = append(rows, []string{"removed", "when its client ends"})
	}
	rows = append(rows, ageRows(d.VM, now)...)
	for _, p := range spec.Publish {
		rows = append(rows, []string{"port", fmt.Sprintf("%s here is %d in it", p.Host, p.Guest)})
	}
	for _, f := range d.Synced {
		rows = append(rows, []string{"synced", f.String()})
	}
	for _, key := range slices.Sorted(maps.Keys(spec.Labels)) {
		rows = append(rows, []string{"label", key + "=" + spec.Labels[key]})
	}
	for _, key := range slices.Sorted(maps.Keys(spec.Env)) {
		rows = append(rows, []string{"env", key})
	}
	if d.Pending != nil {
		for _, c := range d.Pending.Fields(spec) {
			rows = append(rows, []string{"at its next start", fmt.Sprintf("%s: %s instead of %s", c.Field, c.To, c.From)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.PIDs)) {
		rows = append(rows, []string{"pid", fmt.Sprintf("%d %s", d.PIDs[name], name)})
	}
	rows = append(rows, []string{"directory", d.Dir})
	return slices.DeleteFunc(rows, func(row []string) bool { return row[1] == "" })
}

// exitText says how a run ended, and when; "" while it goes on.
func exitText(e *banger.Exit, now time.Time) string {
	if e == nil {
		return ""
	}
	return causeText(*e) + ", " + ago(now, e.At)
}

func causeText(e banger.Exit) string {
	if e.Detail == "" {
		return string(e.Cause)
	}
	return string(e.Cause) + ": " + e.Detail
}
