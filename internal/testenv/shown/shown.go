// Package shown finds the commands that the project's documents show, for the tests that hold them to the code.
package shown

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"
)

// Statement is one statement of a document's fenced blocks of shell commands.
type Statement struct {
	Line  int // in the document
	Block int // counts from 0
	Text  string
	Calls [][]string // the programs in it, with their arguments
}

// made are documents that programs make: of changes, whose texts were true in their time, and of the commands' own help.
var made = []string{"CHANGELOG.md", "docs/commands.md"}

// Documents are the Markdown files of the project that people write and users read, below its root.
func Documents(root string) ([]string, error) {
	var found []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			name, err := filepath.Rel(root, path)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(made, name) {
				found = append(found, name)
			}
		}
	}
	return found, nil
}

// In gives the statements of a document's fenced blocks that are shell: those that are marked "sh" or not at all.
func In(path string) ([]Statement, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var shown []Statement
	var block strings.Builder
	blocks, begin, inside, shell := 0, 0, false, false
	for i, line := range strings.Split(string(text), "\n") {
		kind, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case inside && isFence:
			inside = false
			if !shell {
				continue
			}
			list, err := Parse(block.String())
			if err != nil {
				return nil, fmt.Errorf("%s, block at line %d: %w (a block that is not shell says what it is: ```text)", path, begin, err)
			}
			for _, s := range list {
				s.Line, s.Block = s.Line+begin, blocks
				shown = append(shown, s)
			}
			blocks++
		case inside:
			block.WriteString(line + "\n")
		case isFence:
			inside, begin = true, i+1
			shell = kind == "" || kind == "sh"
			block.Reset()
		}
	}
	if inside {
		return nil, fmt.Errorf("%s: the block at line %d has no end", path, begin)
	}
	return shown, nil
}

// Parse takes shell source apart. Variables and substitutions in a call's arguments become one word.
func Parse(source string) ([]Statement, error) {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(source), "")
	if err != nil {
		return nil, err
	}
	var shown []Statement
	for _, stmt := range file.Stmts {
		s := Statement{Line: int(stmt.Pos().Line()), Text: source[stmt.Pos().Offset():stmt.End().Offset()]}
		syntax.Walk(stmt, func(node syntax.Node) bool {
			if call, ok := node.(*syntax.CallExpr); ok && len(call.Args) > 0 && err == nil {
				var argv []string
				argv, err = expand.Fields(standIn, call.Args...)
				s.Calls = append(s.Calls, argv)
			}
			return true
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Text, err)
		}
		shown = append(shown, s)
	}
	return shown, nil
}

var standIn = &expand.Config{
	Env: expand.FuncEnviron(func(name string) string {
		if name == "IFS" {
			return "\n"
		}
		return "word"
	}),
	CmdSubst: func(out io.Writer, _ *syntax.CmdSubst) error {
		_, err := io.WriteString(out, "word")
		return err
	},
	ProcSubst: func(*syntax.ProcSubst) (string, error) { return "word", nil },
}
