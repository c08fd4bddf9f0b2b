package banger

import (
	"errors"
	"testing"
)

func TestParsePublish(t *testing.T) {
	for _, tc := range []struct {
		text, want string
	}{
		{"80", "127.0.0.1:80:80"},
		{"8080:80", "127.0.0.1:8080:80"},
		{"127.0.0.1:8080:80", "127.0.0.1:8080:80"},
		{"localhost:8080:80", "127.0.0.1:8080:80"},
		{"0.0.0.0:65535:1", "0.0.0.0:65535:1"},
		{"[::1]:8080:80", "[::1]:8080:80"},
		{"", ""}, {":", ""}, {"8080:", ""}, {":80", ""}, {"0:80", ""}, {"80:0", ""}, {"65536:80", ""}, {"+80:80", ""}, {"080:80", ""}, {" 80", ""},
		{"::1:8080:80", ""}, {"[127.0.0.1]:8080:80", ""}, {"[::1:8080:80", ""}, {"[fe80::1%eth0]:1:1", ""}, {"example.org:8080:80", ""}, {":8080:80", ""}, {"80/udp", ""},
	} {
		got, err := ParsePublish(tc.text)
		switch {
		case tc.want == "" && (!errors.Is(err, ErrInvalid) || HintOf(err) == ""):
			t.Errorf("ParsePublish(%q) = %v, %v, want ErrInvalid with a hint", tc.text, got, err)
		case tc.want != "" && (err != nil || got.String() != tc.want):
			t.Errorf("ParsePublish(%q) = %v, %v, want %s", tc.text, got, err, tc.want)
		}
	}
}

// What is read is written as a text that reads the same.
func FuzzParsePublish(f *testing.F) {
	for _, text := range []string{"80", "8080:80", "[::1]:8080:80", "localhost:1:2", "1.2.3.4:5:6"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePublish(text)
		if err != nil {
			return
		}
		if again, err := ParsePublish(p.String()); err != nil || again != p {
			t.Errorf("ParsePublish(%q) = %v, which reads as %v, %v", text, p, again, err)
		}
		if p.Guest == 0 || p.Host.Port() == 0 || !p.Host.Addr().IsValid() {
			t.Errorf("ParsePublish(%q) = %v", text, p)
		}
	})
}
