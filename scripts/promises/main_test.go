package main

import (
	"strings"
	"testing"
)

func TestPage(t *testing.T) {
	t.Chdir("../..")
	if err := run(nil, true); err != nil {
		t.Error(err)
	}
}

const before = `Measured <!-- at vmrun -->on a day<!-- --> and <!-- at other -->another<!-- -->.
| promise | measured | holds |
|---|---|---|
| run | <!-- vmrun.Run run/bare <= 1.25 -->1.08 × (of <!-- vmrun.Run run-s -->2.3 s) | yes |
| exec | <!-- vmrun.Exec over-guest-ms <= 15 -->12.5 ms | yes |
| all | <!-- vmrun.Loaded ready-of-40 = 40 -->39 | no |
| two | <!-- vmrun.Idle a-MB <= 25 -->3.5, <!-- vmrun.Idle b-MB <= 12 -->1,024 MB | no |
| other | <!-- other.Run run/bare <= 1.25 -->9 × | no |
`

const output = `goos: linux
BenchmarkRun 	       1	7123456 ns/op	         1.1234 run/bare	         0.5 run-s
--- BENCH: BenchmarkRun
    x_test.go:1: accelerator: TCG
BenchmarkExec-2 	       1	  7123456 ns/op	        15.03 over-guest-ms
BenchmarkIdle 	       1	  7123456 ns/op	        0 a-MB	        2.734 b-MB
BenchmarkLoaded 	       1	  7123456 ns/op	        40.00 ready-of-40
PASS
`

func TestRewrite(t *testing.T) {
	got, err := parse(strings.NewReader(output))
	if err != nil {
		t.Fatal(err)
	}
	if got.at != "TCG, " {
		t.Errorf("accelerator %q", got.at)
	}
	got.at = "today"
	after, err := rewrite([]byte(before), "vmrun", got)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer("on a day", "today", ">1.08 ", ">1.12 ", ">2.3 ", ">0.500 ", ">12.5 ms | yes", ">15.0 ms | no", ">39 | no", ">40 | yes",
		">3.5, ", ">0, ", ">1,024 MB | no", ">2.73 MB | yes").Replace(before)
	if string(after) != want {
		t.Errorf("got\n%s\nwant\n%s", after, want)
	}
}

func TestNotMeasured(t *testing.T) {
	if _, err := rewrite([]byte(before), "vmrun", &measured{}); err == nil || !strings.Contains(err.Error(), "did not measure") {
		t.Errorf("error %v", err)
	}
}

func TestVerify(t *testing.T) {
	t.Chdir("../..")
	for text, want := range map[string]string{
		"<!-- vmrun.Run run/bare <= 1.25 --> ×":       "no number",
		"<!-- vmrun.Run run/bare < 1.25 -->1 ×":       "neither a source nor a stamp",
		"<!-- vmrun.Nothing run/bare <= 1.25 -->1 ×":  "does not have",
		"<!-- at vmrun -->today, without an end here": "neither a source nor a stamp",
	} {
		if err := verify([]byte(text), packagesOf([]byte(text))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}
