package banger

import (
	"regexp"
	"sync"
)

// Pattern gives a regular expression that is compiled when it is first asked for: all of them together would be a part of a
// command's time, and it uses few. An expression that is none panics then.
func Pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
