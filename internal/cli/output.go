package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/dustin/go-humanize"
	"golang.org/x/term"

	"banger"
)

// SGR parameters (ECMA-48).
const (
	red = "1;31"
	dim = "2"
)

// color gives the function that colours text on standard error: only on a terminal, and never under NO_COLOR.
func (a *app) color() func(sgr, text string) string {
	if _, ok := terminal(a.Err); !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return func(_, text string) string { return text }
	}
	return func(sgr, text string) string { return "\x1b[" + sgr + "m" + text + "\x1b[0m" }
}

// notice tells a person something on standard error.
func (a *app) notice(format string, args ...any) {
	text := escape(fmt.Sprintf(format, args...))
	switch {
	case a.listener.Notice != nil:
		a.listener.Notice(text)
	case !a.silent():
		fmt.Fprintln(a.Err, a.color()(dim, text))
	}
}

// printJSON writes v for programs, or as the template of --format has it.
func (a *app) printJSON(v any) error {
	if a.template != nil {
		return a.template.Write(a.Out, v)
	}
	enc := json.NewEncoder(a.Out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// printLine writes v as one line of several that come as things happen.
func (a *app) printLine(v any) error {
	if a.template != nil {
		return a.template.Write(a.Out, v)
	}
	enc := json.NewEncoder(a.Out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// gap is what stands between two columns.
const gap = "  "

// table writes aligned columns, on a terminal no wider than that is. Cells are escaped: a record may hold what a guest made up.
func table(w io.Writer, rows [][]string) error {
	cols := 0 // as wide as it comes
	if fd, on := terminal(w); on {
		cols, _, _ = term.GetSize(fd)
	}
	return tableWithin(w, rows, cols)
}

// minColumn is how narrow a column is made before the lines are cut.
const minColumn = 8

// tableWithin has each line in cols columns of a terminal; 0 sets no bound. Where that is narrow the widest columns are cut first.
func tableWithin(w io.Writer, rows [][]string, cols int) error {
	var widths []int
	cells := make([][]string, len(rows))
	for i, row := range rows {
		for j, cell := range row {
			text := escape(cell)
			cells[i] = append(cells[i], text)
			if j == len(widths) {
				widths = append(widths, 0)
			}
			widths[j] = max(widths[j], ansi.StringWidth(text))
		}
	}
	if cols > 0 {
		narrow(widths, cols)
	}
	all := bufio.NewWriter(w)
	for _, row := range cells {
		var line strings.Builder
		for j, text := range row {
			text = ansi.Truncate(text, widths[j], "…")
			line.WriteString(text)
			if j < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[j]-ansi.StringWidth(text)) + gap)
			}
		}
		text := line.String()
		if cols > 0 {
			text = ansi.Truncate(text, cols, "…")
		}
		fmt.Fprintln(all, text)
	}
	return all.Flush()
}

// narrow takes from the widest column until all are within cols, or none can give any more.
func narrow(widths []int, cols int) {
	total := (len(widths) - 1) * len(gap)
	for _, width := range widths {
		total += width
	}
	for ; total > cols; total-- {
		widest := 0
		for j, width := range widths {
			if width > widths[widest] {
				widest = j
			}
		}
		if widths[widest] <= minColumn {
			return
		}
		widths[widest]--
	}
}

// escape makes text safe for a terminal.
func escape(text string, keep ...rune) string { return banger.Escape(text, keep...) }

// ago writes a moment for people; "-" for none.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return humanize.RelTime(t, now, "ago", "from now")
}

// seconds writes a duration for people: "0.3s", "41.2s", "2m05s".
func seconds(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
}
