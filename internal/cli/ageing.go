package cli

import (
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/api"
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
	_ = cmd.RegisterFlagCompletionFunc("ttl", cobra.NoFileCompletions)
	f.stopIdle.addIdle(cmd, " (default: as configured)")
}

// addIdle adds the flag of when a VM is stopped; the words are on what holds without it.
func (s *span) addIdle(cmd *cobra.Command, without string) {
	cmd.Flags().Var(s, "stop-idle", "stop it when nobody has used it for this `time`: 30m; 0 is never"+without)
	_ = cmd.RegisterFlagCompletionFunc("stop-idle", cobra.NoFileCompletions)
}

// idle is what the flag says, nil when it was not given.
func (s *span) idle(cmd *cobra.Command) (*time.Duration, error) {
	if !cmd.Flags().Changed("stop-idle") {
		return nil, nil
	}
	idle := time.Duration(*s)
	if idle != 0 && idle < banger.MinStopIdle {
		return nil, banger.Invalidf("--stop-idle %s: want at least %s, or 0 for never", banger.FormatDuration(idle), banger.FormatDuration(banger.MinStopIdle))
	}
	return &idle, nil
}

// request adds what was given.
func (f *ageFlags) request(cmd *cobra.Command, req *api.CreateRequest) error {
	if cmd.Flags().Changed("ttl") {
		if req.TTL = time.Duration(f.ttl); req.TTL == 0 {
			return banger.Invalidf("--ttl 0: want a time such as 2h or 7d; without --ttl a VM stays")
		}
	}
	var err error
	req.StopIdle, err = f.stopIdle.idle(cmd)
	return err
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
