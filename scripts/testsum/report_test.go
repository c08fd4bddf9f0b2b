package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const events = `{"Action":"start","Package":"banger/a"}
{"Action":"run","Package":"banger/a","Test":"TestOne"}
{"Action":"output","Package":"banger/a","Test":"TestOne","Output":"=== RUN   TestOne\n"}
{"Action":"pass","Package":"banger/a","Test":"TestOne","Elapsed":0}
{"Action":"run","Package":"banger/a","Test":"TestTree"}
{"Action":"run","Package":"banger/a","Test":"TestTree/good"}
{"Action":"pass","Package":"banger/a","Test":"TestTree/good","Elapsed":0}
{"Action":"output","Package":"banger/a","Test":"TestTree/bad","Output":"    a_test.go:3: 1, want 2\n"}
{"Action":"fail","Package":"banger/a","Test":"TestTree/bad","Elapsed":0}
{"Action":"fail","Package":"banger/a","Test":"TestTree","Elapsed":0}
{"Action":"output","Package":"banger/a","Test":"TestKVM","Output":"=== RUN   TestKVM\n"}
{"Action":"output","Package":"banger/a","Test":"TestKVM","Output":"    a_test.go:9: needs /dev/kvm\n"}
{"Action":"output","Package":"banger/a","Test":"TestKVM","Output":"--- SKIP: TestKVM (0.00s)\n"}
{"Action":"skip","Package":"banger/a","Test":"TestKVM","Elapsed":0}
{"Action":"output","Package":"banger/a","Output":"FAIL\n"}
{"Action":"fail","Package":"banger/a","Elapsed":0.1}
{"ImportPath":"banger/b","Action":"build-output","Output":"b.go:1: syntax error\n"}
{"ImportPath":"banger/b","Action":"build-fail"}
{"Action":"output","Package":"banger/b","Output":"FAIL\tbanger/b [build failed]\n"}
{"Action":"fail","Package":"banger/b","Elapsed":0,"FailedBuild":"banger/b"}
{"Action":"skip","Package":"banger/c","Elapsed":0}
`

func TestRead(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out)
	if err := r.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	if r.passed != 2 || r.failed != 2 || len(r.skips) != 1 {
		t.Errorf("%d passed, %d failed, %d skipped, want 2, 2, 1", r.passed, r.failed, len(r.skips))
	}
	if want := []string{"banger/a TestTree/bad", "banger/b"}; !slices.Equal(r.failures, want) {
		t.Errorf("failures = %q, want %q", r.failures, want)
	}
	counts := map[string]int{}
	for _, one := range r.tests {
		counts[one.Result]++
	}
	if counts["pass"] != 2 || counts["fail"] != 2 || counts["skip"] != 1 {
		t.Errorf("results %v, want 2 pass, 2 fail, 1 skip: %+v", counts, r.tests)
	}
	if want := "banger/a TestKVM: a_test.go:9: needs /dev/kvm"; r.skips[0] != want {
		t.Errorf("skip = %q, want %q", r.skips[0], want)
	}
	for _, text := range []string{"1, want 2", "syntax error"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("output has no %q:\n%s", text, &out)
		}
	}
}

func TestWriteJSON(t *testing.T) {
	r := newReport(&bytes.Buffer{})
	if err := r.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "new", "results.json")
	if err := r.writeJSON(path, 90*time.Second); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	var got struct {
		Passed, Failed, Skipped int
		Seconds                 float64
		Tests                   []result
	}
	if err == nil {
		err = json.Unmarshal(text, &got)
	}
	if err != nil || got.Passed != 2 || got.Failed != 2 || got.Skipped != 1 || got.Seconds != 90 || len(got.Tests) != 5 {
		t.Fatalf("%v: %s", err, text)
	}
	if want := (result{"banger/a TestKVM", "skip", 0, "a_test.go:9: needs /dev/kvm"}); !slices.Contains(got.Tests, want) {
		t.Errorf("tests %+v, want %+v among them", got.Tests, want)
	}
}

func TestListTests(t *testing.T) {
	var out bytes.Buffer
	if err := listTests(&out, []string{"."}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "testsum TestListTests\n") {
		t.Errorf("the list has no line of this test:\n%s", &out)
	}
	if err := listTests(&out, []string{"./no/such"}); err == nil {
		t.Error("a package that is not there is no error")
	}
}

func TestReadCutShort(t *testing.T) {
	if err := newReport(&bytes.Buffer{}).read(strings.NewReader(events[:200])); err == nil {
		t.Error("events cut short are no error")
	}
}

func TestCheck(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out)
	r.check("good", func() (string, error) { return "", nil })
	r.check("not here", func() (string, error) { return "", skipped("needs a tool") })
	r.check("bad", func() (string, error) { return "words of the tool\n", errors.New("exit status 1") })
	if r.passed != 1 || r.failed != 1 || !slices.Equal(r.skips, []string{"not here: needs a tool"}) || !strings.Contains(out.String(), "words of the tool") {
		t.Errorf("%d passed, %d failed, skips %q:\n%s", r.passed, r.failed, r.skips, &out)
	}
}

func TestFuzzTargets(t *testing.T) {
	const source = "package a\n\nfunc FuzzParse(f *testing.F) {\n}\n\n// FuzzNot is none.\nfunc FuzzNot(t *testing.T) {\n}\n\nfunc Fuzz(f *testing.F) {}\n"
	var got []string
	for _, match := range fuzzTarget.FindAllStringSubmatch(source, -1) {
		got = append(got, match[1])
	}
	if want := []string{"FuzzParse", "Fuzz"}; !slices.Equal(got, want) {
		t.Errorf("targets = %q, want %q", got, want)
	}
}

func TestOnlyTimeIsUp(t *testing.T) {
	const late = "fuzz: elapsed: 5s, execs: 39006 (8827/sec)\n--- FAIL: FuzzTrie (5.43s)\n    context deadline exceeded\nFAIL\nexit status 1\nFAIL\tbanger/a\t5.455s\n"
	for _, c := range []struct {
		name, text string
		want       bool
	}{
		{"late worker", late, true},
		{"a finding", strings.Replace(late, "FAIL\nexit", "\n    Failing input written to testdata/fuzz/FuzzTrie/1\nFAIL\nexit", 1), false},
		{"a message of the test", strings.Replace(late, "    context", "    a_test.go:3: context", 1), false},
		{"more after it", strings.Replace(late, "FAIL\nexit", "    and more\nFAIL\nexit", 1), false},
		{"does not build", "# banger/a\na.go:1: syntax error\nFAIL\tbanger/a [build failed]\n", false},
	} {
		if got := onlyTimeIsUp(c.text); got != c.want {
			t.Errorf("%s: onlyTimeIsUp = %v, want %v", c.name, got, c.want)
		}
	}
}
