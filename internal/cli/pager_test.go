package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
	"github.com/creack/pty"
)

// A pager is used on a terminal only, and only when one is wanted.
func TestPaged(t *testing.T) {
	dir := t.TempDir()
	seen := filepath.Join(dir, "seen")
	pager := func(name string) string {
		path := filepath.Join(dir, name)
		script := fmt.Sprintf("#!/bin/sh\n{ printf '%s %%s ' \"$LESS\"; cat; } > %s\n", name, seen)
		if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, two := pager("one"), pager("two")
	for _, tc := range []struct {
		what        string
		pipe        bool
		ours, pager string
		no          bool
		want        string // in the pager; "": none is used
	}{
		{what: "on a terminal", pager: one, want: "one FRX text"},
		{what: "ours first", ours: two, pager: one, want: "two FRX text"},
		{what: "with arguments", pager: one + " -x  -y", want: "one FRX text"},
		{what: "in a pipe", pipe: true, pager: one},
		{what: "ours in a pipe", pipe: true, ours: one},
		{what: "--no-pager", pager: one, no: true},
		{what: "cat", pager: "cat"},
		{what: "none that is there", pager: "/nonexistent/pager"},
		{what: "blank", pager: " "},
	} {
		_ = os.Remove(seen)
		t.Setenv("BANGER_PAGER", tc.ours)
		t.Setenv("PAGER", tc.pager)
		t.Setenv("LESS", "")
		in, out := ends(t, tc.pipe)
		a := &app{Streams: Streams{Out: out, Err: io.Discard}, noPager: tc.no}
		if err := a.paged(t.Context(), func(w io.Writer, _ bool) error {
			_, err := io.WriteString(w, "text")
			return err
		}); err != nil {
			t.Errorf("%s: %v", tc.what, err)
		}
		text, err := os.ReadFile(seen)
		if got := string(text); got != tc.want || (err != nil) != (tc.want == "") {
			t.Errorf("%s: the pager got %q, want %q", tc.what, got, tc.want)
		}
		if tc.want == "" {
			got := make([]byte, 4)
			if _, err := io.ReadFull(in, got); err != nil || string(got) != "text" {
				t.Errorf("%s: %q came, %v", tc.what, got, err)
			}
		}
		in.Close()
		out.Close()
	}
}

// Colours are for terminals, and for who wants them.
func TestPagedColor(t *testing.T) {
	for _, tc := range []struct {
		pipe          bool
		noColor, term string
		want          bool
	}{{false, "", "xterm", true}, {false, "1", "xterm", false}, {false, "", "dumb", false}, {true, "", "xterm", false}} {
		t.Setenv("PAGER", "cat")
		t.Setenv("NO_COLOR", tc.noColor)
		t.Setenv("TERM", tc.term)
		in, out := ends(t, tc.pipe)
		a := &app{Streams: Streams{Out: out, Err: out}}
		if err := a.paged(t.Context(), func(_ io.Writer, color bool) error {
			if color != tc.want {
				t.Errorf("%+v: colour %v", tc, color)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if got := a.color()(red, "x") != "x"; got != tc.want {
			t.Errorf("%+v: standard error is coloured: %v", tc, got)
		}
		in.Close()
		out.Close()
	}
}

// A table is as wide as the terminal that it goes to.
func TestTableOnTerminal(t *testing.T) {
	for _, cols := range []uint16{40, 80} {
		in, out := ends(t, false)
		if err := pty.Setsize(out, &pty.Winsize{Rows: 24, Cols: cols}); err != nil {
			t.Fatal(err)
		}
		if err := table(out, [][]string{{"NAME", "SOURCE"}, {"box", strings.Repeat("機", 60)}}); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(in)
		for range 2 {
			lines.Scan()
			if width := ansi.StringWidth(strings.TrimRight(lines.Text(), "\r")); width > int(cols) || width < 11 {
				t.Errorf("%d columns: %q", cols, lines.Text())
			}
		}
		if !strings.Contains(lines.Text(), "…") {
			t.Errorf("%d columns: %q is not cut", cols, lines.Text())
		}
		in.Close()
		out.Close()
	}
}

// ends gives both ends of a pipe or a terminal.
func ends(t *testing.T, pipe bool) (in, out *os.File) {
	t.Helper()
	var err error
	if pipe {
		in, out, err = os.Pipe()
	} else {
		in, out, err = pty.Open()
	}
	if err != nil {
		t.Fatal(err)
	}
	return in, out
}
