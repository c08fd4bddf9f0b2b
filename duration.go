package banger

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// ParseDuration reads a time such as "90m", "2h30m" or "7d": what [time.ParseDuration] does, with days in front. A day is 24
// hours. Errors: ErrInvalid, for a negative one too.
func ParseDuration(text string) (time.Duration, error) {
	bad := func() (time.Duration, error) { return 0, Invalidf("%.100q: want a time such as 90m, 2h or 7d", text) }
	var days time.Duration
	rest := text
	if number, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return bad()
		}
		days, rest = time.Duration(n)*24*time.Hour, after
	}
	if rest == "" && rest != text {
		return days, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || strings.HasPrefix(rest, "-") || d > math.MaxInt64-days {
		return bad()
	}
	return days + d, nil
}

// FormatDuration writes a time for people, as [ParseDuration] reads it: "30m", "2h", "1h0m5s".
func FormatDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
