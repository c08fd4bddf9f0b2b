package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/version"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// tools is the module that pins the tools; the product's own requires none of them.
const tools = "scripts/tools"

// The database of known vulnerabilities, and the same as a module, for computers that reach a module proxy only.
const (
	vulnerabilities       = "https://vuln.go.dev"
	vulnerabilitiesModule = "golang.org/x/vulndb@v0.0.0-20261105234957-e22db6528018"
)

// lint runs the tools that judge sources and dependencies.
func (r *report) lint() {
	r.check("staticcheck", func() (string, error) { return tool("staticcheck", "./...") })
	r.check("dead code", deadCode)
	r.vulnerable()
	r.check("licences of dependencies", func() (string, error) { return tool("licences", ".") })
}

// tool runs one of the tools on the whole tree.
func tool(name string, args ...string) (string, error) {
	path, err := built(name)
	if err != nil {
		return "", err
	}
	return command(path, args...)
}

// built is the path of a tool, which is built if need be. Where it can't be fetched the check is skipped.
func built(name string) (string, error) {
	path, err := exec.Command("go", "-C", tools, "tool", "-n", name).Output()
	if err != nil {
		return "", unavailable(name, err)
	}
	return strings.TrimSpace(string(path)), nil
}

// unavailable tells in one line why something could not be had.
func unavailable(name string, err error) error {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%s", strings.Join(strings.Fields(string(exit.Stderr)), " "))
	}
	return skipped(fmt.Sprintf("needs %s, which can't be had: %v", name, err))
}

// deadCode names functions that no program and no test reaches.
func deadCode() (string, error) {
	text, err := tool("deadcode", "-test", "./...")
	if err != nil {
		return text, err
	}
	var dead strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "unreachable func: Example") { // those without output are compiled only
			dead.WriteString(line)
		}
	}
	if dead.Len() > 0 {
		err = errors.New("nothing calls these")
	}
	return dead.String(), err
}

// vulnerable asks for known vulnerabilities that the code reaches. Those of Go's own library are skipped: another Go mends them.
func (r *report) vulnerable() {
	var found findings
	r.check("vulnerabilities", func() (string, error) {
		db, err := database()
		if err != nil {
			return "", err
		}
		path, err := built("govulncheck")
		if err != nil {
			return "", err
		}
		var says strings.Builder
		cmd := exec.Command(path, "-format", "json", "-db", db, "./...")
		cmd.Stderr = &says // not among the findings: go tells what it downloads
		text, err := cmd.Output()
		if err != nil {
			return says.String(), err
		}
		if found, err = readFindings(bytes.NewReader(text)); err != nil {
			return string(text), err
		}
		if len(found.modules) > 0 {
			err = errors.New("the code reaches these")
		}
		return strings.Join(found.modules, "\n"), err
	})
	if len(found.library) > 0 {
		r.check("vulnerabilities of Go's own library", func() (string, error) { return "", skipped(found.libraryText()) })
	}
}

// database is the URL of the known vulnerabilities: online, or else the copy that the module proxy has.
func database() (string, error) {
	online := http.Client{Timeout: 10 * time.Second}
	if answer, err := online.Head(vulnerabilities + "/index/db.json"); err == nil {
		answer.Body.Close()
		if answer.StatusCode == http.StatusOK {
			return vulnerabilities, nil
		}
	}
	text, err := exec.Command("go", "mod", "download", "-json", vulnerabilitiesModule).Output()
	if err != nil {
		return "", unavailable(vulnerabilities+" or "+vulnerabilitiesModule, errors.New(strings.Join(strings.Fields(string(text)), " ")))
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(text, &module); err != nil {
		return "", err
	}
	return "file://" + filepath.Join(module.Dir, "data", "osv"), nil
}

// findings are the vulnerabilities that the code reaches, each once.
type findings struct {
	modules   []string // of other modules, with what mends each
	library   []string // names of those of Go's own library
	have, fix string   // the Go that is used, and the one that has none of those; "" while there is none
}

func (f findings) libraryText() string {
	text := fmt.Sprintf("%s has %d that the code reaches (%s)", f.have, len(f.library), strings.Join(f.library, ", "))
	if f.fix == "" {
		return text + ", and no Go mends them all yet"
	}
	return text + "; mended by " + f.fix
}

// readFindings takes what govulncheck -format json prints (https://pkg.go.dev/golang.org/x/vuln/internal/govulncheck).
func readFindings(in io.Reader) (findings, error) {
	var found findings
	modules, library, unmended := map[string]bool{}, map[string]bool{}, false
	for dec := json.NewDecoder(in); ; {
		var message struct {
			Config struct {
				Go string `json:"go_version"`
			}
			Finding struct {
				OSV   string
				Fixed string `json:"fixed_version"`
				Trace []struct{ Module, Version, Package, Function string }
			}
		}
		if err := dec.Decode(&message); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return findings{}, fmt.Errorf("read govulncheck's findings: %w", err)
		}
		if message.Config.Go != "" {
			found.have = message.Config.Go
		}
		f := message.Finding
		if len(f.Trace) == 0 || f.Trace[0].Function == "" { // required or imported, and not called
			continue
		}
		if at := f.Trace[0]; at.Module != "stdlib" {
			modules[fmt.Sprintf("https://pkg.go.dev/vuln/%s in %s@%s, mended by %q", f.OSV, at.Module, at.Version, f.Fixed)] = true
			continue
		}
		library[f.OSV] = true
		unmended = unmended || f.Fixed == ""
		if fix := "go" + strings.TrimPrefix(f.Fixed, "v"); version.Compare(fix, found.fix) > 0 {
			found.fix = fix
		}
	}
	if found.have == "" {
		return findings{}, errors.New("govulncheck told no version of Go")
	}
	if unmended {
		found.fix = ""
	}
	found.modules, found.library = slices.Sorted(maps.Keys(modules)), slices.Sorted(maps.Keys(library))
	return found, nil
}
