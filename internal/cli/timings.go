package cli

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"banger"
)

func addTimings(cmd *cobra.Command, timings *bool) {
	cmd.Flags().BoolVar(timings, "timings", false, "show how long each step took")
}

// stages collects how long the stages of an operation took.
type stages struct {
	mu   sync.Mutex
	list []banger.Timing
}

// record passes progress on to show.
func (s *stages) record(show banger.ProgressFunc) banger.ProgressFunc {
	return func(p banger.Progress) {
		if p.Done {
			s.mu.Lock()
			s.list = append(s.list, banger.Timing{Side: "host", Step: p.Stage, Elapsed: p.Elapsed})
			s.mu.Unlock()
		}
		show.Report(p)
	}
}

// printTimings writes the stages and the steps of the run, host and guest apart, to standard error.
func (a *app) printTimings(s *stages, run []banger.Timing) error {
	s.mu.Lock()
	all := append(s.list[:len(s.list):len(s.list)], run...)
	s.mu.Unlock()
	if a.json {
		return json.NewEncoder(a.Err).Encode(map[string][]banger.Timing{"timings": all})
	}
	rows := [][]string{{"SIDE", "STEP", "TOOK"}}
	for _, side := range []string{"host", "guest"} {
		for _, t := range all {
			if t.Side == side {
				rows = append(rows, []string{side, t.Step, milliseconds(t.Elapsed)})
			}
		}
	}
	return table(a.Err, rows)
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}
