package mcp

import (
	"fmt"
	"strings"
)

// Table lists the tools in Markdown, for docs/agents.md.
func (s *Server) Table() string {
	var b strings.Builder
	b.WriteString("| Tool | What it does | Changes | On this computer |\n| --- | --- | --- | --- |\n")
	for _, t := range s.tools {
		text, _, _ := strings.Cut(strings.ReplaceAll(t.text, "\n", " "), ". ")
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", t.name, strings.TrimSuffix(text, "."), t.changes(), t.host)
	}
	return b.String()
}

// changes says what the annotations say.
func (t about) changes() string {
	switch {
	case t.reads:
		return "nothing"
	case t.destroys:
		return "may destroy"
	}
	return "adds"
}
