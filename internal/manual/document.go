package manual

import (
	"regexp"
	"strings"
)

// Document is a page of another section from a document of ours in Markdown: headings, paragraphs, lists with "-", tables of two columns
// and blocks of code. The first heading is left out: the page has a name.
func Document(name, section, short, markdown string, edition Edition) string {
	var p page
	p.line(`.TH "%s" "%s" "%s" "%s" "%s"`, roff(strings.ToUpper(name)), section, roff(edition.Date), roff("banger "+edition.Version), "files of banger")
	p.line(".nh\n.ad l")
	p.section("NAME")
	p.line(`%s \- %s`, roff(name), roff(short))
	p.section("DESCRIPTION")
	code := false
	for line := range strings.Lines(markdown) {
		line = strings.TrimRight(line, "\n")
		switch fence := strings.HasPrefix(line, "```"); {
		case fence:
			p.line("%s", map[bool]string{false: ".PP\n.nf", true: ".fi"}[code])
			code = !code
		case code:
			p.line("%s", roff("    "+line))
		default:
			p.prose(line)
		}
	}
	return p.String()
}

var markdownLink = regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`)

// prose is a line outside of code.
func (p *page) prose(line string) {
	text := roff(plain(line))
	cells := strings.Split(strings.Trim(line, "| "), " | ")
	switch {
	case strings.HasPrefix(line, "# "):
	case strings.HasPrefix(line, "## "):
		p.section(strings.ToUpper(strings.TrimPrefix(line, "## ")))
	case strings.HasPrefix(line, "- "):
		p.line(".IP \\(bu 2\n%s", strings.TrimPrefix(text, `\- `))
	case strings.HasPrefix(line, "| ---"), strings.HasPrefix(line, "|---"), strings.HasPrefix(line, "| key "):
	case strings.HasPrefix(line, "|") && len(cells) == 2:
		p.line(".TP\n\\fB%s\\fP", roff(plain(cells[0])))
		p.line("%s", roff(plain(cells[1])))
	case line == "":
		p.line(".PP")
	default:
		p.line("%s", strings.TrimPrefix(text, "  "))
	}
}

func plain(text string) string {
	return strings.ReplaceAll(markdownLink.ReplaceAllString(text, "$1"), "`", "")
}
