package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"
)

// fuzzPackage is a package with fuzz targets.
type fuzzPackage struct {
	path, dir string
	targets   []string
	program   string // its test program, instrumented for fuzzing
	built     error
}

// fuzz runs every fuzz target for a while, less long when budget would not do for all. A package's program is built once for all its
// targets.
func (r *report) fuzz(each, budget time.Duration) error {
	if each == 0 {
		return nil
	}
	packages, err := fuzzPackages()
	if err != nil || len(packages) == 0 {
		return err
	}
	cache, err := command("go", "env", "GOCACHE")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, cache)
	}
	dir, err := os.MkdirTemp("", "testsum")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	atOnce(packages, func(p *fuzzPackage) {
		p.program = filepath.Join(dir, strings.ReplaceAll(p.path, "/", "-"))
		if text, err := command("go", "test", "-vet=off", "-c", "-fuzz", ".", "-o", p.program, p.path); err != nil {
			p.built = fmt.Errorf("build: %w\n%s", err, text)
		}
	})
	type target struct {
		*fuzzPackage
		name string
	}
	var all []target
	for _, p := range packages {
		for _, name := range p.targets {
			all = append(all, target{p, name})
		}
	}
	each = min(each, budget*time.Duration(runtime.NumCPU())/time.Duration(len(all)))
	atOnce(all, func(t target) {
		r.check("fuzz "+strings.TrimPrefix(t.path, "banger/")+" "+t.name, func() (string, error) {
			return t.fuzz(t.name, each, filepath.Join(strings.TrimSpace(cache), "fuzz", t.path))
		})
	})
	return nil
}

// atOnce calls do for each of list, as many at a time as there are processors.
func atOnce[T any](list []T, do func(T)) {
	turns := make(chan struct{}, runtime.NumCPU())
	var running sync.WaitGroup
	for _, one := range list {
		turns <- struct{}{}
		running.Go(func() {
			defer func() { <-turns }()
			do(one)
		})
	}
	running.Wait()
}

// fuzz runs one target. Inputs that reach new code are kept in cache, as go test does.
func (p *fuzzPackage) fuzz(name string, each time.Duration, cache string) (string, error) {
	if p.built != nil {
		return "", p.built
	}
	cmd := exec.Command(p.program, "-test.run", "^$", "-test.fuzz", "^"+name+"$", "-test.fuzztime", each.Round(time.Second/10).String(),
		"-test.fuzzminimizetime", "10x", "-test.parallel", "1", "-test.fuzzcachedir", cache)
	cmd.Dir = p.dir // a finding is written below it
	out, err := cmd.CombinedOutput()
	if err != nil && onlyTimeIsUp(string(out)) {
		err = nil
	}
	return string(out), err
}

var fuzzTarget = regexp.MustCompile(`(?m)^func (Fuzz\w*)\(\w+ \*testing\.F\)`)

// fuzzPackages finds the fuzz targets in the sources.
func fuzzPackages() ([]*fuzzPackage, error) {
	out, err := command("go", "list", "-f", "{{.ImportPath}}\t{{.Dir}}\t{{join .TestGoFiles \" \"}} {{join .XTestGoFiles \" \"}}", "./...")
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	var found []*fuzzPackage
	for line := range strings.Lines(out) {
		path, rest, _ := strings.Cut(line, "\t")
		dir, files, _ := strings.Cut(rest, "\t")
		p := &fuzzPackage{path: path, dir: dir}
		for _, name := range strings.Fields(files) {
			source, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return nil, err
			}
			for _, match := range fuzzTarget.FindAllSubmatch(source, -1) {
				p.targets = append(p.targets, string(match[1]))
			}
		}
		if len(p.targets) > 0 {
			found = append(found, p)
		}
	}
	return found, nil
}

// onlyTimeIsUp reports whether a fuzz target failed because a worker was late when its time was up, and for nothing else:
// go test then says "context deadline exceeded" below the target's name (https://go.dev/issue/75804). A finding always
// names its input or is a test's own message.
func onlyTimeIsUp(text string) bool {
	_, after, failed := strings.Cut(text, "--- FAIL: Fuzz")
	if !failed || strings.Contains(text, "Failing input written") {
		return false
	}
	_, after, _ = strings.Cut(after, "\n")
	reason, rest, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(reason) == "context deadline exceeded" && strings.HasPrefix(rest, "FAIL\n")
}
