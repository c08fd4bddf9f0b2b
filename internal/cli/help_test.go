package cli

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"banger/internal/manual"
	"banger/internal/testenv"
)

func TestEveryCommandHasHelp(t *testing.T) {
	manual.Walk(Commands("v1"), func(cmd *cobra.Command) {
		switch {
		case cmd.Short == "":
			t.Errorf("%s has no Short", cmd.CommandPath())
		case strings.HasSuffix(cmd.Short, ".") || strings.Contains(cmd.Short, "\n"):
			t.Errorf("%s: Short %q, want one line without a full stop", cmd.CommandPath(), cmd.Short)
		}
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && f.Name != "format" && !f.Hidden && cmd.HasParent() && !strings.Contains(cmd.Use, "[flags]") && !strings.Contains(cmd.Use, "--"+f.Name) {
				t.Errorf("%s: usage %q does not tell of --%s: want [flags]", cmd.CommandPath(), cmd.Use, f.Name)
			}
		})
		if !strings.Contains(cmd.Example, "banger ") {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		if alone, ok := strings.CutPrefix(cmd.Example, "  "); cmd.Example != "" && (!ok || strings.HasPrefix(alone, " ")) {
			t.Errorf("%s: examples begin with two spaces: %q", cmd.CommandPath(), cmd.Example)
		}
	})
}

// Each call of banger in an example is one that banger takes.
func TestExamplesParse(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("repo", 0o755); err != nil { // "vm run" looks what its arguments are
		t.Fatal(err)
	}
	calls := 0
	manual.Walk(Commands("v1"), func(cmd *cobra.Command) {
		for line := range strings.Lines(cmd.Example) {
			if !strings.HasPrefix(line, "  ") {
				continue // words about it
			}
			for _, call := range bangerCalls(line) {
				calls++
				if err := parses(call); err != nil {
					t.Errorf("%s: example %q: %v", cmd.CommandPath(), strings.TrimSpace(line), err)
				}
			}
		}
	})
	if calls < 150 {
		t.Errorf("%d calls were found in all examples", calls)
	}
	for line, wrong := range map[string]bool{
		"  banger vm run --rm -- ls -l": false, "  banger vm run --rn": true, "  banger vm sotp x": true, "  banger vm stop": true, "  x=$(banger vm lst)": true,
		"  echo | banger vm exec a 'b c' -- true": true, "  banger ps >x && banger vm stop $(banger ps -q)   # all": false,
	} {
		found := false
		for _, call := range bangerCalls(line) {
			found = found || parses(call) != nil
		}
		if found != wrong {
			t.Errorf("%q: wrong: %v, want %v", line, found, wrong)
		}
	}
}

// parses tells whether banger takes the arguments, without doing anything.
func parses(args []string) error {
	root := Commands("v1")
	cmd, rest, err := root.Find(args)
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(cmd.Flags().Args()) > 0 && cmd.HasSubCommands() && cmd.Name() != "help" {
		return showOrRefuse(cmd, cmd.Flags().Args())
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// bangerCalls gives the arguments of each banger in a line of shell. What follows three spaces within the line is about it, no part of it.
func bangerCalls(line string) (calls [][]string) {
	code, _, _ := strings.Cut(strings.TrimSpace(line), "   ")
	var words []string
	var word strings.Builder
	quote, inWord := rune(0), false
	endWord := func() {
		if inWord {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	endCommand := func() {
		endWord()
		if at := slices.Index(words, "banger"); at >= 0 {
			calls = append(calls, words[at+1:])
		}
		words = nil
	}
	var outer [][]string // commands around $( )
	for i, r := range code {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == '(' && i > 0 && (code[i-1] == '$' || code[i-1] == '<'):
			word.Reset()
			inWord = false
			outer, words = append(outer, append(words, "IT")), nil
		case r == ')' && len(outer) > 0:
			endCommand()
			words, outer = outer[len(outer)-1], outer[:len(outer)-1]
		case r == '|' || r == '&' || r == ';' || r == '>' || r == '<':
			endCommand()
		case r == ' ':
			endWord()
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	endCommand()
	return calls
}

func TestTree(t *testing.T) {
	status, stdout, stderr := run(t, "--tree")
	if status != 0 || stderr != "" {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
	golden(t, "commands.txt", stdout)
	column := -1
	for line := range strings.Lines(stdout) {
		name := strings.TrimLeft(line, " ")
		at := len(line) - len(strings.TrimLeft(name[strings.Index(name, " "):], " "))
		if column >= 0 && at != column {
			t.Errorf("the text of %q begins in column %d, want %d", line, at, column)
		}
		column = at
	}
	_, stdout, _ = run(t, "--tree", "--json")
	var tree commandNode
	if err := json.Unmarshal([]byte(stdout), &tree); err != nil || tree.Name != "banger" || tree.Commands[0].Commands[0].Name != "banger vm run" {
		t.Errorf("--tree --json: %v, %+v", err, tree)
	}
	if status, _, _ := run(t, "--tree", "vm"); status != statusUsage {
		t.Errorf("--tree vm: status %d", status)
	}
}

const referenceIntro = `# Commands

Each command has this as "--help", and as a page of the manual. This file is made from the commands (go test ./internal/cli -update).
--json, --quiet (-q) and --verbose (-v) are options of every command. "banger --tree" shows all at once.`

func TestReference(t *testing.T) {
	golden(t, "../../../docs/commands.md", manual.Markdown(Commands("v1"), referenceIntro))
}

// The programs that show pages of the manual have nothing to say against ours.
func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	if err := manual.WritePages(dir, Commands("v1"), manual.Edition{Version: "v1", Date: "2026-11-29"}); err != nil {
		t.Fatal(err)
	}
	pages, _ := filepath.Glob(filepath.Join(dir, "*.1"))
	if len(pages) < 80 {
		t.Errorf("%d pages", len(pages))
	}
	config, err := os.ReadFile("../../docs/config.md")
	if err == nil {
		pages = append(pages, filepath.Join(dir, "banger.toml.5"))
		err = os.WriteFile(pages[len(pages)-1], []byte(manual.Document("banger.toml", "5", "the configuration file of banger", string(config), manual.Edition{Version: "v1", Date: "2026-11-29"})), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	testenv.RequireTool(t, "groff")
	out, err := exec.Command("groff", append([]string{"-man", "-ww", "-z", "-Kutf8", "-Tutf8"}, pages...)...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("groff: %v\n%s", err, out)
	}
	text, err := exec.Command("groff", "-man", "-Kutf8", "-Tascii", "-P-c", "-P-b", "-P-u", filepath.Join(dir, "banger-vm-cp.1")).Output()
	if err != nil || !strings.Contains(string(text), "banger vm cp ./site/. devbox:/srv/www       what is in ./site") || !strings.Contains(string(text), "-a, --archive") {
		t.Errorf("%v\n%s", err, text)
	}
}
