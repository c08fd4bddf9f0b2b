package debian

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"banger"
)

// Limits of a control file. The longest line that the archive has is a few hundred kilobytes.
const (
	maxControlLine  = 1 << 20
	maxControlBytes = 64 << 20
)

// Paragraph is the fields of one control paragraph by lower-case name. Lines of a value are joined by newlines, without the
// space that begins a continuation line.
type Paragraph map[string]string

// Get gives a field's value, "" when it is missing; case does not matter in name.
func (p Paragraph) Get(name string) string { return p[strings.ToLower(name)] }

// ParseControl reads paragraphs (deb822(5)), such as apt-cache prints. Errors: ErrCorrupt.
func ParseControl(r io.Reader) ([]Paragraph, error) {
	var paragraphs []Paragraph
	var current Paragraph
	field := ""
	s := bufio.NewScanner(io.LimitReader(r, maxControlBytes))
	s.Buffer(nil, maxControlLine)
	for n := 1; s.Scan(); n++ {
		line := s.Text()
		name, value, colon := strings.Cut(line, ":")
		switch {
		case strings.TrimSpace(line) == "":
			current = nil
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if current == nil {
				return nil, fmt.Errorf("%w: control line %d continues nothing", banger.ErrCorrupt, n)
			}
			current[field] += "\n" + strings.TrimRight(line[1:], " \t\r")
		case !colon || !isFieldName(name):
			return nil, fmt.Errorf("%w: control line %d is no field: %.64q", banger.ErrCorrupt, n, line)
		default:
			if current == nil {
				current = Paragraph{}
				paragraphs = append(paragraphs, current)
			}
			field = strings.ToLower(name)
			if _, twice := current[field]; twice {
				return nil, fmt.Errorf("%w: control line %d: field %.64s again", banger.ErrCorrupt, n, name)
			}
			current[field] = strings.TrimSpace(value)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("%w: read control data: %w", banger.ErrCorrupt, err)
	}
	return paragraphs, nil
}

// isFieldName holds deb822's rule: printable ASCII without space and colon, not beginning with '#' or '-'.
func isFieldName(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && s[0] != '#' && s[0] != '-'
}

// Dependency is one package that a relation field names.
type Dependency struct {
	Name     string
	Relation string // "", "=", ">=", "<<", …
	Version  string
}

// Dependencies reads a relation field such as Depends: every inner list is alternatives, the preferred one first.
// Architecture and build profile restrictions are dropped.
func Dependencies(field string) [][]Dependency {
	var all [][]Dependency
	for group := range strings.SplitSeq(field, ",") {
		var alternatives []Dependency
		for text := range strings.SplitSeq(group, "|") {
			if d := parseDependency(text); d.Name != "" {
				alternatives = append(alternatives, d)
			}
		}
		if len(alternatives) > 0 {
			all = append(all, alternatives)
		}
	}
	return all
}

func parseDependency(text string) Dependency {
	name, rest, _ := strings.Cut(text, "(")
	var d Dependency
	if words := strings.Fields(name); len(words) > 0 {
		d.Name, _, _ = strings.Cut(words[0], ":") // python3:any
	}
	version, _, _ := strings.Cut(rest, ")")
	version = strings.TrimSpace(version)
	d.Version = strings.TrimSpace(strings.TrimLeft(version, "<>="))
	d.Relation = version[:len(version)-len(strings.TrimLeft(version, "<>="))]
	return d
}
