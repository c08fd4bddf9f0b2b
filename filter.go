package banger

import (
	"fmt"
	"slices"
	"strings"
)

// FilterKeys are what VMs can be chosen by.
var FilterKeys = []string{"state", "label", "image", "name"}

// FilterStates are the values of key state.
var FilterStates = []string{string(StateCreating), string(StateStopped), string(StateStarting), string(StateRunning), string(StateStopping), string(StateError)}

// VMFilter chooses VMs. Of several values of one key one must hold, of labels all. The zero value chooses every VM.
type VMFilter struct {
	values map[string][]string // by key; labels apart
	labels []labelFilter
}

type labelFilter struct {
	key, value string
	any        bool // whatever its value
}

// ParseVMFilter reads conditions such as "state=running", "image=debian*", "name=web-?", "label=team" and "label=team=blue". In image
// and name "*" stands for any text and "?" for one character. Errors: ErrInvalid that names the key or the state that was meant.
func ParseVMFilter(conditions []string) (VMFilter, error) {
	filter := VMFilter{values: map[string][]string{}}
	for _, text := range conditions {
		key, value, ok := strings.Cut(text, "=")
		bad := func(hint, format string, args ...any) (VMFilter, error) {
			return VMFilter{}, &Error{Kind: ErrInvalid, Op: "filter", Subject: fmt.Sprintf("%.100q", text), Err: fmt.Errorf(format, args...), Hint: hint}
		}
		switch {
		case !ok || value == "":
			return bad("for example: state=running", "want KEY=VALUE")
		case !slices.Contains(FilterKeys, key):
			return bad(DidYouMean(key, FilterKeys), "unknown key %.40q", key)
		case key == "state" && !slices.Contains(FilterStates, value):
			return bad(DidYouMean(value, FilterStates), "unknown state %.40q", value)
		case key == "label":
			name, wanted, exact := strings.Cut(value, "=")
			filter.labels = append(filter.labels, labelFilter{name, wanted, !exact})
		default:
			filter.values[key] = append(filter.values[key], value)
		}
	}
	return filter, nil
}

// Match tells whether the filter chooses a VM.
func (f VMFilter) Match(vm VM) bool {
	for key, text := range map[string]string{"state": string(vm.State), "image": vm.Spec.Image, "name": vm.Spec.Name} {
		if wanted := f.values[key]; len(wanted) > 0 && !slices.ContainsFunc(wanted, func(pattern string) bool { return glob(pattern, text) }) {
			return false
		}
	}
	for _, l := range f.labels {
		if value, ok := vm.Spec.Labels[l.key]; !ok || !l.any && value != l.value {
			return false
		}
	}
	return true
}

// Choose gives the VMs of list that the filter chooses.
func (f VMFilter) Choose(list []VM) []VM {
	chosen := []VM{}
	for _, vm := range list {
		if f.Match(vm) {
			chosen = append(chosen, vm)
		}
	}
	return chosen
}

// glob tells whether all of text is what pattern says. It goes back to the last "*" only, so that its time is bounded by the product of
// both lengths.
func glob(pattern, text string) bool {
	p, t, star, mark := 0, 0, -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
