package main

import (
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestSpans(t *testing.T) {
	got, after := spans("\x1b[1m\x1b[32m$\x1b[0m ls \x1b[38;5;9mré\x1b[39md \x1b[2mdim", style{})
	want := []span{
		{0, "$", style{palette[2], true, false}}, {1, " ls ", style{}}, {5, "ré", style{palette[9], false, false}},
		{7, "d ", style{}}, {9, "dim", style{"", false, true}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("spans = %+v, want %+v", got, want)
	}
	if after != (style{"", false, true}) {
		t.Errorf("style after the line: %+v", after)
	}
}

// Whatever the terminal shows, the picture is well-formed, and the text is in it.
func TestDraw(t *testing.T) {
	text := draw([]string{"\x1b[31m<a & \"b\">", "", "   c\x1b["})
	var shown []string
	for dec := xml.NewDecoder(strings.NewReader(text)); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if data, ok := token.(xml.CharData); ok && strings.TrimSpace(string(data)) != "" {
			shown = append(shown, string(data))
		}
	}
	if want := []string{`<a & "b">`, "   c"}; !reflect.DeepEqual(shown[1:], want) {
		t.Errorf("the picture has %q, want %q", shown[1:], want)
	}
}
