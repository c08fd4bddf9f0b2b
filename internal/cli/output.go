package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

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

// printJSON writes v for programs.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.Out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table writes aligned columns. Cells are escaped: a record may hold what a guest made up.
func table(w io.Writer, rows [][]string) error {
	all := bufio.NewWriter(w) // a tabwriter writes each cell by itself
	tw := tabwriter.NewWriter(all, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = escape(cell)
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	return errors.Join(tw.Flush(), all.Flush())
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
