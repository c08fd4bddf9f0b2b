package cli

import (
	"fmt"
	"strings"
	"testing"

	"banger"
	"banger/api"
)

func someStats(n int) (stats api.Stats) {
	for i := range n {
		stats.VMs = append(stats.VMs, api.VMStats{Name: fmt.Sprintf("vm%02d\x1b[2J", i), State: banger.StateRunning, MemoryMiB: 1024})
	}
	return stats
}

// terminalModel is what a terminal shows that knows the three things that are drawn with.
type terminalModel struct {
	t     *testing.T
	cols  int // as it is now
	lines []string
	row   int // of the cursor, which is at the line's beginning
}

func (m *terminalModel) Write(p []byte) (int, error) {
	text := string(p)
	var up int
	if n, _ := fmt.Sscanf(text, "\x1b[%dA\x1b[J", &up); n == 1 {
		if up > m.row {
			m.t.Errorf("the cursor goes up %d of %d lines", up, m.row)
		}
		m.row -= up
		m.lines = m.lines[:m.row]
		text = strings.TrimPrefix(text, fmt.Sprintf("\x1b[%dA\x1b[J", up))
	}
	for line := range strings.SplitAfterSeq(text, "\r\n") {
		if line == "" {
			continue
		}
		line, whole := strings.CutSuffix(line, "\r\n")
		if !whole || strings.ContainsAny(line, "\x1b\r\n") || len([]rune(line)) >= m.cols {
			m.t.Errorf("line %q does not fit %d columns", line, m.cols)
		}
		m.lines = append(m.lines, line)
		m.row++
	}
	return len(p), nil
}

func TestRedrawn(t *testing.T) {
	rows := 24
	m := &terminalModel{t: t, cols: 80}
	r := &redrawn{w: m, size: func() (int, int) { return m.cols, rows }}
	for _, step := range []struct{ vms, cols, rows, shown int }{
		{2, 120, 24, 2}, {3, 120, 24, 3}, {0, 120, 24, 0}, {40, 60, 24, 21}, {40, 20, 5, 2}, {1, 120, 24, 1},
	} {
		m.cols, rows = step.cols, step.rows
		if err := r.show(someStats(step.vms)); err != nil {
			t.Fatal(err)
		}
		text := strings.Join(m.lines, "\n")
		if got := strings.Count(text, "\nvm"); got != step.shown || strings.Count(text, "NAME") != 1 || len(m.lines) >= step.rows {
			t.Errorf("%+v: shown\n%s", step, text)
		}
		if hidden := step.vms - step.shown; hidden > 0 && !strings.Contains(text, fmt.Sprintf("... and %d more", hidden)) {
			t.Errorf("%+v: what is left out is not told:\n%s", step, text)
		}
	}
}
