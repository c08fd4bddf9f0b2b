package debian

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"strings"

	"banger"
)

// Limits of a control file. The longest line that the archive has is a few hundred kilobytes.
const (
	maxControlLine  = 1 << 20
	maxParagraph    = 8 << 20
	maxControlBytes = 64 << 20
)

// Paragraph is the fields of one control paragraph by lower-case name. Lines of a value are joined by newlines, without the
// space that begins a continuation line.
type Paragraph map[string]string

// Get gives a field's value, "" when it is missing; case does not matter in name.
func (p Paragraph) Get(name string) string { return p[strings.ToLower(name)] }

// ParseControl reads paragraphs (deb822(5)), such as apt-cache prints. Errors: ErrCorrupt.
func ParseControl(r io.Reader) ([]Paragraph, error) {
	var all []Paragraph
	for p, err := range paragraphs(io.LimitReader(r, maxControlBytes)) {
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// paragraphs reads one paragraph after the other; an error is the last.
func paragraphs(r io.Reader) iter.Seq2[Paragraph, error] {
	return func(yield func(Paragraph, error) bool) {
		c := controlReader{lines: bufio.NewScanner(r)}
		c.lines.Buffer(nil, maxControlLine)
		for {
			p, err := c.next()
			if err != nil {
				yield(nil, fmt.Errorf("%w: %w", banger.ErrCorrupt, err))
				return
			}
			if p == nil || !yield(p, nil) {
				return
			}
		}
	}
}

type controlReader struct {
	lines *bufio.Scanner
	n     int // lines read

	current Paragraph // the one being read; nil between two
	size    int       // its bytes
	field   string
	value   []string // lines of field so far
}

// next gives the next paragraph, nil at the end.
func (c *controlReader) next() (Paragraph, error) {
	c.current, c.size = nil, 0
	for c.lines.Scan() {
		c.n++
		line := c.lines.Text()
		if c.size += len(line); c.size > maxParagraph {
			return nil, fmt.Errorf("control line %d: the paragraph has more than %s", c.n, banger.FormatSize(maxParagraph))
		}
		switch {
		case strings.TrimSpace(line) != "":
			if err := c.take(line); err != nil {
				return nil, err
			}
		case c.current != nil:
			c.endField()
			return c.current, nil
		}
	}
	if err := c.lines.Err(); err != nil {
		return nil, fmt.Errorf("read control data: %w", err)
	}
	c.endField()
	return c.current, nil
}

// take adds a line that is not empty.
func (c *controlReader) take(line string) error {
	name, value, colon := strings.Cut(line, ":")
	switch {
	case line[0] == '#':
	case line[0] == ' ' || line[0] == '\t':
		if c.current == nil {
			return fmt.Errorf("control line %d continues nothing", c.n)
		}
		c.value = append(c.value, strings.TrimRight(line[1:], " \t\r"))
	case !colon || !isFieldName(name):
		return fmt.Errorf("control line %d is no field: %.64q", c.n, line)
	default:
		if c.current == nil {
			c.current = Paragraph{}
		}
		c.endField()
		c.field = strings.ToLower(name)
		if _, twice := c.current[c.field]; twice {
			return fmt.Errorf("control line %d: field %.64s again", c.n, name)
		}
		c.value = append(c.value, strings.TrimSpace(value))
	}
	return nil
}

func (c *controlReader) endField() {
	if c.value != nil {
		c.current[c.field] = strings.Join(c.value, "\n")
		c.value = nil
	}
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
