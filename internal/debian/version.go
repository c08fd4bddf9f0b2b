package debian

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"banger"
)

// Version is a package's version number (deb-version(7)).
type Version struct {
	epoch              int
	upstream, revision string
}

// ParseVersion reads "[epoch:]upstream[-revision]" as strictly as "dpkg --validate-version". Errors: ErrInvalid.
func ParseVersion(text string) (Version, error) {
	var v Version
	fail := func(why string) (Version, error) { return Version{}, banger.Invalidf("version %.100q: %s", text, why) }
	rest := text
	if before, after, ok := strings.Cut(text, ":"); ok {
		n, err := strconv.ParseUint(before, 10, 31)
		if err != nil {
			return fail("its epoch is no number")
		}
		v.epoch, rest = int(n), after
	}
	v.upstream = rest
	if i := strings.LastIndexByte(rest, '-'); i >= 0 {
		if v.upstream, v.revision = rest[:i], rest[i+1:]; v.revision == "" {
			return fail("its revision is empty")
		}
	}
	switch {
	case v.upstream == "" || !isDigit(v.upstream[0]):
		return fail("it does not begin with a digit")
	case strings.Trim(v.upstream, alphanumeric+".+-~:") != "" || strings.Trim(v.revision, alphanumeric+".+~") != "":
		return fail("it has a character that no version has")
	}
	return v, nil
}

const alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// String gives the version as Debian writes it.
func (v Version) String() string {
	text := v.upstream
	if v.epoch > 0 || strings.Contains(v.upstream, ":") {
		text = fmt.Sprintf("%d:%s", v.epoch, text)
	}
	if v.revision != "" {
		text += "-" + v.revision
	}
	return text
}

// Compare gives -1 when v is older than w, 1 when it is newer, else 0.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.epoch, w.epoch), compareParts(v.upstream, w.upstream), compareParts(v.revision, w.revision))
}

// compareParts compares stretches without digits by letters and stretches of digits as numbers, in turn.
func compareParts(a, b string) int {
	for a != "" || b != "" {
		for a != "" && !isDigit(a[0]) || b != "" && !isDigit(b[0]) {
			if c := cmp.Compare(weight(a), weight(b)); c != 0 {
				return c
			}
			a, b = a[1:], b[1:] // both have one: the end weighs the same as a digit
		}
		var x, y string
		x, a = takeNumber(a)
		y, b = takeNumber(b)
		if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y)); c != 0 {
			return c
		}
	}
	return 0
}

// weight orders what a stretch without digits begins with: '~', its end, letters, all else.
func weight(s string) int {
	switch {
	case s == "" || isDigit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case s[0] >= 'A' && s[0] <= 'Z' || s[0] >= 'a' && s[0] <= 'z':
		return int(s[0])
	}
	return int(s[0]) + 256
}

// takeNumber gives the digits that s begins with, without zeros before them.
func takeNumber(s string) (digits, rest string) {
	rest = strings.TrimLeft(s, "0123456789")
	return strings.TrimLeft(s[:len(s)-len(rest)], "0"), rest
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }
