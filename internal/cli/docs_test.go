package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"banger"
	"banger/internal/testenv"
	"banger/internal/testenv/shown"
)

// Every command line that a document shows is one that banger takes: command, flags, number of arguments.
func TestShownCommands(t *testing.T) {
	docsRoot := besideARepository(t)
	documents, err := shown.Documents(docsRoot)
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, name := range documents {
		path := filepath.Join(docsRoot, name)
		list, err := shown.In(path)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, s := range list {
			lines += checkShown(t, fmt.Sprintf("%s:%d", name, s.Line), s)
		}
		checkInline(t, path)
	}
	if lines < 60 {
		t.Errorf("%d command lines found in %d documents: where are they?", lines, len(documents))
	}
}

// checkShown checks the calls of banger in s and counts them.
func checkShown(t *testing.T, where string, s shown.Statement) (calls int) {
	t.Helper()
	for _, argv := range s.Calls {
		if filepath.Base(argv[0]) != "banger" {
			continue
		}
		calls++
		if err := takes(argv[1:], true); err != nil {
			t.Errorf("%s: %s: %v", where, s.Text, err)
		}
	}
	return calls
}

var inlineCommand = regexp.MustCompile("`banger ([^`]+)`")

// checkInline checks what stands in a line of text. It may leave arguments out: "`banger vm delete` removes it".
func checkInline(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range inlineCommand.FindAllStringSubmatch(string(text), -1) {
		words, _, _ := strings.Cut(found[1], "[") // optional parts
		words = strings.NewReplacer("…", "", "...", "").Replace(words)
		list, err := shown.Parse("banger " + words)
		if err == nil && len(list) == 1 && len(list[0].Calls) > 0 {
			err = takes(list[0].Calls[0][1:], false)
		}
		if err != nil {
			t.Errorf("%s: `banger %s`: %v", path, found[1], err)
		}
	}
}

// takes parses args as banger would. Nothing is run.
func takes(args []string, whole bool) error {
	root := (&app{Streams: Streams{Out: os.Stdout, Err: os.Stderr}, build: banger.Build{Version: "v1"}}).rootCommand()
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	words := cmd.Flags().Args()
	if cmd.HasSubCommands() && len(words) > 0 {
		return fmt.Errorf("%s has no command %q", cmd.CommandPath(), words[0])
	}
	if !whole || cmd.HasSubCommands() {
		return nil
	}
	return cmd.ValidateArgs(words)
}

// besideARepository makes the working directory one with a directory repo, which examples name, and gives the project's root.
func besideARepository(t *testing.T) string {
	t.Helper()
	root, err := testenv.ModuleRoot()
	if err == nil {
		t.Chdir(t.TempDir())
		err = os.Mkdir("repo", 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// The check finds what is wrong.
func TestTakes(t *testing.T) {
	for _, c := range []struct {
		line  string
		whole bool
		want  string // part of the error; "" for none
	}{
		{"vm run --name a -- make test", true, ""},
		{"vm run --nmae a", true, "unknown flag: --nmae"},
		{"vm crate", true, `no command "crate"`},
		{"crate", true, `no command "crate"`},
		{"vm show", true, "name of one VM"},
		{"vm show", false, ""},
		{"vm show a b", true, "name of one VM"},
		{"vm run --memory lots", true, "memory"},
	} {
		err := takes(strings.Fields(c.line), c.whole)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("takes(%q, %v) = %v, want %q", c.line, c.whole, err, c.want)
		}
	}
}
