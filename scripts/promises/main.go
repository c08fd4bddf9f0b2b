// Command promises runs the benchmarks behind docs/promises.md and writes what they measured into it. A measured number there has its
// source before it, in a comment that nobody sees on the page:
//
//	<!-- vmrun.Run run/bare <= 1.25 -->1.08 ×
//
// is the metric run/bare of BenchmarkRun in bench/vmrun, which must not be above 1.25; a source without a bound is for information. The last
// cell of a row says whether all of the row's bounds hold. `<!-- at vmrun -->` stands before the day, the commit, the accelerator and the load.
//
// It takes names of packages below bench/, or all that the page names; with -check it only says whether the page is in order.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const page = "docs/promises.md"

var (
	source = regexp.MustCompile(`<!-- ([a-z0-9]+)\.([A-Za-z]+) (\S+)(?: (<=|>=|=) ([0-9.]+))? -->([0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?)?`)
	stamp  = regexp.MustCompile(`<!-- at ([a-z0-9]+) -->[^|\n]*?<!-- -->`)
	metric = regexp.MustCompile(`^Benchmark([A-Za-z]+)(?:-\d+)?\s+\d+\s+(.*)$`)
)

// measured is what one package's benchmarks said.
type measured struct {
	at     string             // the stamp's text
	values map[string]float64 // by "Benchmark metric"
}

func main() {
	check := flag.Bool("check", false, "only say whether the page is in order")
	flag.Parse()
	if err := run(flag.Args(), *check); err != nil {
		fmt.Fprintln(os.Stderr, "promises:", err)
		os.Exit(1)
	}
}

func run(packages []string, check bool) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	named := packagesOf(text)
	if err := verify(text, named); err != nil || check {
		return err
	}
	if len(packages) == 0 {
		packages = named
	}
	for _, name := range packages {
		if !slices.Contains(named, name) {
			return fmt.Errorf("%s names no number of bench/%s; it names those of %s", page, name, strings.Join(named, ", "))
		}
		got, err := benchmark(name)
		if err != nil {
			return err
		}
		if text, err = os.ReadFile(page); err != nil { // it may have been edited in the meantime
			return err
		}
		out, err := rewrite(text, name, got)
		if err != nil {
			return err
		}
		if err := os.WriteFile(page, out, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func packagesOf(text []byte) []string {
	names := map[string]bool{}
	for _, m := range source.FindAllSubmatch(text, -1) {
		names[string(m[1])] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// verify finds sources whose benchmark does not exist, numbers that are missing, and comments that are meant as a source and are none.
func verify(text []byte, packages []string) error {
	for n, line := range bytes.Split(text, []byte("\n")) {
		if comments := bytes.Count(line, []byte("<!--")); comments != len(source.FindAll(line, -1))+2*len(stamp.FindAll(line, -1)) {
			return fmt.Errorf("%s:%d: a comment is neither a source nor a stamp: %s", page, n+1, line)
		}
		for _, m := range source.FindAllSubmatch(line, -1) {
			if len(m[6]) == 0 {
				return fmt.Errorf("%s:%d: no number after %s", page, n+1, m[0])
			}
		}
	}
	for _, name := range packages {
		files, err := filepath.Glob(filepath.Join("bench", name, "*_test.go"))
		if err != nil {
			return err
		}
		var all []byte
		for _, file := range files {
			code, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			all = append(all, code...)
		}
		for _, m := range source.FindAllSubmatch(text, -1) {
			if string(m[1]) == name && !bytes.Contains(all, fmt.Appendf(nil, "func Benchmark%s(", m[2])) {
				return fmt.Errorf("%s names Benchmark%s, which bench/%s does not have", page, m[2], name)
			}
		}
	}
	return nil
}

// benchmark runs a package's benchmarks, whose output it passes on.
func benchmark(name string) (*measured, error) {
	fmt.Printf("== bench/%s\n", name)
	cmd := exec.Command("go", "test", "./bench/"+name, "-run", "^$", "-bench", ".", "-benchtime", "1x", "-timeout", "3h")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	commit, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return nil, fmt.Errorf("git rev-parse: %w", err)
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	got, readErr := parse(io.TeeReader(out, os.Stdout))
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("bench/%s: %w", name, err)
	}
	if readErr != nil {
		return nil, readErr
	}
	first, _, _ := strings.Cut(string(load), " ")
	got.at = fmt.Sprintf("%s, commit %s, %sa load of %s before", time.Now().UTC().Format(time.DateOnly), bytes.TrimSpace(commit), got.at, first)
	return got, nil
}

// parse reads the output of go test -bench. The stamp is what a benchmark said about its accelerator.
func parse(r io.Reader) (*measured, error) {
	got := &measured{values: map[string]float64{}}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if _, accel, ok := strings.Cut(lines.Text(), "accelerator: "); ok {
			got.at = accel + ", "
		}
		m := metric.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		fields := strings.Fields(m[2])
		for i := 0; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", lines.Text(), err)
			}
			got.values[m[1]+" "+fields[i+1]] = value
		}
	}
	return got, lines.Err()
}

// rewrite puts a package's numbers and stamp into the page.
func rewrite(text []byte, name string, got *measured) ([]byte, error) {
	var missing error
	lines := strings.Split(string(text), "\n")
	for n, line := range lines {
		line = stamp.ReplaceAllStringFunc(line, func(s string) string {
			if stamp.FindStringSubmatch(s)[1] != name {
				return s
			}
			return fmt.Sprintf("<!-- at %s -->%s<!-- -->", name, got.at)
		})
		ours, bounds, holds := false, false, true
		line = source.ReplaceAllStringFunc(line, func(s string) string {
			m := source.FindStringSubmatch(s)
			comment, value, exact := s[:len(s)-len(m[6])], m[6], m[6]
			if m[1] == name {
				v, ok := got.values[m[2]+" "+m[3]]
				if !ok {
					missing = cmp.Or(missing, fmt.Errorf("%s:%d: bench/%s did not measure %s of Benchmark%s", page, n+1, name, m[3], m[2]))
				}
				ours, value, exact = true, number(v), strconv.FormatFloat(v, 'f', -1, 64)
			}
			if m[4] != "" {
				bounds = true
				holds = holds && within(exact, m[4], m[5])
			}
			return comment + value
		})
		if cells := strings.Split(line, "|"); ours && bounds && len(cells) > 2 {
			cells[len(cells)-2] = map[bool]string{true: " yes ", false: " no "}[holds]
			line = strings.Join(cells, "|")
		}
		lines[n] = line
	}
	return []byte(strings.Join(lines, "\n")), missing
}

// number is a value as the page shows it: three digits that count, or a whole number as it is.
func number(v float64) string {
	if v == math.Trunc(v) || math.IsNaN(v) {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	digits := max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	return strconv.FormatFloat(v, 'f', digits, 64)
}

func within(value, op, bound string) bool {
	v, err1 := strconv.ParseFloat(strings.ReplaceAll(value, ",", ""), 64)
	b, err2 := strconv.ParseFloat(bound, 64)
	if err1 != nil || err2 != nil {
		return false
	}
	switch op {
	case "<=":
		return v <= b
	case ">=":
		return v >= b
	}
	return v == b
}
