package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
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
	if !a.silent() {
		fmt.Fprintln(a.Err, a.color()(dim, escape(fmt.Sprintf(format, args...))))
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

// escape makes text safe for a terminal: control and formatting characters and bytes that are not UTF-8 appear as Go
// writes them in a string. Runes in keep stay.
func escape(text string, keep ...rune) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case slices.Contains(keep, r) || unicode.IsGraphic(r):
			b.WriteString(text[i : i+size])
		case r < utf8.RuneSelf:
			quoted := fmt.Sprintf("%q", r)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += size
	}
	return b.String()
}

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
