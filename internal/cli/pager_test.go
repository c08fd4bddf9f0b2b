package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

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
