package cli

import (
	"errors"
	"strings"
	"testing"

	"banger"
)

func TestPlainConsole(t *testing.T) {
	for text, want := range map[string]string{
		"[\x1b[0;32m  OK  \x1b[0m] Started\r\nnext": "[  OK  ] Started\nnext", "a\tb": "a    b", "\x1b]0;title\x07x": "x", "a\rb\x07": `a\rb\a`,
		"\u202eevil ünï 日本": `\u202eevil ünï 日本`,
	} {
		if got := plainConsole(text); got != want {
			t.Errorf("plainConsole(%q) = %q, want %q", text, got, want)
		}
	}
}

func FuzzPlainConsole(f *testing.F) {
	f.Add("\x1b[31mred\x1b[0m\r\n\x1b]0;title\x07")
	f.Add("\x1b\x1b[[31mm\u009b31m\x90x\x9c")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range plainConsole(text) {
			if r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e) {
				t.Fatalf("plainConsole(%q) lets %#x through", text, r)
			}
		}
	})
}

func TestSafeError(t *testing.T) {
	err := safeError(&banger.Error{Kind: banger.ErrConflict, Op: "stop vm", Err: errors.New("guest says \x1b[2J"), Hint: "wait\x07"})
	if text := err.Error() + banger.HintOf(err); strings.ContainsAny(text, "\x1b\x07") || !strings.Contains(text, "stop vm: guest says") {
		t.Errorf("%q", text)
	}
	if safeError(nil) != nil {
		t.Error("safeError(nil) is an error")
	}
}
