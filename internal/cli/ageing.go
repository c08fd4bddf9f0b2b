package cli

import (
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api"
)

// span is a flag: a time such as 90m, 2h or 7d.
type span time.Duration

func (s *span) Set(text string) error {
	d, err := banger.ParseDuration(text)
	*s = span(d)
	return err
}

func (s *span) String() string {
	if *s == 0 {
		return ""
	}
	return banger.FormatDuration(time.Duration(*s))
}

func (s *span) Type() string { return "time" }

// ageFlags are what ends a VM by itself.
type ageFlags struct{ ttl, stopIdle span }

func (f *ageFlags) add(cmd *cobra.Command) {
	cmd.Flags().Var(&f.ttl, "ttl", "delete the VM after this `time`, running or not: 2h, 7d")
	cmd.Flags().Var(&f.stopIdle, "stop-idle", "stop it when nobody has used it for this `time`: 30m; 0 is never (default: as configured)")
	for _, name := range []string{"ttl", "stop-idle"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
}

// request adds what was given.
func (f *ageFlags) request(cmd *cobra.Command, req *api.CreateRequest) error {
	if cmd.Flags().Changed("ttl") {
		if req.TTL = time.Duration(f.ttl); req.TTL == 0 {
			return banger.Invalidf("--ttl 0: want a time such as 2h or 7d; without --ttl a VM stays")
		}
	}
	if cmd.Flags().Changed("stop-idle") {
		idle := time.Duration(f.stopIdle)
		if req.StopIdle = &idle; idle != 0 && idle < banger.MinStopIdle {
			return banger.Invalidf("--stop-idle %s: want at least %s, or 0 for never", banger.FormatDuration(idle), banger.FormatDuration(banger.MinStopIdle))
		}
	}
	return nil
}

// ageRows tell what ends a VM by itself.
func ageRows(vm banger.VM, now time.Time) (rows [][]string) {
	if !vm.ExpiresAt.IsZero() {
		rows = append(rows, []string{"deleted", ago(now, vm.ExpiresAt)})
	}
	if vm.Spec.StopIdle > 0 {
		rows = append(rows, []string{"stops", "when nobody has used it for " + banger.FormatDuration(vm.Spec.StopIdle)})
	}
	return rows
}
