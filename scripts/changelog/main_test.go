package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Every entry of the project is well-formed.
func TestEntries(t *testing.T) {
	sections, err := readSections("../../changelog")
	if err != nil {
		t.Fatal(err)
	}
	if len(sections) == 0 {
		t.Error("no entries found")
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, text, wrong string }{
		{"good", "Added: machines do it\n\nYou can now ...\n", ""},
		{"unknown kind", "Improved: machines do it\n\nYou can now ...\n", "begins with"},
		{"no kind", "machines do it\n\nYou can now ...\n", "begins with"},
		{"no change", "Added: \n\nYou can now ...\n", "does not say what changed"},
		{"full stop", "Added: machines do it.\n\nYou can now ...\n", "full stop"},
		{"too long", "Added: " + strings.Repeat("a", 101) + "\n\nYou can now ...\n", "101 characters"},
		{"no empty line", "Added: machines do it\nYou can now ...\n", "second line"},
		{"no text", "Added: machines do it\n\n", "what the change means"},
		{"empty", "", "begins with"},
	} {
		e, err := parse(c.text)
		switch {
		case c.wrong == "" && (err != nil || e != entry{"Added", "machines do it", "You can now ..."}):
			t.Errorf("%s: parse = %+v, %v", c.name, e, err)
		case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
			t.Errorf("%s: parse: %v, want an error with %q", c.name, err, c.wrong)
		}
	}
}

func TestRelease(t *testing.T) {
	root := t.TempDir()
	add := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, "changelog", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)
	release := func(version string) {
		t.Helper()
		if err := run(root, version, now); err != nil {
			t.Fatal(err)
		}
	}
	add("TEMPLATE", "not an entry")
	add("unreleased/1-first", "Fixed: `a` is mended\n\nOne.\n")
	add("unreleased/2-second", "Security: it is closed\n\nTwo.\n")
	release("v0.9.0")
	add("unreleased/3-third", "Added: more\n\nThree.\n")
	release("v0.10.0")
	add("unreleased/4-fourth", "Added: still more\n\nFour.\n")
	release("")

	const want = `## Not yet released

### Added

**Still more.** Four.

## v0.10.0, 2026-12-01

### Added

**More.** Three.

## v0.9.0, 2026-12-01

### Security

**It is closed.** Two.

### Fixed

**` + "`a`" + ` is mended.** One.
`
	text, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil || !strings.HasSuffix(string(text), want) {
		t.Errorf("CHANGELOG.md = %v\n%s\nwant at its end\n%s", err, text, want)
	}
	for version, wrong := range map[string]string{"v0.10.0": "released before", "0.11.0": "no version", "v1.0": "no version"} {
		if err := run(root, version, now); err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("release %s: %v, want an error with %q", version, err, wrong)
		}
	}
	if err := os.Remove(filepath.Join(root, "changelog/unreleased/4-fourth")); err != nil {
		t.Fatal(err)
	}
	if err := run(root, "v0.11.0", now); err == nil || !strings.Contains(err.Error(), "nothing to release") {
		t.Errorf("a release of nothing: %v", err)
	}
	add("unreleased/Bad Name", "Added: more\n\nText.\n")
	if err := run(root, "", now); err == nil || !strings.Contains(err.Error(), "ISSUE-WORD") {
		t.Errorf("a bad file name: %v", err)
	}
}
