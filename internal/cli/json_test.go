package cli

import (
	"bytes"
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/schema"
)

// commented are the packages whose types commands show.
var commented = []string{".", "api", "internal/cli", "internal/ext4/check", "internal/hostcheck", "internal/machine", "internal/proc", "internal/project",
	"internal/tooling", "internal/transfer", "internal/twoway", "internal/workspace"}

// docs/json.md is what the commands' types give; go test ./internal/cli -update writes it.
func TestJSONDocument(t *testing.T) {
	comments, err := schema.New("../..", "", commented...)
	if err != nil {
		t.Fatal(err)
	}
	d := &jsonDocument{comments: comments}
	want := d.write((&app{build: banger.Build{Version: "v1"}}).rootCommand())
	slices.Sort(d.silent)
	for _, field := range slices.Compact(d.silent) {
		t.Errorf("%s has no comment: docs/json.md can't say what it means", field)
	}
	const path = "../../docs/json.md"
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/json.md is not what the types give (%v): go test ./internal/cli -update", err)
	}
}

// silentCommands have no data: their output is somebody else's, is meant for a person or a program as it is, or there is none.
var silentCommands = []string{"vm exec", "vm shell", "vm ssh", "vm attach", "vm logs", "workspace diff", "workspace export", "image export", "disk cat", "ssh-proxy", "dns setup",
	"daemon stop", "daemon api", "top", "mcp", "help", "completion bash", "completion zsh", "completion fish", "completion powershell"}

// Every command says what its data are, or that it has none.
func TestEveryCommandHasOutputs(t *testing.T) {
	root := (&app{build: banger.Build{Version: "v1"}}).rootCommand()
	var seen []string
	leaves(root, func(cmd *cobra.Command) {
		name := commandName(cmd)
		seen = append(seen, name)
		if documented, silent := Outputs[name] != nil, slices.Contains(silentCommands, name); documented == silent {
			t.Errorf("banger %s: in Outputs %v, said to have none %v", name, documented, silent)
		}
	})
	for name := range Outputs {
		if !slices.Contains(seen, name) {
			t.Errorf("Outputs has %q, which is no command", name)
		}
	}
}

// leaves calls each with every command that does something.
func leaves(cmd *cobra.Command, each func(*cobra.Command)) {
	if !cmd.HasSubCommands() {
		each(cmd)
	}
	for _, sub := range cmd.Commands() {
		leaves(sub, each)
	}
}

type jsonDocument struct {
	comments *schema.Set
	types    []reflect.Type // in the order in which they are met
	silent   []string       // fields without a comment
}

const jsonIntro = `# The data of commands

With ` + "`--json`" + ` a command writes what it has to show to standard output as JSON, and an error to standard error as
` + "`" + `{"kind", "message", "hint", "op_id"}` + "`" + `. With ` + "`--format`" + ` it shows the same data by a Go template
([text/template](https://pkg.go.dev/text/template)), of a list each element on a line of its own:

` + "```sh" + `
banger ps --format '{{.id}} {{.spec.name}} {{.state}}'
banger vm show devbox --format '{{.spec.memory_mib}} MiB, made {{ago .created_at}}'
banger image list --format '{{.name}}\t{{bytes .size_bytes}}'
banger vm show devbox --format '{{range $key, $value := .spec.labels}}{{$key}}={{$value}} {{end}}'
` + "```" + `

A template is checked against the fields below before anything is asked or done: one that is not there is an error of status 2, which names
the column and the fields there are. What is absent is shown as nothing. Beside what Go has, there are

| in a template | gives |
| --- | --- |
| ` + "`json VALUE`" + ` | the value as JSON in one line, which is also how a list or an object is shown |
| ` + "`bytes NUMBER`" + ` | a number of bytes for people: 3.4 GiB |
| ` + "`ago TIME`" + ` | how long ago it was, for people |
| ` + "`duration NANOSECONDS`" + ` | a duration for people: 41.2s |
| ` + "`join SEPARATOR LIST`" + ` | the elements of a list in one line |

In JSON, times are RFC 3339 in UTC, durations whole nanoseconds (` + "`…_ns`" + `), sizes bytes unless a name has another unit. Fields marked with ○ are left
out when there is nothing to say. New fields may come; programs leave alone what they do not know. This page is made from the program's types.

`

// write gives the whole document.
func (d *jsonDocument) write(root *cobra.Command) []byte {
	var commands bytes.Buffer
	leaves(root, func(cmd *cobra.Command) {
		name := commandName(cmd)
		for _, o := range Outputs[name] {
			with := ""
			switch flag := cmd.Flags().Lookup(o.With); {
			case flag != nil:
				with = " `--" + o.With + "`"
			case o.With != "":
				with = " … `" + o.With + "`"
			}
			text := d.typeText(o.Of)
			if o.Lines {
				text = "a line each: " + text
			}
			fmt.Fprintf(&commands, "| `%s`%s | %s |\n", name, with, text)
		}
	})
	var b bytes.Buffer
	b.WriteString(jsonIntro + "## Commands\n\n| command | data |\n| --- | --- |\n")
	b.Write(commands.Bytes())
	b.WriteString("\n## Types\n")
	for i := 0; i < len(d.types); i++ { // which grows
		d.describe(&b, d.types[i])
	}
	return b.Bytes()
}

// describe writes a struct's fields, those of embedded structs among them.
func (d *jsonDocument) describe(b *bytes.Buffer, t reflect.Type) {
	fmt.Fprintf(b, "\n### %s\n", d.heading(t))
	if text := d.comments.Comment(t, ""); text != "" {
		fmt.Fprintf(b, "\n%s\n", text)
	}
	b.WriteString("\n| field | type | meaning |\n| --- | --- | --- |\n")
	d.fields(b, t)
}

func (d *jsonDocument) fields(b *bytes.Buffer, t reflect.Type) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported() && !f.Anonymous:
			continue
		case f.Anonymous && name == "":
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			d.fields(b, inner)
			continue
		}
		mark := ""
		if strings.Contains(options, "omit") {
			mark = " ○"
		}
		comment := d.comments.Comment(t, f.Name)
		if comment == "" {
			d.silent = append(d.silent, t.String()+"."+f.Name)
		}
		meaning := strings.NewReplacer("|", "\\|", "<", "&lt;").Replace(comment)
		fmt.Fprintf(b, "| `%s`%s | %s | %s |\n", cmp.Or(name, f.Name), mark, d.typeText(f.Type), meaning)
	}
}

// heading is a struct's name; with that of its package when another one has it, too.
func (d *jsonDocument) heading(t reflect.Type) string {
	name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
	for _, other := range d.types {
		if other == t {
			break
		}
		if strings.EqualFold(other.Name(), t.Name()) {
			return name + " of " + t.PkgPath()[strings.LastIndex(t.PkgPath(), "/")+1:]
		}
	}
	return name
}

// typeText says what JSON has for a type; a struct is described later.
func (d *jsonDocument) typeText(t reflect.Type) string {
	switch {
	case t.Kind() == reflect.Pointer:
		return d.typeText(t.Elem())
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t == reflect.TypeFor[time.Duration]():
		return "nanoseconds"
	case t == reflect.TypeFor[json.RawMessage]():
		return "any"
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return "string"
	}
	switch t.Kind() {
	case reflect.Struct:
		if !slices.Contains(d.types, t) {
			d.types = append(d.types, t)
		}
		name := d.heading(t)
		return "[" + name + "](#" + strings.ReplaceAll(strings.ToLower(name), " ", "-") + ")"
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return "string, base64"
		}
		return "list of " + d.typeText(t.Elem())
	case reflect.Map:
		return "object: " + d.typeText(t.Key()) + " → " + d.typeText(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "string"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Interface:
		return "any"
	}
	return "whole number"
}

func TestFormatErrors(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{[]string{"ps", "--format", "{{.nme}}"}, []string{`column 3: there is no field "nme"`, "there is: id, spec"}},
		{[]string{"ps", "--format", "{{.id"}, []string{"column 1: unclosed action"}},
		{[]string{"ps", "--format", "{{.id}}", "--json"}, []string{"--format and --json exclude each other"}},
		{[]string{"ps", "--json", "--format", "{{.id}}"}, []string{"--format and --json exclude each other"}},
		{[]string{"ps", "--format", ""}, []string{"no template given"}},
		{[]string{"vm", "run", "--format", "{{.id}}"}, []string{"has no data as it is asked for"}},
		{[]string{"vm", "net", "box", "log", "--format", "{{.policy}}"}, []string{`there is no field "policy"`}},
		{[]string{"vm", "net", "box", "--format", "{{.verdict}}"}, []string{`there is no field "verdict"`}},
		{[]string{"vm", "create", "--format", "{{.kind}}"}, []string{`there is no field "kind"`}},
		{[]string{"vm", "exec", "--format", "x"}, []string{"unknown flag: --format"}},
	} {
		status, stdout, stderr := run(t, tc.args...)
		if status != 2 || stdout != "" {
			t.Errorf("banger %q: status %d, %q", tc.args, status, stdout)
		}
		for _, text := range tc.want {
			if !strings.Contains(stderr, text) {
				t.Errorf("banger %q: stderr has no %q:\n%s", tc.args, text, stderr)
			}
		}
	}
}

func TestFormatOfVersion(t *testing.T) {
	if status, stdout, stderr := run(t, "version", "--format", `{{.version}} {{.daemon.version}}{{if .differs}}!{{end}} {{printf "%.7s" .commit}}`); status != 0 || stdout != "v1  0123456\n" {
		t.Errorf("status %d, %q, %s", status, stdout, stderr)
	}
}

func TestCompleteFormat(t *testing.T) {
	root := (&app{build: banger.Build{Version: "v1"}}).rootCommand()
	cmd, _, err := root.Find([]string{"ps"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ typed, want string }{
		{"{{.spec.me", "[{{.spec.memory_mib}}]"},
		{"{{.id}} {{.sta", "[{{.id}} {{.state}} {{.id}} {{.started_at}}]"},
		{"{{.nosuch", "[]"},
	} {
		if got, _ := completeFormat(cmd, nil, tc.typed); fmt.Sprint(got) != tc.want {
			t.Errorf("completeFormat(%q) = %v, want %s", tc.typed, got, tc.want)
		}
	}
}
