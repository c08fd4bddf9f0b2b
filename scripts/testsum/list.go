package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// listTests writes the tests of packages, a line each, with the first sentence of what their comments say.
func listTests(out io.Writer, packages []string) error {
	text, err := command("go", append([]string{"list", "-f", "{{range .TestGoFiles}}{{$.Dir}}/{{.}}\n{{end}}{{range .XTestGoFiles}}{{$.Dir}}/{{.}}\n{{end}}"}, packages...)...)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, text)
	}
	w := bufio.NewWriter(out)
	for path := range strings.FieldsSeq(text) {
		names, err := testsOf(path)
		if err != nil {
			return err
		}
		for _, t := range names {
			fmt.Fprintf(w, "%s %s\n", filepath.Base(filepath.Dir(path)), t)
		}
	}
	return w.Flush()
}

// testsOf gives the tests of a file: "TestName: what it holds".
func testsOf(path string) ([]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	var tests []string
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Test") || fn.Name.Name == "TestMain" {
			continue
		}
		line := fn.Name.Name
		if says := new(doc.Package).Synopsis(fn.Doc.Text()); says != "" {
			line += ": " + says
		}
		tests = append(tests, line)
	}
	return tests, nil
}

// writeJSON writes the counts and every test's result to path.
func (r *report) writeJSON(path string, took time.Duration) error {
	skipped := len(r.skips)
	text, err := json.MarshalIndent(struct {
		Passed  int      `json:"passed"`
		Failed  int      `json:"failed"`
		Skipped int      `json:"skipped"`
		Seconds float64  `json:"seconds"`
		Tests   []result `json:"tests"`
	}{r.passed, r.failed, skipped, took.Seconds(), slices.Concat([]result{}, r.tests)}, "", "\t")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(path, append(text, '\n'), 0o644)
	}
	return err
}
