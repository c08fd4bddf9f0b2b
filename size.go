package banger

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ParseSize reads a size in bytes with a binary unit: "8G", "512M", "1.5GiB", "4096". Errors: ErrInvalid.
func ParseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "BbIiKkMmGgTtPp ")
	unit := strings.ToUpper(strings.TrimSpace(s[len(digits):]))
	factor, ok := map[string]float64{"": 1, "B": 1, "K": 1 << 10, "KB": 1 << 10, "KIB": 1 << 10, "M": 1 << 20, "MB": 1 << 20,
		"MIB": 1 << 20, "G": 1 << 30, "GB": 1 << 30, "GIB": 1 << 30, "T": 1 << 40, "TB": 1 << 40, "TIB": 1 << 40}[unit]
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || !ok || n < 0 || math.IsInf(n, 0) || math.IsNaN(n) || n*factor >= math.MaxInt64 {
		return 0, &Error{Kind: ErrInvalid, Err: fmt.Errorf("size %q: want a number with K, M, G or T", s), Hint: "for example: 8G or 512M"}
	}
	return int64(n * factor), nil
}

// FormatSize writes n bytes for people with a binary unit: "8 GiB", "1.5 MiB".
func FormatSize(n int64) string {
	f, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f < 1024 && f > -1024 {
			break
		}
		f, unit = f/1024, u
	}
	return strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64) + " " + unit
}
