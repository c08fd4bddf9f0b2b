package banger

import (
	"errors"
	"regexp"
	"strings"
	"testing"
)

func TestVMFilter(t *testing.T) {
	vm := VM{State: StateRunning, Spec: VMSpec{Name: "web-1", Image: "registry.example/debian:12", Labels: map[string]string{"team": "blue", "empty": ""}}}
	for _, tc := range []struct {
		conditions string
		want       bool
	}{
		{"", true},
		{"state=running", true},
		{"state=stopped", false},
		{"state=stopped state=running", true},
		{"state=running name=web-1", true},
		{"state=running name=web-2", false},
		{"name=web-?", true},
		{"name=web", false},
		{"name=w*1", true},
		{"name=*", true},
		{"name=db name=web-*", true},
		{"image=registry.example/debian:12", true},
		{"image=*/debian:*", true},
		{"image=debian*", false},
		{"label=team", true},
		{"label=team=blue", true},
		{"label=team=red", false},
		{"label=team=", false},
		{"label=empty", true},
		{"label=empty=", true},
		{"label=none", false},
		{"label=team label=none", false},
		{"label=team=blue label=empty", true},
	} {
		filter, err := ParseVMFilter(strings.Fields(tc.conditions))
		if err != nil || filter.Match(vm) != tc.want {
			t.Errorf("%q: %v, %v, want %v", tc.conditions, filter.Match(vm), err, tc.want)
		}
		if got := filter.Choose([]VM{vm}); (len(got) == 1) != tc.want || got == nil {
			t.Errorf("%q chooses %v", tc.conditions, got)
		}
	}
	for text, hint := range map[string]string{"": "", "state": "", "state=": "", "=x": "", "status=running": "state", "state=runing": "running", "lable=x": "label"} {
		if _, err := ParseVMFilter([]string{text}); !errors.Is(err, ErrInvalid) || !strings.Contains(HintOf(err), hint) {
			t.Errorf("ParseVMFilter(%q) = %v (hint %q), want invalid with hint %q", text, err, HintOf(err), hint)
		}
	}
}

// What a pattern means is what the regular expression means that stands for it.
func FuzzGlob(f *testing.F) {
	for _, seed := range [][2]string{{"a*b?c", "axxbyc"}, {"**", ""}, {"?", ""}, {"*a*a*a", "aaaa"}, {"[a]", "a"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 100 || len(text) > 200 {
			return
		}
		ascii := func(s string) string { return strings.Map(func(r rune) rune { return 'a' + r%26 }, s) }
		text = ascii(text)
		pattern = strings.Map(func(r rune) rune {
			if r == '*' || r == '?' {
				return r
			}
			return 'a' + r%26
		}, pattern)
		re := regexp.MustCompile("^" + strings.NewReplacer("*", ".*", "?", ".").Replace(pattern) + "$")
		if got, want := glob(pattern, text), re.MatchString(text); got != want {
			t.Errorf("glob(%q, %q) = %v, want %v", pattern, text, got, want)
		}
	})
}
