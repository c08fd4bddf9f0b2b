package banger

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Escape makes text safe for a terminal: control and formatting characters and bytes that are not UTF-8 appear as Go
// writes them in a string. Runes in keep stay.
func Escape(text string, keep ...rune) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case slices.Contains(keep, r) || unicode.IsGraphic(r):
			b.WriteString(text[i : i+size])
		case r < utf8.RuneSelf:
			quoted := fmt.Sprintf("%q", r)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += size
	}
	return b.String()
}
