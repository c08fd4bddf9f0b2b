package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/charmbracelet/x/ansi"

	"banger/api"
)

// redrawn keeps a table on a terminal and draws it anew. Between two drawings the cursor is on the line below it, so that
// whatever ends the command leaves the terminal as it should be.
type redrawn struct {
	w     io.Writer
	size  func() (cols, rows int)
	drawn int // lines on the terminal that belong to us
}

func (r *redrawn) show(stats api.Stats) error {
	cols, rows := r.size()
	var text strings.Builder
	if r.drawn > 0 {
		fmt.Fprintf(&text, "\x1b[%dA\x1b[J", r.drawn)
	}
	lines := fit(statsRows(stats), cols, rows)
	for _, line := range lines {
		text.WriteString(line + "\r\n")
	}
	r.drawn = len(lines)
	_, err := io.WriteString(r.w, text.String())
	return err
}

// fit makes a table's lines no wider than the terminal, and one fewer than it has: a line that is broken or scrolled away could
// not be drawn over.
func fit(cells [][]string, cols, rows int) []string {
	var text strings.Builder
	_ = tableWithin(&text, cells, max(cols-1, 1))
	lines := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	if room := max(rows-1, 2); len(lines) > room {
		hidden := len(lines) - room + 1
		lines = append(lines[:room-1], fmt.Sprintf("... and %d more", hidden))
	}
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, max(cols-1, 1), "")
	}
	return lines
}
