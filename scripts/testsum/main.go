// Command testsum runs the project's checks and tests and counts them: format, vet, the tests of all packages, those with
// real guests by themselves, and a bounded time of each fuzz target. It prints what failed, what took longest, why a test was skipped, and as
// its last line "N passed, N failed, N skipped", which it also writes to a file.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// guests are the packages whose tests start real guests: they get the processors for themselves.
const guests = "banger/test/smoke"

type options struct {
	race    bool
	only    bool // the named packages, nothing else
	arm64   bool // that architecture's tests, nothing else
	lint    bool // what tools say of the sources, nothing else
	fuzz    time.Duration
	budget  time.Duration
	summary string
	run     string // with only: the tests that match
	json    string // file
}

// errFailed says that the summary has failures.
var errFailed = errors.New("failed")

func main() {
	var o options
	flag.BoolVar(&o.race, "race", false, "with the race detector, without guests")
	flag.BoolVar(&o.only, "guests", false, "only the packages named as arguments, one after the other, and what -fuzz says")
	flag.BoolVar(&o.arm64, "arm64", false, "only the tests that an emulator can run of the programs for arm64")
	flag.BoolVar(&o.lint, "lint", false, "only what tools say of the sources and the dependencies")
	flag.DurationVar(&o.fuzz, "fuzz", -1, "time for each fuzz target (10s; with -guests none)")
	flag.DurationVar(&o.budget, "fuzz-budget", 3*time.Minute, "time for all fuzz targets together")
	flag.StringVar(&o.summary, "summary", "build/test-summary", "file for the last line")
	flag.StringVar(&o.run, "run", "", "with -guests: only tests whose names match this regular expression, as in go test")
	flag.StringVar(&o.json, "json", "", "file for the result of every test, as JSON")
	list := flag.Bool("list", false, "list the tests of the packages named as arguments with what they hold, and run none")
	flag.Parse()
	if *list {
		if err := listTests(os.Stdout, flag.Args()); err != nil {
			fmt.Fprintln(os.Stderr, "testsum:", err)
			os.Exit(1)
		}
		return
	}
	if o.fuzz < 0 {
		o.fuzz = 10 * time.Second
		if o.only {
			o.fuzz = 0
		}
	}
	err := run(o, flag.Args(), os.Stdout)
	if err != nil && !errors.Is(err, errFailed) {
		fmt.Fprintln(os.Stderr, "testsum:", err)
	}
	if err != nil {
		os.Exit(1)
	}
}

func run(o options, packages []string, out io.Writer) error {
	start := time.Now()
	r := newReport(out)
	if o.arm64 {
		if err := r.arm64(); err != nil {
			return err
		}
		return r.finish(o, start)
	}
	if o.lint {
		r.lint()
		return r.finish(o, start)
	}
	if o.only {
		if err := r.test(append([]string{"-p", "1", "-timeout", "0", "-run", o.run}, packages...)...); err != nil {
			return err
		}
		if err := r.fuzz(o.fuzz, o.budget); err != nil {
			return err
		}
		return r.finish(o, start)
	}
	r.check("format", gofmt)
	r.check("vet", func() (string, error) { return command("go", "vet", "./...") })
	list, err := command("go", "list", "./...")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, list)
	}
	var quick, slow []string
	for _, name := range strings.Fields(list) {
		if name == guests {
			slow = append(slow, name)
		} else {
			quick = append(quick, name)
		}
	}
	args := []string{"-timeout", "10m"}
	if o.race {
		args, slow = append(args, "-race"), nil
	}
	if err := r.test(append(args, quick...)...); err != nil {
		return err
	}
	if len(slow) > 0 {
		if err := r.test(append([]string{"-timeout", "14m"}, slow...)...); err != nil {
			return err
		}
	}
	if err := r.fuzz(o.fuzz, o.budget); err != nil {
		return err
	}
	return r.finish(o, start)
}

// gofmt names the files that are not formatted.
func gofmt() (string, error) {
	text, err := command("gofmt", "-l", ".")
	if err == nil && text != "" {
		err = fmt.Errorf("these files are not formatted")
	}
	return text, err
}

func command(name string, args ...string) (string, error) {
	text, err := exec.Command(name, args...).CombinedOutput()
	return string(text), err
}

// test runs go test with args and takes its results in. A failed test is no error.
func (r *report) test(args ...string) error {
	cmd := exec.Command("go", append([]string{"test", "-json", "-vet=off"}, args...)...) // all of vet has its own step
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := r.read(stdout)
	runErr := cmd.Wait()
	if readErr != nil {
		return readErr
	}
	if runErr != nil && r.failed == 0 {
		return fmt.Errorf("go test: %w, and no test failed", runErr)
	}
	return nil
}

// finish prints what is worth telling last and writes the summary.
func (r *report) finish(o options, start time.Time) error {
	r.printSlow()
	r.printSkips()
	r.printFailures()
	took := time.Since(start)
	fmt.Fprintf(r.out, "took %s\n", took.Round(time.Second))
	if o.json != "" {
		if err := r.writeJSON(o.json, took); err != nil {
			return err
		}
	}
	line := fmt.Sprintf("%d passed, %d failed, %d skipped\n", r.passed, r.failed, len(r.skips))
	if err := os.MkdirAll(filepath.Dir(o.summary), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(o.summary, []byte(line), 0o644); err != nil {
		return err
	}
	io.WriteString(r.out, line)
	if r.failed > 0 {
		return errFailed
	}
	return nil
}
