// Command licences tells whose code is linked into the programs, and under which licence: it holds docs/third-party.md to that, or prints
// the texts, which go along with the programs.
//
// usage: licences [-write|-texts] ROOT
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// allowed licences ask for their text and notices to go along, and for nothing of our own code.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0"}

// chosen are licences of modules that leave a choice, or whose text no list knows.
var chosen = map[string]string{
	"github.com/modelcontextprotocol/go-sdk":        "Apache-2.0, MIT",                      // its documentation: CC-BY-4.0
	"kernel.org/pub/linux/libs/security/libcap/psx": "BSD-3-Clause",                         // or GPL-2.0
	"modernc.org/sqlite":                            "BSD-3-Clause, SQLite's public domain", // says its LICENSE-SQLITE
}

// page is where the list is.
const page = "docs/third-party.md"

// minCovered is how much of a licence's file has to be known text, in percent: the rest are names and years.
const minCovered = 75

var (
	fileNames = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|unlicense)([-.].*)?$`)
	// otherFiles go along, and are no licence of code.
	otherFiles = regexp.MustCompile(`(?i)notice|docs$|logo`)
	target     = []string{"./cmd/banger", "./cmd/bangerd", "./cmd/banger-machine", "./cmd/banger-guest"}
)

// module is one of those that are linked.
type module struct {
	path, version, dir string
	files              []string // its licences and notices
	licences           []string // SPDX
}

func main() {
	write := flag.Bool("write", false, "write "+page)
	texts := flag.Bool("texts", false, "print the texts")
	flag.Parse()
	if err := run(flag.Arg(0), *write, *texts); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(root string, write, texts bool) error {
	list, err := modules(root)
	if err != nil {
		return err
	}
	var wrong []error
	for _, m := range list {
		wrong = append(wrong, m.identify())
	}
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	if texts {
		return printTexts(list)
	}
	want := table(list)
	path := filepath.Join(root, page)
	if write {
		return os.WriteFile(path, want, 0o644)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("%s is not what is linked: go -C scripts/tools run ./licences -write ../..", page)
	}
	return nil
}

// modules gives those that the programs link on any architecture, Go's own library among them, by path.
func modules(root string) ([]*module, error) {
	goroot, err := command(root, nil, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	std := &module{path: "Go's standard library", dir: strings.TrimSpace(goroot)}
	if err := std.addFiles(std.dir); err != nil {
		return nil, err
	}
	found := map[string]*module{std.path: std}
	for _, arch := range []string{"amd64", "arm64"} {
		const format = "{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Version}}\t{{.Dir}}\t{{$.Dir}}{{end}}{{end}}"
		out, err := command(root, []string{"GOOS=linux", "GOARCH=" + arch, "CGO_ENABLED=0"}, "go", append([]string{"list", "-deps", "-f", format}, target...)...)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			fields := strings.Split(strings.TrimSpace(line), "\t")
			if len(fields) < 4 {
				continue
			}
			m := found[fields[0]]
			if m == nil {
				m = &module{path: fields[0], version: fields[1], dir: fields[2]}
				found[m.path] = m
			}
			for dir := fields[3]; len(dir) >= len(m.dir); dir = filepath.Dir(dir) {
				if err := m.addFiles(dir); err != nil {
					return nil, err
				}
			}
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b *module) int { return strings.Compare(a.path, b.path) }), nil
}

func command(dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env, cmd.Stderr = dir, append(os.Environ(), env...), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return string(out), nil
}

func (m *module) addFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.Type().IsRegular() && fileNames.MatchString(e.Name()) && !slices.Contains(m.files, path) {
			m.files = append(m.files, path)
		}
	}
	slices.Sort(m.files)
	return nil
}

// identify finds the licences in the files.
func (m *module) identify() error {
	if id := chosen[m.path]; id != "" {
		m.licences = []string{id}
		return nil
	}
	for _, path := range m.files {
		if otherFiles.MatchString(filepath.Base(path)) {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		cover := licensecheck.Scan(text)
		if len(cover.Match) == 0 || cover.Percent < minCovered && filepath.Dir(path) == m.dir && len(m.files) == 1 {
			return fmt.Errorf("%s: what licence is in %s? (%.0f %% is known text)", m.path, path, cover.Percent)
		}
		for _, match := range cover.Match {
			if !slices.Contains(allowed, match.ID) {
				return fmt.Errorf("%s: %s has %s, which is not among %v", m.path, path, match.ID, allowed)
			}
			if !slices.Contains(m.licences, match.ID) {
				m.licences = append(m.licences, match.ID)
			}
		}
	}
	if len(m.licences) == 0 {
		return fmt.Errorf("%s: no licence in %s", m.path, m.dir)
	}
	slices.Sort(m.licences)
	return nil
}

func table(list []*module) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Code of others\n\nWhat is linked into the programs, and its licences. `make lint` holds this list to the code and the licences to %s;\n", strings.Join(allowed, ", "))
	fmt.Fprint(&b, "`make dist` puts the texts beside the programs.\n\n| module | version | licence |\n| --- | --- | --- |\n")
	for _, m := range list {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", m.path, m.version, strings.Join(m.licences, ", "))
	}
	return b.Bytes()
}

func printTexts(list []*module) error {
	for _, m := range list {
		for _, path := range m.files {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name, _ := filepath.Rel(m.dir, path)
			fmt.Printf("---- %s %s: %s\n\n%s\n\n", m.path, m.version, name, bytes.TrimSpace(text))
		}
	}
	return nil
}
