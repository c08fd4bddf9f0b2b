package banger

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90m": 90 * time.Minute, "2h30m": 150 * time.Minute, "7d": 168 * time.Hour, "1d12h": 36 * time.Hour, "0": 0, "0d": 0, "1.5h": 90 * time.Minute,
		"100d0.5s": 2400*time.Hour + 500*time.Millisecond,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "2", "d", "-1h", "-1d", "1d-1h", "1.5d", "1h1d", "soon", "1dd", "99999999d", "60000d2562047h", "1 h", "1d ", "-0"} {
		if got, err := ParseDuration(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseDuration(%q) = %s, %v, want ErrInvalid", text, got, err)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{30 * time.Minute: "30m", 2 * time.Hour: "2h", time.Hour + 5*time.Second: "1h0m5s", 10 * time.Second: "10s",
		time.Hour + 30*time.Minute: "1h30m", 0: "0s", 10 * time.Hour: "10h", 90 * time.Second: "1m30s"} {
		if got := FormatDuration(d); got != want {
			t.Errorf("FormatDuration(%d) = %q, want %q", d, got, want)
		}
	}
}

// What is read is not negative, and is read again from how it is written.
func FuzzParseDuration(f *testing.F) {
	for _, text := range []string{"1d2h", "90m", "0", "1e3s", "65535d2562047h"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDuration(text)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("ParseDuration(%q): %v has no kind", text, err)
			}
			return
		}
		if again, err := ParseDuration(FormatDuration(d)); d < 0 || err != nil || again != d {
			t.Fatalf("ParseDuration(%q) = %s, and of %s %s, %v", text, d, FormatDuration(d), again, err)
		}
		const day = 24 * time.Hour
		if again, err := ParseDuration(fmt.Sprintf("%dd%s", d/day, d%day)); d/day < 1<<16 && (err != nil || again != d) {
			t.Fatalf("ParseDuration(%q) = %s, and with days %s, %v", text, d, again, err)
		}
	})
}
