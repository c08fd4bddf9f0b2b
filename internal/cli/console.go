package cli

import (
	"bytes"
	"io"
	"unicode/utf8"
)

// safeWriter lets a guest's bytes reach a person's terminal: lines and tabs stay, everything else that a terminal would
// act on is escaped.
type safeWriter struct {
	w    io.Writer
	rest []byte // the beginning of a rune or of "\r\n"
}

func (s *safeWriter) Write(p []byte) (int, error) {
	text := append(s.rest, p...)
	cut := len(text) - unfinished(text)
	s.rest = bytes.Clone(text[cut:])
	return len(p), s.emit(text[:cut])
}

// Close writes what was held back.
func (s *safeWriter) Close() error {
	rest := s.rest
	s.rest = nil
	return s.emit(rest)
}

func (s *safeWriter) emit(text []byte) error {
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	_, err := io.WriteString(s.w, escape(string(text), '\n', '\t'))
	return err
}

// unfinished counts the bytes at the end of text that may mean something else with more bytes after them.
func unfinished(text []byte) int {
	if bytes.HasSuffix(text, []byte("\r")) {
		return 1
	}
	for n := 1; n <= min(utf8.UTFMax-1, len(text)); n++ {
		if tail := text[len(text)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}
