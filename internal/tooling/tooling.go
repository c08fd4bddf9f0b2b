// Package tooling finds out which tools a repository wants to have, from files that the repository's author wrote and nobody vouches for.
//
// It only reads them, within bounds; what is installed is installed in the VM, by mise.
package tooling

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"banger"
)

// MaxFile bounds a file that is read, in bytes.
const MaxFile = 256 << 10

// Plan is what a repository wants.
type Plan struct {
	Mise    []string `json:"mise,omitempty"`    // its own files of mise, which "mise install" follows
	Tools   []Tool   `json:"tools,omitempty"`   // that other files pin and mise's do not name, by name
	Notices []string `json:"notices,omitempty"` // what is not followed, and why
}

// Tool is one version of a tool, as mise names both.
type Tool struct {
	Name    string `json:"name"`    // "node"
	Version string `json:"version"` // "20.11.1", or less of it
	From    string `json:"from"`    // file
}

func (t Tool) String() string { return t.Name + "@" + t.Version }

// Empty tells that there is nothing to install.
func (p Plan) Empty() bool { return len(p.Mise) == 0 && len(p.Tools) == 0 }

// miseFiles are those that mise reads, in the order of which stands above.
var miseFiles = []string{"mise.toml", ".mise.toml", ".tool-versions"}

// pinned are the files that pin one tool, by tool; the first that says something counts.
var pinned = []struct {
	tool, file string
	version    func(text []byte) (string, error)
}{
	{"go", "go.mod", goVersion},
	{"node", ".nvmrc", nvmVersion}, {"node", "package.json", packageVersion},
	{"python", ".python-version", pythonVersion},
	{"rust", "rust-toolchain.toml", rustVersion}, {"rust", "rust-toolchain", rustVersion},
}

// Detect looks at the files at the root of a repository. read gives at most [MaxFile] bytes of one, and fs.ErrNotExist for one that is not there.
func Detect(read func(name string) ([]byte, error)) Plan {
	d := &detector{read: read, known: map[string]bool{}}
	for _, name := range miseFiles {
		text, ok := d.file(name)
		if !ok {
			continue
		}
		d.Mise = append(d.Mise, name)
		tools, err := miseTools(name, text)
		if err != nil {
			d.note("%s: %v: mise will tell more", name, err)
		}
		for _, tool := range tools {
			d.known[tool] = true
		}
	}
	for _, p := range pinned {
		if d.known[p.tool] {
			continue
		}
		text, ok := d.file(p.file)
		if !ok {
			continue
		}
		version, err := p.version(text)
		switch {
		case err != nil:
			d.note("%s: %v: no %s is installed for it", p.file, err, p.tool)
		case version != "":
			d.known[p.tool] = true
			d.Tools = append(d.Tools, Tool{p.tool, version, p.file})
		}
	}
	slices.SortFunc(d.Tools, func(a, b Tool) int { return cmp.Compare(a.Name, b.Name) })
	return d.Plan
}

type detector struct {
	Plan
	read  func(string) ([]byte, error)
	known map[string]bool // tools that need no looking for any more
}

func (d *detector) note(format string, args ...any) {
	d.Notices = append(d.Notices, fmt.Sprintf(format, args...))
}

func (d *detector) file(name string) ([]byte, bool) {
	text, err := d.read(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false
	case err == nil && len(text) > MaxFile:
		err = fmt.Errorf("it has more than %d bytes", MaxFile)
	}
	if err != nil {
		d.note("%s: %v", name, err)
	}
	return text, err == nil
}

// aliases are names that mise takes for a tool that it calls otherwise.
var aliases = map[string]string{"golang": "go", "nodejs": "node", "core:go": "go", "core:node": "node", "core:python": "python", "core:rust": "rust"}

// miseTools gives the tools that a file of mise names.
func miseTools(name string, text []byte) (tools []string, err error) {
	if name == ".tool-versions" {
		for line := range strings.Lines(string(text)) {
			line, _, _ = strings.Cut(line, "#")
			if words := strings.Fields(line); len(words) > 0 {
				tools = append(tools, words[0])
			}
		}
	} else {
		var file struct {
			Tools map[string]any `toml:"tools"`
		}
		if err := toml.Unmarshal(text, &file); err != nil {
			return nil, errors.New("it is no TOML, or [tools] is no table")
		}
		for tool := range file.Tools {
			tools = append(tools, tool)
		}
	}
	for i, tool := range tools {
		if own, ok := aliases[tool]; ok {
			tools[i] = own
		}
	}
	return tools, nil
}

var goPattern = banger.Pattern(`^[0-9]{1,4}(\.[0-9]{1,4}){1,2}((rc|beta)[0-9]{1,3})?$`)

// goVersion takes the toolchain that go.mod names, else its language version (the Go Modules Reference).
func goVersion(text []byte) (string, error) {
	language, toolchain, block := "", "", false
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "//")
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case block:
			block = words[0] != ")"
		case words[len(words)-1] == "(":
			block = true
		case len(words) == 2 && words[0] == "go":
			language = words[1]
		case len(words) == 2 && words[0] == "toolchain" && words[1] != "default":
			toolchain, _, _ = strings.Cut(strings.TrimPrefix(words[1], "go"), "-")
		}
	}
	return want(goPattern(), cmp.Or(toolchain, language))
}

// want gives a version that has a form, "" for none. Errors: it has another form.
func want(form *regexp.Regexp, version string) (string, error) {
	if version != "" && !form.MatchString(version) {
		return "", fmt.Errorf("%.60q is no version that is pinned", version)
	}
	return version, nil
}

var numbers = banger.Pattern(`^[0-9]{1,4}(\.[0-9]{1,4}){0,2}$`)

// nodeVersion takes "v20.11.0", "20", "20.x" and nvm's names of the newest ones.
func nodeVersion(text string) (string, error) {
	switch text {
	case "lts/*":
		return "lts", nil
	case "node", "stable", "latest", "current":
		return "latest", nil
	}
	version := strings.TrimPrefix(strings.TrimPrefix(text, "="), "v")
	for _, any := range []string{".x", ".*"} {
		for strings.HasSuffix(version, any) {
			version = strings.TrimSuffix(version, any)
		}
	}
	if _, err := want(numbers(), version); err != nil {
		return "", fmt.Errorf("%.60q is no version that is pinned", text)
	}
	return version, nil
}

// firstLine gives the first line that says something.
func firstLine(text []byte) string {
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return ""
}

func nvmVersion(text []byte) (string, error) { return nodeVersion(firstLine(text)) }

// packageVersion takes what volta pins, else an engine that is one version and no range.
func packageVersion(text []byte) (string, error) {
	var file struct {
		Engines struct {
			Node string `json:"node"`
		} `json:"engines"`
		Volta struct {
			Node string `json:"node"`
		} `json:"volta"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return "", errors.New("it is no JSON, or its engines or volta are of no use")
	}
	return nodeVersion(strings.TrimSpace(cmp.Or(file.Volta.Node, file.Engines.Node)))
}

func pythonVersion(text []byte) (string, error) { return want(numbers(), firstLine(text)) }

var rustPattern = banger.Pattern(`^([0-9]{1,4}(\.[0-9]{1,4}){1,2}|(stable|beta|nightly)(-[0-9]{4}-[0-9]{2}-[0-9]{2})?)$`)

// rustVersion takes a channel (The rustup book, "The toolchain file"): a line by itself, or TOML.
func rustVersion(text []byte) (string, error) {
	if line := firstLine(text); !strings.ContainsAny(line, "[=") {
		return want(rustPattern(), line)
	}
	var file struct {
		Toolchain struct {
			Channel string `toml:"channel"`
		} `toml:"toolchain"`
	}
	if err := toml.Unmarshal(text, &file); err != nil {
		return "", errors.New("it is no TOML, or its [toolchain] is of no use")
	}
	return want(rustPattern(), file.Toolchain.Channel)
}
