package manual

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// Edition is what the first and last lines of a page say.
type Edition struct {
	Version string // of the program
	Date    string // of that version: 2026-11-29
}

// WritePages writes a page for root and each command below it into a directory: banger.1, banger-vm.1, banger-vm-run.1.
func WritePages(dir string, root *cobra.Command, edition Edition) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	Walk(root, func(cmd *cobra.Command) {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, pageName(cmd)+".1"), []byte(Page(cmd, edition)), 0o644)
		}
	})
	return err
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// Page is a command's page in the language of man(7).
func Page(cmd *cobra.Command, edition Edition) string {
	var p page
	name := cmd.Root().Name()
	p.line(`.TH "%s" "1" "%s" "%s" "%s"`, roff(strings.ToUpper(pageName(cmd))), roff(edition.Date), roff(name+" "+edition.Version), roff("commands of "+name))
	p.line(".nh\n.ad l") // names of commands are not broken
	p.section("NAME")
	p.line(`%s \- %s`, roff(pageName(cmd)), roff(cmd.Short))
	p.section("SYNOPSIS")
	p.line(`\fB%s\fP%s`, roff(cmd.CommandPath()), roff(strings.TrimPrefix(usage(cmd), cmd.CommandPath())))
	if cmd.Long != "" {
		p.section("DESCRIPTION")
		p.text(cmd.Long)
	}
	p.commands(subcommands(cmd))
	p.options("OPTIONS", options(cmd.LocalFlags()))
	p.options("OPTIONS OF EVERY COMMAND", options(cmd.InheritedFlags()))
	if cmd.Example != "" {
		p.section("EXAMPLES")
		p.text(cmd.Example)
	}
	p.seeAlso(cmd)
	return p.String()
}

type page struct{ strings.Builder }

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) section(name string) { p.line(".SH %s", roff(name)) }

func (p *page) text(text string) {
	for i, b := range blocks(text) {
		if i > 0 {
			p.line(".PP")
		}
		if b.verbatim {
			p.line(".nf")
		}
		for _, line := range b.lines {
			p.line("%s", roff(line))
		}
		if b.verbatim {
			p.line(".fi")
		}
	}
}

func (p *page) commands(list []*cobra.Command) {
	if len(list) > 0 {
		p.section("COMMANDS")
	}
	for _, cmd := range list {
		p.line(".TP\n\\fB%s\\fP\n%s", roff(strings.Join(append([]string{cmd.Name()}, cmd.Aliases...), ", ")), roff(cmd.Short))
	}
}

func (p *page) options(title string, list []option) {
	if len(list) > 0 {
		p.section(title)
	}
	for _, o := range list {
		p.line(".TP\n\\fB%s\\fP", strings.TrimSuffix(roff(o.name)+`\fP \fI`+roff(o.value), `\fP \fI`))
		p.line("%s", roff(o.text))
	}
}

func (p *page) seeAlso(cmd *cobra.Command) {
	var pages []string
	add := func(other *cobra.Command) { pages = append(pages, fmt.Sprintf(`\fB%s\fP(1)`, roff(pageName(other)))) }
	if cmd.HasParent() {
		add(cmd.Parent())
	}
	for _, sub := range subcommands(cmd) {
		add(sub)
	}
	if len(pages) > 0 {
		p.section("SEE ALSO")
		p.line("%s", strings.Join(pages, ",\n"))
	}
}

var roffSpecial = strings.NewReplacer(`\`, `\e`, `-`, `\-`, "`", "\\`", `^`, `\(ha`, `~`, `\(ti`, `"`, `\(dq`, `'`, `\(aq`)

// roff is text that means itself: at the beginning of a line too, and between quotes.
func roff(text string) string {
	escaped := roffSpecial.Replace(strings.ReplaceAll(text, "\t", "    "))
	if strings.HasPrefix(escaped, ".") {
		return `\&` + escaped
	}
	return escaped
}
