package main

import (
	"fmt"
	"html"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Sizes in the units of the SVG, which are pixels at its natural size.
const (
	cellWidth  = 8.4
	lineHeight = 19.0
	fontSize   = 14
	padding    = 18
	barHeight  = 32
)

// palette are the sixteen colours of a terminal, readable on the window's background.
var palette = [16]string{
	"#3b4048", "#f47067", "#7fd088", "#e2b86b", "#6cb6ff", "#dcbdfb", "#76e3ea", "#c9d1d9",
	"#8b949e", "#ff938a", "#9be9a8", "#f0d399", "#96d0ff", "#eedcff", "#b3f0ff", "#ffffff",
}

const (
	background = "#161b22"
	foreground = "#d6dde6"
)

// style is how a piece of text looks.
type style struct {
	colour    string // "" is the foreground
	bold, dim bool
}

// span is text of one style.
type span struct {
	column int
	text   string
	style
}

// spans takes a line of tmux's capture apart: text with SGR sequences and no others.
func spans(line string, now style) ([]span, style) {
	var found []span
	column := 0
	for line != "" {
		text, rest, escaped := strings.Cut(line, "\x1b[")
		if text != "" {
			found = append(found, span{column, text, now})
			column += utf8.RuneCountInString(text)
		}
		if !escaped {
			break
		}
		codes, after, ended := strings.Cut(rest, "m")
		if !ended {
			break
		}
		now = now.apply(strings.Split(codes, ";"))
		line = after
	}
	return found, now
}

// apply gives the style after an SGR sequence. Codes that it does not know change nothing.
func (s style) apply(codes []string) style {
	for i := 0; i < len(codes); i++ {
		n, _ := strconv.Atoi(codes[i]) // "" is 0
		switch {
		case n == 0:
			s = style{}
		case n == 1:
			s.bold = true
		case n == 2:
			s.dim = true
		case n == 22:
			s.bold, s.dim = false, false
		case n >= 30 && n <= 37:
			s.colour = palette[n-30]
		case n == 39:
			s.colour = ""
		case n >= 90 && n <= 97:
			s.colour = palette[n-90+8]
		case n == 38 && i+2 < len(codes) && codes[i+1] == "5":
			if c, err := strconv.Atoi(codes[i+2]); err == nil && c >= 0 && c < len(palette) {
				s.colour = palette[c]
			}
			i += 2
		}
	}
	return s
}

// draw makes a window with lines in it. It has a background and an edge of its own, so that it can be read on light and dark pages.
func draw(lines []string) string {
	width := columns*cellWidth + 2*padding
	height := float64(len(lines))*lineHeight + barHeight + 2*padding
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img">`+"\n", width, height, width, height)
	fmt.Fprintf(&out, `<title>A repository goes into a machine, is mended there, and the work comes back</title>`+"\n")
	fmt.Fprintf(&out, `<rect x="0.5" y="0.5" width="%.0f" height="%.0f" rx="9" fill="%s" stroke="#8b949e"/>`+"\n", width-1, height-1, background)
	for i, colour := range []string{"#f47067", "#e2b86b", "#7fd088"} {
		fmt.Fprintf(&out, `<circle cx="%d" cy="%d" r="6" fill="%s"/>`+"\n", padding+6+i*20, barHeight/2+4, colour)
	}
	fmt.Fprintf(&out, `<g font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="%d" fill="%s" xml:space="preserve">`+"\n", fontSize, foreground)
	var now style
	for i, line := range lines {
		var found []span
		found, now = spans(line, now)
		y := barHeight + padding + float64(i)*lineHeight + lineHeight*0.75
		for _, s := range found {
			if strings.TrimSpace(s.text) != "" {
				out.WriteString(s.element(y))
			}
		}
	}
	out.WriteString("</g>\n</svg>\n")
	return out.String()
}

// element is the SVG of a span. textLength keeps columns in line whatever font there is.
func (s span) element(y float64) string {
	text := strings.TrimRight(s.text, " ")
	look := ""
	if s.colour != "" {
		look += fmt.Sprintf(` fill="%s"`, s.colour)
	}
	if s.bold {
		look += ` font-weight="bold"`
	}
	if s.dim {
		look += ` opacity="0.65"`
	}
	return fmt.Sprintf(`<text x="%.1f" y="%.1f" textLength="%.1f"%s>%s</text>`+"\n", padding+float64(s.column)*cellWidth, y,
		float64(utf8.RuneCountInString(text))*cellWidth, look, html.EscapeString(text))
}
