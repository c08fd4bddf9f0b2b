package format

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"banger"
)

type inner struct {
	Kind string `json:"kind"`
	N    int    `json:"n"`
}

type base struct {
	ID string `json:"id"`
}

type sample struct {
	base
	Name   string            `json:"name"`
	Size   int64             `json:"size_bytes"`
	Took   time.Duration     `json:"took_ns,omitempty"`
	At     time.Time         `json:"at"`
	Ended  time.Time         `json:"ended_at,omitzero"`
	Error  *inner            `json:"error,omitempty"`
	Some   inner             `json:"some,omitzero"`
	Share  *float64          `json:"share,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	Parts  []inner           `json:"parts"`
	Tags   []string          `json:"tags"`
	Addr   netip.Addr        `json:"addr"`
	hidden string
}

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func values() []sample {
	half := 0.5
	return []sample{
		{base: base{"1"}, Name: "a\x1bb", Size: 3 << 30, Took: 90 * time.Second, At: now.Add(-time.Hour), Error: &inner{"gone", 7}, Share: &half,
			Labels: map[string]string{"k": "v"}, Parts: []inner{{"x", 1}, {"y", 2}}, Tags: []string{"p", "q"}, Addr: netip.MustParseAddr("127.0.0.1")},
		{Name: "zero", hidden: "h"},
	}
}

func escape(text string) string { return strings.ReplaceAll(text, "\x1b", `\x1b`) }

func TestWrite(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"{{.name}}", "a\\x1bb\nzero\n"},
		{`{{.id}}\t{{.size_bytes}}`, "1\t3221225472\n\t0\n"},
		{"{{bytes .size_bytes}} {{.took_ns | duration}} {{ago .at}} {{ago .ended_at}}", "3 GiB 1m30s 1 hour ago -\n0 B 0.0s - -\n"},
		{"{{.error.kind}}/{{.some.kind}}/{{.share}}/{{.addr}}", "gone//0.5/127.0.0.1\n///\n"},
		{"{{if .error}}bad {{.error.n}}{{else}}good{{end}}", "bad 7\ngood\n"},
		{"{{with .error}}{{.kind}} of {{$.name}}{{end}}", "gone of a\\x1bb\n\n"},
		{"{{range .parts}}{{.kind}}{{.n}} {{end}}{{len .parts}}", "x1 y2 2\n0\n"},
		{"{{range $i, $p := .parts}}{{$i}}{{$p.kind}}{{end}}", "0x1y\n\n"},
		{"{{.labels.k}}{{.labels.none}}{{index .labels \"k\"}}", "vv\n\n"},
		{`{{join "," .tags}} {{json .tags}} {{.parts}}`, "p,q [\"p\",\"q\"] [{\"kind\":\"x\",\"n\":1},{\"kind\":\"y\",\"n\":2}]\n [] []\n"},
		{`{{if eq .name "zero"}}{{$n := .name}}{{printf "%s!" $n}}{{end}}`, "\nzero!\n"},
		{`{{if gt .size_bytes 1000}}large{{end}}`, "large\n\n"},
		{`{{(index .parts 0).kind | printf "%q"}}`, ""},
		{`{{define "x"}}<{{.kind}}>{{end}}{{range .parts}}{{template "x" .}}{{end}}`, "<x><y>\n\n"},
		{"plain", "plain\nplain\n"},
	} {
		f, err := Parse(tc.text, reflect.TypeFor[[]sample](), func() time.Time { return now }, escape)
		if err != nil {
			t.Errorf("Parse(%q): %v", tc.text, err)
			continue
		}
		var out strings.Builder
		if err := f.Write(&out, values()); tc.want == "" && err == nil || tc.want != "" && (err != nil || out.String() != tc.want) {
			t.Errorf("%s\n gives %q, %v\n want  %q", tc.text, out.String(), err, tc.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"{{.nme}}", `column 3: there is no field "nme"; did you mean name? there is: id, name, size_bytes`},
		{"{{.name}} {{.error.knd}}", `column 19: there is no field "knd"; did you mean kind? there is: kind, n`},
		{"é {{.name}}{{if .nope}}{{end}}", `column 17: there is no field "nope"; did you mean name or some? there is: id`},
		{`a\n{{.nope}}`, `line 2, column 3: there is no field "nope"`},
		{"{{range .parts}}{{.name}}{{end}}", `column 19: there is no field "name"; there is: kind, n`},
		{"{{range .parts}}{{$.nme}}{{end}}", `column 20: there is no field "nme"`},
		{"{{with .error}}{{.name}}{{end}}", `column 18: there is no field "name"`},
		{"{{.name.first}}", "column 8: first is of a single value"},
		{"{{.at.year}}", "column 6: year is of a single value"},
		{"{{len .tagz}}", `column 7: there is no field "tagz"; did you mean tags`},
		{"{{$x := .some}}{{$x.nope}}", `column 20: there is no field "nope"`},
		{"{{(index .parts 0).kind}}{{.no}}", `column 28: there is no field "no"`},
		{`{{.name "x"}}`, "column 3: a field takes no arguments"},
		{"{{.name}} {{.id", "column 11: unclosed action"},
		{"{{.name}} {{frob .id}} {{.id}}", `column 11: function "frob" not defined`},
		{"{{if .name}}", "column 1: unexpected EOF"},
		{"x{{.name}}}} {{end}}", "column 14: unexpected {{end}}"},
	} {
		_, err := Parse(tc.text, reflect.TypeFor[[]sample](), func() time.Time { return now }, escape)
		if !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error()+"; "+banger.HintOf(err), tc.want) {
			t.Errorf("Parse(%q) = %v; %s\n want %s", tc.text, err, banger.HintOf(err), tc.want)
		}
	}
}

func TestNames(t *testing.T) {
	got := strings.Join(Names(reflect.TypeFor[[]sample]()), " ")
	if want := "id name size_bytes took_ns at ended_at error error.kind error.n some some.kind some.n share labels parts tags addr"; got != want {
		t.Errorf("Names = %s, want %s", got, want)
	}
}
