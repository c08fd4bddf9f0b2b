// Command changelog writes CHANGELOG.md from the entries below changelog/, one file for each change, as changelog/TEMPLATE has
// them: those of changelog/unreleased first, then each release's, newest first. With -release it makes the unreleased ones a release.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kinds are what an entry may begin with, in the order in which a section shows them.
var kinds = []string{"Security", "Added", "Changed", "Fixed", "Removed"}

const (
	unreleased  = "unreleased"
	maxHeadline = 100 // characters of the first line without its kind
)

// entry is one change.
type entry struct {
	kind, headline, text string
}

// section is a release, or what comes with the next one.
type section struct {
	version, date string // both empty of what is not released
	entries       []entry
}

func main() {
	release := flag.String("release", "", "make what is unreleased this version, such as v0.2.0")
	flag.Parse()
	if err := run(".", *release, time.Now()); err != nil {
		fmt.Fprintln(os.Stderr, "changelog:", err)
		os.Exit(1)
	}
}

// run writes CHANGELOG.md in the directory root.
func run(root, release string, now time.Time) error {
	if release != "" {
		if err := releaseAs(filepath.Join(root, "changelog"), release, now); err != nil {
			return err
		}
	}
	sections, err := readSections(filepath.Join(root, "changelog"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "CHANGELOG.md"), []byte(render(sections)), 0o644)
}

var (
	versionForm = regexp.MustCompile(`^v\d+\.\d+\.\d+$`)
	releaseForm = regexp.MustCompile(`^(v\d+\.\d+\.\d+)_(\d{4}-\d{2}-\d{2})$`)
	nameForm    = regexp.MustCompile(`^\d+-[a-z0-9-]+$`)
)

// releaseAs moves the unreleased entries to a directory of the version and today's date.
func releaseAs(dir, version string, now time.Time) error {
	if !versionForm.MatchString(version) {
		return fmt.Errorf("%q is no version: want vMAJOR.MINOR.PATCH", version)
	}
	if taken, _ := filepath.Glob(filepath.Join(dir, version+"_*")); len(taken) > 0 {
		return fmt.Errorf("%s was released before: %s", version, taken[0])
	}
	if entries, err := readEntries(filepath.Join(dir, unreleased)); err != nil || len(entries) == 0 {
		return cmp.Or(err, errors.New("there is nothing to release in changelog/unreleased"))
	}
	if err := os.Rename(filepath.Join(dir, unreleased), filepath.Join(dir, version+"_"+now.UTC().Format(time.DateOnly))); err != nil {
		return err
	}
	return os.Mkdir(filepath.Join(dir, unreleased), 0o755)
}

// readSections gives what is unreleased, if there is any, and the releases, newest first.
func readSections(dir string) ([]section, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var sections []section
	for _, item := range list {
		if !item.IsDir() {
			continue
		}
		var s section
		if item.Name() != unreleased {
			parts := releaseForm.FindStringSubmatch(item.Name())
			if parts == nil {
				return nil, fmt.Errorf("%s/%s: want %s or VERSION_YEAR-MONTH-DAY", dir, item.Name(), unreleased)
			}
			s.version, s.date = parts[1], parts[2]
		}
		if s.entries, err = readEntries(filepath.Join(dir, item.Name())); err != nil {
			return nil, err
		}
		if len(s.entries) > 0 {
			sections = append(sections, s)
		}
	}
	slices.SortFunc(sections, func(a, b section) int { return compareVersions(b.version, a.version) })
	return sections, nil
}

// compareVersions orders versions of versionForm by their numbers; "" is the newest.
func compareVersions(a, b string) int {
	if a == "" || b == "" {
		return cmp.Compare(len(b), len(a))
	}
	number := func(version string, n int) int {
		i, _ := strconv.Atoi(strings.Split(version[1:], ".")[n])
		return i
	}
	return cmp.Or(cmp.Compare(number(a, 0), number(b, 0)), cmp.Compare(number(a, 1), number(b, 1)), cmp.Compare(number(a, 2), number(b, 2)))
}

// readEntries gives the entries of a directory by kind, those of one kind by file name. Every entry that is not well-formed is told.
func readEntries(dir string) ([]entry, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var entries []entry
	var wrong []error
	for _, file := range files {
		path := filepath.Join(dir, file.Name())
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		e, err := parse(string(text))
		if err == nil && !nameForm.MatchString(file.Name()) {
			err = errors.New("want the name to be ISSUE-WORD, such as 7-watch")
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", path, err))
		}
		entries = append(entries, e)
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		return cmp.Compare(slices.Index(kinds, a.kind), slices.Index(kinds, b.kind))
	})
	return entries, errors.Join(wrong...)
}

// parse reads one entry: "Kind: headline", an empty line, and what it means to a user.
func parse(text string) (entry, error) {
	first, rest, _ := strings.Cut(text, "\n")
	kind, headline, _ := strings.Cut(first, ": ")
	e := entry{kind: kind, headline: strings.TrimSpace(headline), text: strings.TrimSpace(rest)}
	switch n := len([]rune(e.headline)); {
	case !slices.Contains(kinds, kind):
		return e, fmt.Errorf("the first line begins with %q, want one of %s and a colon", kind, strings.Join(kinds, ", "))
	case e.headline == "":
		return e, errors.New("the first line does not say what changed")
	case strings.HasSuffix(e.headline, "."):
		return e, errors.New("the first line ends with a full stop")
	case n > maxHeadline:
		return e, fmt.Errorf("the first line has %d characters after its kind, want at most %d", n, maxHeadline)
	case !strings.HasPrefix(rest, "\n"):
		return e, errors.New("the second line is not empty")
	case e.text == "":
		return e, errors.New("it does not say what the change means to a user")
	}
	return e, nil
}

func render(sections []section) string {
	var out strings.Builder
	out.WriteString("# What changed\n\nMade by `go run ./scripts/changelog` from the files below `changelog/`; edit those.\n")
	for _, s := range sections {
		title := "Not yet released"
		if s.version != "" {
			title = s.version + ", " + s.date
		}
		fmt.Fprintf(&out, "\n## %s\n", title)
		last := ""
		for _, e := range s.entries {
			if e.kind != last {
				fmt.Fprintf(&out, "\n### %s\n", e.kind)
			}
			last = e.kind
			headline := []rune(e.headline)
			fmt.Fprintf(&out, "\n**%s%s.** %s\n", strings.ToUpper(string(headline[:1])), string(headline[1:]), e.text)
		}
	}
	return out.String()
}
