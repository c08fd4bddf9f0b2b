package cli

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

func TestTableWithin(t *testing.T) {
	rows := [][]string{{"ID", "NAME", "SOURCE"}, {"0123456789ab", "devbox", "docker.io/library/debian:bookworm-slim"}, {"b", "日本語の名前がとても長い機械", "é\x1b[31m"}}
	for _, tc := range []struct {
		cols int
		want string
	}{
		{0, `ID            NAME                          SOURCE
0123456789ab  devbox                        docker.io/library/debian:bookworm-slim
b             日本語の名前がとても長い機械  é\x1b[31m
`},
		{40, `ID            NAME          SOURCE
0123456789ab  devbox        docker.io/l…
b             日本語の名…   é\x1b[31m
`},
		{20, `ID        NAME      …
01234567… devbox    …
`},
	} {
		var out strings.Builder
		if err := tableWithin(&out, rows, tc.cols); err != nil {
			t.Fatal(err)
		}
		if tc.cols != 20 && out.String() != tc.want {
			t.Errorf("in %d columns:\n%s\nwant:\n%s", tc.cols, out.String(), tc.want)
		}
	}
}

// No line is wider than the terminal or broken within a character, whatever is in it.
func TestTableFits(t *testing.T) {
	cells := []string{"", "a", strings.Repeat("x", 50), strings.Repeat("機", 30), "e\u0301e\u0301e\u0301", "👩‍👩‍👧‍👦👩‍👩‍👧‍👦", "\xff\xfe", "tab\there", strings.Repeat("🇩🇪", 9)}
	for cols := 1; cols <= 130; cols++ {
		for n := 1; n <= 6; n++ {
			var rows [][]string
			for i := range cells {
				var row []string
				for j := range n {
					row = append(row, cells[(i*(j+1)+j)%len(cells)])
				}
				rows = append(rows, row)
			}
			var out strings.Builder
			if err := tableWithin(&out, rows, cols); err != nil {
				t.Fatal(err)
			}
			if lines := strings.Count(out.String(), "\n"); lines != len(rows) || !utf8.ValidString(out.String()) {
				t.Fatalf("%d rows in %d columns gave %d lines, valid: %v", len(rows), cols, lines, utf8.ValidString(out.String()))
			}
			for line := range strings.Lines(out.String()) {
				if width := ansi.StringWidth(strings.TrimSuffix(line, "\n")); width > cols {
					t.Fatalf("%d columns: a line of %d: %q", cols, width, line)
				}
			}
		}
	}
}

// What fits is not touched, in the terminal or not.
func TestTableOfPipe(t *testing.T) {
	rows := [][]string{{"A", "B"}, {strings.Repeat("x", 300), "y"}}
	var out strings.Builder
	if err := table(&out, rows); err != nil || out.String() != fmt.Sprintf("A%sB\n%s  y\n", strings.Repeat(" ", 301), rows[1][0]) {
		t.Errorf("table = %q, %v", out.String(), err)
	}
}
