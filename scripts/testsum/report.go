package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output
	Test       string
	Elapsed    float64
	Output     string
}

// report counts results. A test that has subtests counts by them.
type report struct {
	mu             sync.Mutex // of checks, which may run at the same time
	out            io.Writer
	passed, failed int
	skips          []string // name and reason
	failures       []string // names
	slow           []slowTest
	tests          []result // each counts once

	packages map[string]*packageRun
}

// result is one test of the summary that -json writes.
type result struct {
	Name    string  `json:"name"`   // with the package that it is in; of a check or fuzz target what is printed
	Result  string  `json:"result"` // pass, fail or skip
	Seconds float64 `json:"seconds"`
	Reason  string  `json:"reason,omitempty"` // of a skip
}

// slowTest is a test that took long; what its subtests took is in it.
type slowTest struct {
	name    string
	seconds float64
}

const (
	slowSeconds = 5
	mostSlow    = 20 // are told
)

type packageRun struct {
	results map[string]string // action by test
	seconds map[string]float64
	output  map[string]*bytes.Buffer
}

func newReport(out io.Writer) *report {
	return &report{out: out, packages: map[string]*packageRun{}}
}

// skipped is the error of a check that says nothing here, with the reason.
type skipped string

func (s skipped) Error() string { return string(s) }

// check runs one step that passes, fails or is skipped as a whole.
func (r *report) check(name string, run func() (string, error)) {
	start := time.Now()
	text, err := run()
	took := time.Since(start).Seconds()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.passed++
		r.tests = append(r.tests, result{Name: name, Result: "pass", Seconds: took})
		fmt.Fprintf(r.out, "ok    %s  %.1fs\n", name, took)
		return
	}
	if why, ok := errors.AsType[skipped](err); ok {
		r.skips = append(r.skips, name+": "+string(why))
		r.tests = append(r.tests, result{name, "skip", took, string(why)})
		return
	}
	r.fail(name, took)
	fmt.Fprintf(r.out, "FAIL  %s  %.1fs: %v\n%s\n", name, took, err, strings.TrimRight(text, "\n"))
}

func (r *report) fail(name string, seconds float64) {
	r.failed++
	r.failures = append(r.failures, name)
	r.tests = append(r.tests, result{Name: name, Result: "fail", Seconds: seconds})
}

// read takes the events of one go test.
func (r *report) read(in io.Reader) error {
	for dec := json.NewDecoder(in); ; {
		var e event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read go test's events: %w", err)
		}
		r.take(e)
	}
}

func (r *report) take(e event) {
	if e.Action == "build-output" {
		io.WriteString(r.out, e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	p := r.packages[e.Package]
	if p == nil {
		p = &packageRun{results: map[string]string{}, seconds: map[string]float64{}, output: map[string]*bytes.Buffer{}}
		r.packages[e.Package] = p
	}
	switch e.Action {
	case "output":
		if p.output[e.Test] == nil {
			p.output[e.Test] = &bytes.Buffer{}
		}
		p.output[e.Test].WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e, p)
			delete(r.packages, e.Package)
			return
		}
		p.results[e.Test], p.seconds[e.Test] = e.Action, e.Elapsed
		if e.Elapsed >= slowSeconds && !strings.Contains(e.Test, "/") {
			r.slow = append(r.slow, slowTest{strings.TrimPrefix(e.Package, "banger/") + " " + e.Test, e.Elapsed})
		}
		if e.Action == "fail" {
			fmt.Fprintf(r.out, "%s %s:\n%s", e.Package, e.Test, p.text(e.Test))
		}
	}
}

func (p *packageRun) text(test string) string {
	if p.output[test] == nil {
		return ""
	}
	return p.output[test].String()
}

// endPackage counts the tests of a package.
func (r *report) endPackage(e event, p *packageRun) {
	failedBefore, count := r.failed, 0
	tests := make([]string, 0, len(p.results))
	for test := range p.results {
		tests = append(tests, test)
	}
	slices.Sort(tests)
	for _, test := range tests {
		name := e.Package + " " + test
		switch {
		case p.results[test] == "fail" && !p.childFailed(test):
			r.fail(name, p.seconds[test])
		case p.hasChildren(test):
			continue
		case p.results[test] == "skip":
			why := reason(p.text(test))
			r.skips = append(r.skips, name+": "+why)
			r.tests = append(r.tests, result{name, "skip", p.seconds[test], why})
		case p.results[test] == "pass":
			r.passed++
			r.tests = append(r.tests, result{Name: name, Result: "pass", Seconds: p.seconds[test]})
			count++
		}
	}
	if e.Action == "fail" && r.failed == failedBefore { // did not build, or ended by itself
		r.fail(e.Package, e.Elapsed)
	}
	if e.Action == "fail" {
		io.WriteString(r.out, p.text(""))
		return
	}
	if len(tests) > 0 {
		fmt.Fprintf(r.out, "ok    %s  %.1fs  %d tests\n", e.Package, e.Elapsed, count)
	}
}

func (p *packageRun) hasChildren(test string) bool {
	for other := range p.results {
		if strings.HasPrefix(other, test+"/") {
			return true
		}
	}
	return false
}

func (p *packageRun) childFailed(test string) bool {
	for other, action := range p.results {
		if action == "fail" && strings.HasPrefix(other, test+"/") {
			return true
		}
	}
	return false
}

// reason is what a skipped test said: "file.go:12: needs e2fsck".
func reason(output string) string {
	var words []string
	for _, line := range strings.Split(output, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		words = append(words, line)
	}
	if len(words) == 0 {
		return "no reason given"
	}
	return strings.Join(words, " ")
}

func (r *report) printSlow() {
	slices.SortFunc(r.slow, func(a, b slowTest) int { return cmp.Compare(b.seconds, a.seconds) })
	for _, t := range r.slow[:min(len(r.slow), mostSlow)] {
		fmt.Fprintf(r.out, "slow  %s  %.0fs\n", t.name, t.seconds)
	}
}

func (r *report) printSkips() {
	for _, line := range r.skips {
		fmt.Fprintf(r.out, "skip  %s\n", line)
	}
}

func (r *report) printFailures() {
	for _, name := range r.failures {
		fmt.Fprintf(r.out, "FAIL  %s\n", name)
	}
}
