package main

import (
	"errors"
	"os/exec"
	"reflect"
	"strings"
	"testing"
)

// Vulnerabilities of other modules are told apart from those of Go's own library, and both from those that nothing calls.
func TestReadFindings(t *testing.T) {
	const config = `{"config": {"go_version": "go1.26.8"}}
{"progress": {"message": "Checking the code"}}
{"osv": {"id": "GO-1"}}
`
	const inModule = `{"finding": {"osv": "GO-4", "fixed_version": "v1.2.0", "trace": [{"module": "example.org/a", "version": "v1.1.0", "package": "example.org/a", "function": "Parse"}, {"module": "banger", "function": "main"}]}}
`
	library := func(name, fixed string) string {
		return `{"finding": {"osv": "` + name + `", "fixed_version": "` + fixed + `", "trace": [{"module": "stdlib", "version": "v1.26.8", "package": "net/http", "function": "Serve"}]}}
`
	}
	for _, c := range []struct {
		name, text string
		want       findings
		says       string
	}{
		{"none", config, findings{have: "go1.26.8"}, ""},
		{"not called", config + `{"finding": {"osv": "GO-1", "trace": [{"module": "example.org/a", "version": "v1.1.0", "package": "example.org/a"}]}}` +
			`{"finding": {"osv": "GO-2", "trace": [{"module": "stdlib", "version": "v1.26.8"}]}}`, findings{have: "go1.26.8"}, ""},
		{"library", config + library("GO-2", "v1.26.9") + library("GO-1", "v1.26.10") + library("GO-2", "v1.26.9"),
			findings{library: []string{"GO-1", "GO-2"}, have: "go1.26.8", fix: "go1.26.10"},
			"go1.26.8 has 2 that the code reaches (GO-1, GO-2); mended by go1.26.10"},
		{"library, not mended", config + library("GO-1", "v1.26.9") + library("GO-2", ""),
			findings{library: []string{"GO-1", "GO-2"}, have: "go1.26.8"},
			"go1.26.8 has 2 that the code reaches (GO-1, GO-2), and no Go mends them all yet"},
		{"module", config + inModule + inModule,
			findings{modules: []string{`https://pkg.go.dev/vuln/GO-4 in example.org/a@v1.1.0, mended by "v1.2.0"`}, have: "go1.26.8"}, ""},
	} {
		got, err := readFindings(strings.NewReader(c.text))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, c.want)
		}
		if c.says != "" && got.libraryText() != c.says {
			t.Errorf("%s: %q, want %q", c.name, got.libraryText(), c.says)
		}
	}
	for _, text := range []string{"", config + inModule[:50], "go: downloading"} {
		if got, err := readFindings(strings.NewReader(text)); err == nil {
			t.Errorf("%q gives %+v and no error", text, got)
		}
	}
}

// What a proxy does not give is named in one line and no failure.
func TestUnavailable(t *testing.T) {
	_, err := exec.Command("sh", "-c", "printf 'go: no such host\nsorry\n' >&2; exit 1").Output()
	got, ok := errors.AsType[skipped](unavailable("staticcheck", err))
	if want := "needs staticcheck, which can't be had: go: no such host sorry"; !ok || string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}
