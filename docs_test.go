package banger_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"banger/internal/testenv/shown"
)

// rows gives the cells of the table below a heading of a document.
func rows(t *testing.T, path, heading string) [][]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, below, found := strings.Cut(string(text), "\n"+heading+"\n")
	if !found {
		t.Fatalf("%s has no %q", path, heading)
	}
	below, _, _ = strings.Cut(below, "\n## ")
	var table [][]string
	for _, line := range strings.Split(below, "\n") {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "| "), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		table = append(table, cells)
	}
	if len(table) < 3 {
		t.Fatalf("%s: no table below %q", path, heading)
	}
	return table[2:]
}

var (
	quoted     = regexp.MustCompile("`([^`]+)`")
	testOrFuzz = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)\w*)\(`)
)

// testFunctions gives the tests, fuzz targets and benchmarks of every package, by its path below the module.
func testFunctions(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		pkg := filepath.ToSlash(filepath.Dir(path))
		for _, fn := range testOrFuzz.FindAllStringSubmatch(string(src), -1) {
			found[pkg] = append(found[pkg], fn[1])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	found["banger"] = found["."]
	delete(found, ".")
	return found
}

// docs/security.md names every fuzz target, and none that is not there.
func TestFuzzTargetsAreListed(t *testing.T) {
	listed := map[string]bool{}
	functions := testFunctions(t)
	for _, row := range rows(t, "docs/security.md", "## Parsers of untrusted bytes") {
		pkg := strings.Trim(row[0], "`")
		for _, name := range quoted.FindAllStringSubmatch(row[len(row)-1], -1) {
			listed[pkg+" "+name[1]] = true
			if !slices.Contains(functions[pkg], name[1]) {
				t.Errorf("docs/security.md names %s of %s, which is not there", name[1], pkg)
			}
		}
	}
	for pkg, names := range functions {
		for _, name := range names {
			if strings.HasPrefix(name, "Fuzz") && !listed[pkg+" "+name] {
				t.Errorf(`%s of %s is in no row of docs/security.md, "Parsers of untrusted bytes"`, name, pkg)
			}
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)|<img[^>]* src="([^"]+)"|srcset="([^"]+)"`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// A link to another file of the project leads somewhere, and one to a heading to that heading.
func TestDocumentLinks(t *testing.T) {
	documents, err := shown.Documents(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range documents {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range link.FindAllStringSubmatch(string(text), -1) {
			to := strings.Join(found[1:], "")
			if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
				continue
			}
			file, anchor, _ := strings.Cut(to, "#")
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			content, err := os.ReadFile(target)
			if info, statErr := os.Stat(target); statErr == nil && info.IsDir() {
				continue
			}
			if err != nil {
				t.Errorf("%s: the link %s leads nowhere", path, to)
			} else if anchor != "" && !slices.Contains(anchors(string(content)), anchor) {
				t.Errorf("%s: %s has no heading #%s", path, target, anchor)
			}
		}
	}
}

var notInAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

// anchors are the names by which GitHub and others link to the headings of a document.
func anchors(text string) []string {
	var names []string
	for _, found := range heading.FindAllStringSubmatch(text, -1) {
		name := notInAnchor.ReplaceAllString(strings.ToLower(found[1]), "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}

// docs/README.md leads to every document.
func TestDocumentsAreIndexed(t *testing.T) {
	index, err := os.ReadFile("docs/README.md")
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if name := filepath.Base(path); name != "README.md" && !strings.Contains(string(index), "("+name+")") {
			t.Errorf("docs/README.md has no link to %s", name)
		}
	}
}

// docs/scenarios.md names tests that are there, and at least one for each promise.
func TestScenariosExist(t *testing.T) {
	text, err := os.ReadFile("docs/scenarios.md")
	if err != nil {
		t.Fatal(err)
	}
	functions := testFunctions(t)
	named := 0
	for i, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| ---") || strings.HasSuffix(line, "| test |") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		pkg := ""
		tests := quoted.FindAllStringSubmatch(cells[len(cells)-1], -1)
		for _, word := range tests {
			switch name, _, _ := strings.Cut(word[1], "/"); {
			case functions[word[1]] != nil:
				pkg = word[1]
			case strings.HasSuffix(word[1], ".txtar"):
				if _, err := os.Stat(filepath.Join("test/script/testdata", word[1])); err != nil {
					t.Errorf("docs/scenarios.md:%d: %v", i+1, err)
				}
				named++
			case !slices.Contains(functions[pkg], name):
				t.Errorf("docs/scenarios.md:%d: %q has no test %s", i+1, pkg, name)
			default:
				named++
			}
		}
		if len(tests) == 0 && !strings.Contains(line, "not promised") && !strings.Contains(line, "does not apply") {
			t.Errorf("docs/scenarios.md:%d names no test: %s", i+1, line)
		}
	}
	if named < 50 {
		t.Errorf("docs/scenarios.md names %d tests, want more", named)
	}
}
