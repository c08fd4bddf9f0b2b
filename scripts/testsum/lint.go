package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// tools is the module that pins the tools; the product's own requires none of them.
const tools = "scripts/tools"

// vulnerabilities is the database of https://vuln.go.dev as a module, for computers that reach a module proxy only.
const vulnerabilities = "golang.org/x/vulndb@v0.0.0-20261105234957-e22db6528018"

// lint runs the tools that judge sources and dependencies.
func (r *report) lint() {
	r.check("staticcheck", func() (string, error) { return tool("staticcheck", "./...") })
	r.check("dead code", deadCode)
	r.check("vulnerabilities", vulnerable)
	r.check("licences of dependencies", func() (string, error) { return command("go", "-C", tools, "run", "./licences", "../..") })
}

// tool builds one of the tools, if need be, and runs it on the whole tree.
func tool(name string, args ...string) (string, error) {
	path, err := command("go", "-C", tools, "tool", "-n", name)
	if err != nil {
		return path, err
	}
	return command(strings.TrimSpace(path), args...)
}

// deadCode names functions that no program and no test reaches.
func deadCode() (string, error) {
	text, err := tool("deadcode", "-test", "./...")
	if err == nil && text != "" {
		err = fmt.Errorf("nothing calls these")
	}
	return text, err
}

// vulnerable asks for known vulnerabilities that the code reaches: online, or else in the copy that the module proxy has.
func vulnerable() (string, error) {
	text, err := tool("govulncheck", "./...")
	if err == nil || !strings.Contains(text, "vuln.go.dev") {
		return text, err
	}
	if text, err := command("go", "mod", "download", vulnerabilities); err != nil {
		return text, err
	}
	cache, err := command("go", "env", "GOMODCACHE")
	if err != nil {
		return cache, err
	}
	dir := filepath.Join(strings.TrimSpace(cache), filepath.FromSlash(vulnerabilities), "data", "osv")
	if _, err := os.Stat(dir); err != nil {
		return "", err
	}
	return tool("govulncheck", "-db", "file://"+dir, "./...")
}
