package testenv

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/tree"
)

// TreeLines describes a tree, sorted, one line an entry: with all times, or with the files' last change only, to the second.
// Hard links show by what they have in common.
func TreeLines(t testing.TB, source tree.Source, times bool) []string {
	t.Helper()
	var list []string
	byPath := map[string]string{}
	for e, err := range source {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == tree.HardLink {
			byPath[e.Path] = byPath[e.Link]
			list = append(list, e.Path+" "+byPath[e.Path])
			continue
		}
		text := fmt.Sprintf("%d %o %d:%d %d %q %d:%d %s", e.Kind, e.Mode, e.UID, e.GID, e.Size, e.Link, e.Major, e.Minor, attributes(e.Xattrs))
		switch {
		case times:
			for _, at := range []time.Time{e.ModTime, e.AccessTime, e.ChangeTime} {
				text += " " + at.UTC().Format(time.RFC3339Nano)
			}
		case e.Kind != tree.Symlink && e.Kind != tree.Dir:
			text += " " + e.ModTime.UTC().Format("2006-01-02T15:04:05")
		}
		if e.Content != nil {
			sum := sha256.New()
			if n, err := io.Copy(sum, e.Content); err != nil || n != e.Size {
				t.Fatalf("%s: %d bytes of %d, %v", e.Path, n, e.Size, err)
			}
			text += fmt.Sprintf(" %x", sum.Sum(nil))
		}
		byPath[e.Path] = text
		list = append(list, e.Path+" "+text)
	}
	slices.Sort(list)
	return list
}

func attributes(attrs map[string][]byte) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		fmt.Fprintf(&b, "%s=%x,", name, attrs[name])
	}
	return b.String()
}

// SameLines says how two sorted lists differ.
func SameLines(t testing.TB, got, want []string) {
	t.Helper()
	shown := 0
	for _, line := range got {
		if _, ok := slices.BinarySearch(want, line); !ok && shown < 5 {
			shown++
			t.Errorf("got  %.300q", line)
		}
	}
	for _, line := range want {
		if _, ok := slices.BinarySearch(got, line); !ok && shown < 10 {
			shown++
			t.Errorf("want %.300q", line)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
}
