package banger_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"banger"
)

func TestFileSync(t *testing.T) {
	for _, tc := range []struct {
		text        string
		host, guest string
		mode        uint32
	}{
		{"~/.netrc", ".netrc", "~/.netrc", 0o600},
		{"/home/me/.config/gh", ".config/gh", "~/.config/gh", 0o600},
		{"~/a b/ü:/root/x", "a b/ü", "/root/x", 0o600},
		{"~/key:~/.ssh/id:0400", "key", "~/.ssh/id", 0o400},
		{"~/..a:~/...:7", "..a", "~/...", 7},
	} {
		f, err := banger.ParseFileSync(tc.text)
		if err != nil || f.Bits() != tc.mode {
			t.Errorf("ParseFileSync(%q) = %+v, %v", tc.text, f, err)
			continue
		}
		if host, guest, err := f.Paths("/home/me"); err != nil || host != tc.host || guest != tc.guest {
			t.Errorf("%q: paths %q and %q, %v, want %q and %q", tc.text, host, guest, err, tc.host, tc.guest)
		}
		var again banger.FileSync
		text, err := json.Marshal(f)
		if err := errors.Join(err, json.Unmarshal(text, &again)); err != nil || again != f {
			t.Errorf("%q: %s decodes to %+v, %v", tc.text, text, again, err)
		}
	}
}

func TestFileSyncRefuses(t *testing.T) {
	for _, tc := range []struct{ text, say string }{
		{"", "empty"},
		{":~/x", "empty"},
		{"~/x:", "HOST:GUEST"},
		{"x", "relative"},
		{"./x", "relative"},
		{"~", "a home is written"},
		{"~root/x", "another user"},
		{"~/", "whole home"},
		{"~/.", "whole home"},
		{"/home/me", "whole home"},
		{"~/../x", "clean"},
		{"~/a/../../x", "clean"},
		{"~/a/", "clean"},
		{"~//a", "clean"},
		{"/etc/shadow", "not in your home"},
		{"/home/meagain/x", "not in your home"},
		{"/home", "not in your home"},
		{"/home/me/../you/x", "not in your home"},
		{"~/x\x00", "NUL"},
		{"~/" + strings.Repeat("x", 2000), "1024"},
		{"~/x:x", "relative"},
		{"~/x:/etc/x", "below"},
		{"~/x:/root", "below"},
		{"~/x:/root/", "whole home"},
		{"~/x:/root/../etc/x", "clean"},
		{"~/x:~/../y", "clean"},
		{"~/x:~you/y", "another user"},
		{"~/x:~/y:0", "mode"},
		{"~/x:~/y:1777", "mode"},
		{"~/x:~/y:0o600", "mode"},
		{"~/x:~/y:rw", "mode"},
		{"~/x:~/y:", "HOST:GUEST"},
		{"~/x:~/y:600:z", "HOST:GUEST"},
	} {
		f, err := banger.ParseFileSync(tc.text)
		if err == nil {
			_, _, err = f.Paths("/home/me")
		}
		if !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), tc.say) || banger.HintOf(err) == "" {
			t.Errorf("%q: %v (hint %q), want ErrInvalid with %q", tc.text, err, banger.HintOf(err), tc.say)
		}
	}
}

// What is accepted stays below the home on both sides.
func FuzzFileSync(f *testing.F) {
	for _, seed := range []string{"~/.netrc", "/home/me/x:/root/y:0600", "~/../x", "~/x:~/../y", "/home/me/./../x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := banger.ParseFileSync(text)
		if err != nil {
			return
		}
		host, guest, err := s.Paths("/home/me")
		if err != nil {
			return
		}
		below, ok := strings.CutPrefix(guest, "~/")
		if !ok {
			below, ok = strings.CutPrefix(guest, "/root/")
		}
		for _, name := range []string{host, below} {
			for part := range strings.SplitSeq(name, "/") {
				if !ok || part == "" || part == "." || part == ".." {
					t.Fatalf("%q: paths %q and %q", text, host, guest)
				}
			}
		}
	})
}
