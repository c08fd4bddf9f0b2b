package banger

import (
	"slices"
	"strings"
)

// Near gives up to three of candidates that name may have been meant to be, the nearest first.
func Near(name string, candidates []string) []string {
	type match struct {
		name     string
		distance int
	}
	var found []match
	for _, c := range candidates {
		d := editDistance(strings.ToLower(name), strings.ToLower(c))
		if name != "" && (strings.HasPrefix(c, name) || strings.Contains(c, name) && len(name) > 2) {
			d = min(d, 1)
		}
		if d <= 1+len(name)/4 {
			found = append(found, match{c, d})
		}
	}
	slices.SortStableFunc(found, func(a, b match) int { return a.distance - b.distance })
	names := make([]string, 0, 3)
	for _, m := range found[:min(len(found), 3)] {
		names = append(names, m.name)
	}
	return names
}

// DidYouMean is the hint that goes with an unknown name: the near ones, or else which exist at all.
func DidYouMean(name string, candidates []string) string {
	if near := Near(name, candidates); len(near) > 0 {
		return "did you mean " + strings.Join(near, " or ") + "?"
	}
	if len(candidates) == 0 || len(candidates) > 8 {
		return ""
	}
	return "there is: " + strings.Join(candidates, ", ")
}

// editDistance counts the insertions, deletions, changes and swaps of neighbours between a and b. Long input is cut: names are short.
func editDistance(a, b string) int {
	a, b = a[:min(len(a), 128)], b[:min(len(b), 128)]
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, prev, row = prev, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := prev[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(prev[j]+1, row[j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
