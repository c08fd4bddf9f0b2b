// Package format shows the data of --json by a Go template: with the same field names, checked against the data's type before anything
// is asked, so that a mistyped field is an error even when there is nothing to show.
package format

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/template"
	"text/template/parse"
	"time"

	"github.com/dustin/go-humanize"

	"banger"
)

// Template shows values of one type.
type Template struct {
	list bool
	t    *template.Template
	now  func() time.Time
	safe func(string) string
}

// Parse checks a template for values of type of; that of a list is for its elements. safe is what text goes through before it is
// printed. Errors: ErrInvalid with the column and the fields there are.
func Parse(text string, of reflect.Type, now func() time.Time, safe func(string) string) (*Template, error) {
	f := &Template{now: now, safe: safe}
	if of.Kind() == reflect.Slice {
		f.list, of = true, of.Elem()
	}
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := template.New("").Funcs(f.functions()).Parse(text)
	if err != nil {
		return nil, syntaxError(text, err, f.functions())
	}
	f.t = t
	c := &checker{text: text, vars: map[string]reflect.Type{"$": of}}
	for _, one := range t.Templates() {
		if one.Tree == nil || one.Root == nil {
			continue
		}
		dot := of
		if one != t {
			dot = nil
		}
		c.list(one.Root, dot)
	}
	if c.err != nil {
		return nil, c.err
	}
	return f, nil
}

// Write shows a value, or each element of a list, on a line of its own.
func (f *Template) Write(w io.Writer, value any) error {
	v := view(reflect.ValueOf(value))
	values := []any{v}
	if list, ok := v.([]any); ok && f.list {
		values = list
	}
	for _, v := range values {
		var line strings.Builder
		if err := f.t.Execute(&line, v); err != nil {
			_, text, _ := strings.Cut(err.Error(), ": ")
			return banger.Invalidf("--format: %s", text)
		}
		if _, err := fmt.Fprintln(w, line.String()); err != nil {
			return err
		}
	}
	return nil
}

// syntaxError adds the column at which the action begins that can't be read.
func syntaxError(text string, err error, funcs template.FuncMap) error {
	at := strings.LastIndex(text, "{{")
	for end := 0; ; {
		i := strings.Index(text[end:], "}}")
		if i < 0 {
			break
		}
		begin := end
		end += i + len("}}")
		if _, err := template.New("").Funcs(funcs).Parse(text[:end]); err != nil && !strings.Contains(err.Error(), "unexpected EOF") {
			at = begin + max(strings.Index(text[begin:end], "{{"), 0)
			break
		}
	}
	_, why, found := strings.Cut(err.Error(), ":1: ")
	if !found {
		why = strings.TrimPrefix(err.Error(), "template: ")
	}
	return &banger.Error{Kind: banger.ErrInvalid, Op: "--format", Subject: place(text, max(at, 0)), Err: fmt.Errorf("%s", why),
		Hint: "fields stand in double braces: --format '{{.name}}'; docs/json.md has all"}
}

// place names a position for people.
func place(text string, at int) string {
	line := strings.LastIndex(text[:at], "\n") + 1
	column := fmt.Sprintf("column %d", len([]rune(text[line:at]))+1)
	if n := strings.Count(text[:at], "\n"); n > 0 {
		column = fmt.Sprintf("line %d, %s", n+1, column)
	}
	return column
}

// functions are what a template may call beside Go's own.
func (f *Template) functions() template.FuncMap {
	return template.FuncMap{
		"get": get, "show": f.show, "join": join, "bytes": bytesText, "duration": durationText,
		"json": func(v any) (string, error) { return compact(v) },
		"ago": func(v any) (string, error) {
			text, _ := v.(string)
			if text == "" {
				return "-", nil
			}
			t, err := time.Parse(time.RFC3339Nano, text)
			if err != nil {
				return "", fmt.Errorf("ago: %q is no time", text)
			}
			return humanize.RelTime(t, f.now(), "ago", "from now"), nil
		},
	}
}

// show is how a value is printed: nothing for what is absent, JSON for what is no single value.
func (f *Template) show(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return f.safe(v), nil
	}
	text, err := compact(v)
	return f.safe(text), err
}

func compact(v any) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

// get is the field that names lead to; nil when it is absent.
func get(v any, names ...string) any {
	for _, name := range names {
		object, _ := v.(map[string]any)
		v = object[name]
	}
	return v
}

func join(sep string, list any) (string, error) {
	values, ok := list.([]any)
	if !ok && list != nil {
		return "", fmt.Errorf("join: want a list")
	}
	var texts []string
	for _, v := range values {
		text, ok := v.(string)
		if !ok {
			var err error
			if text, err = compact(v); err != nil {
				return "", err
			}
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, sep), nil
}

// bytesText is a number of bytes for people.
func bytesText(v any) (string, error) {
	n, ok := v.(int64)
	if !ok {
		return "", fmt.Errorf("bytes: want a whole number")
	}
	return banger.FormatSize(n), nil
}

// durationText is a number of nanoseconds for people.
func durationText(v any) (string, error) {
	n, ok := v.(int64)
	if !ok {
		return "", fmt.Errorf("duration: want a number of nanoseconds")
	}
	d := time.Duration(n)
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds()), nil
	}
	return d.Round(time.Second).String(), nil
}

// checker finds fields that a type does not have, and has the others read by get: what is absent is nothing then, no fault.
type checker struct {
	text string
	vars map[string]reflect.Type // nil: of any type
	err  error
}

func (c *checker) list(nodes *parse.ListNode, dot reflect.Type) {
	if nodes == nil {
		return
	}
	for _, node := range nodes.Nodes {
		switch n := node.(type) {
		case *parse.ActionNode:
			c.pipe(n.Pipe, dot)
			if len(n.Pipe.Decl) == 0 {
				n.Pipe.Cmds = append(n.Pipe.Cmds, call(n.Pos, "show"))
			}
		case *parse.IfNode:
			c.pipe(n.Pipe, dot)
			c.list(n.List, dot)
			c.list(n.ElseList, dot)
		case *parse.WithNode:
			c.list(n.List, c.pipe(n.Pipe, dot))
			c.list(n.ElseList, dot)
		case *parse.RangeNode:
			c.list(n.List, c.ranged(n.Pipe, dot))
			c.list(n.ElseList, dot)
		case *parse.TemplateNode:
			if n.Pipe != nil {
				c.pipe(n.Pipe, dot)
			}
		}
	}
}

// ranged gives the type of the elements, which the last variable has, too.
func (c *checker) ranged(p *parse.PipeNode, dot reflect.Type) (element reflect.Type) {
	declared := p.Decl
	of := c.pipe(p, dot)
	if of != nil && (of.Kind() == reflect.Slice || of.Kind() == reflect.Map) {
		element = indirect(of.Elem())
	}
	for i, v := range declared {
		c.vars[v.Ident[0]] = nil
		if i == len(declared)-1 {
			c.vars[v.Ident[0]] = element
		}
	}
	return element
}

// pipe gives the type of what comes out; nil when that is not known.
func (c *checker) pipe(p *parse.PipeNode, dot reflect.Type) (of reflect.Type) {
	for i, cmd := range p.Cmds {
		of = nil
		for j, arg := range cmd.Args {
			var t reflect.Type
			cmd.Args[j], t = c.value(arg, dot)
			if len(cmd.Args) == 1 && len(p.Cmds) == 1 {
				of = t
			}
		}
		// A field that a function was made of takes arguments, which it must not have.
		if inner, ok := cmd.Args[0].(*parse.PipeNode); ok && (len(cmd.Args) > 1 || i > 0) {
			c.fail(int(inner.Pos), fmt.Errorf("a field takes no arguments"), "")
		}
	}
	for _, v := range p.Decl {
		c.vars[v.Ident[0]] = of
	}
	return of
}

// value gives what stands in place of an argument, and its type.
func (c *checker) value(arg parse.Node, dot reflect.Type) (parse.Node, reflect.Type) {
	switch n := arg.(type) {
	case *parse.DotNode:
		return n, dot
	case *parse.FieldNode:
		return c.field(&parse.DotNode{NodeType: parse.NodeDot, Pos: n.Pos}, dot, n.Ident, int(n.Pos))
	case *parse.VariableNode:
		root := &parse.VariableNode{NodeType: parse.NodeVariable, Pos: n.Pos, Ident: n.Ident[:1]}
		return c.field(root, c.vars[n.Ident[0]], n.Ident[1:], int(n.Pos))
	case *parse.ChainNode:
		inner, of := c.value(n.Node, dot)
		return c.field(inner, of, n.Field, int(n.Pos))
	case *parse.PipeNode:
		return n, c.pipe(n, dot)
	}
	return arg, nil
}

// field has names of a value of type of read by get. at is about where the first of them stands.
func (c *checker) field(from parse.Node, of reflect.Type, names []string, at int) (parse.Node, reflect.Type) {
	if len(names) == 0 {
		return from, of
	}
	get := call(from.Position(), "get")
	get.Args = append(get.Args, from)
	if i := strings.LastIndex(c.text[:min(len(c.text), at+1)], "."+names[0]); i >= 0 && i < at {
		at = i // the parser gives the last field of several
	}
	for _, name := range names {
		of = c.step(of, name, at)
		at += len(name) + 1
		get.Args = append(get.Args, &parse.StringNode{NodeType: parse.NodeString, Pos: from.Position(), Quoted: fmt.Sprintf("%q", name), Text: name})
	}
	return &parse.PipeNode{NodeType: parse.NodePipe, Pos: from.Position(), Cmds: []*parse.CommandNode{get}}, of
}

// step gives the type of one field.
func (c *checker) step(of reflect.Type, name string, at int) reflect.Type {
	if of == nil {
		return nil
	}
	switch of = indirect(of); {
	case of.Kind() == reflect.Map:
		return indirect(of.Elem())
	case of.Kind() == reflect.Interface:
		return nil
	case of.Kind() != reflect.Struct || isText(of):
		c.fail(at, fmt.Errorf("%s is of a single value, which has no fields", name), "")
		return nil
	}
	var names []string
	for _, f := range fields(of) {
		if f.name == name {
			return indirect(f.Type)
		}
		names = append(names, f.name)
	}
	hint := "there is: " + strings.Join(names, ", ")
	if near := banger.Near(name, names); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "? " + hint
	}
	c.fail(at, fmt.Errorf("there is no field %q", name), hint)
	return nil
}

func (c *checker) fail(at int, err error, hint string) {
	if c.err == nil {
		c.err = &banger.Error{Kind: banger.ErrInvalid, Op: "--format", Subject: place(c.text, min(at, len(c.text))), Err: err, Hint: hint}
	}
}

func call(at parse.Pos, function string) *parse.CommandNode {
	return &parse.CommandNode{NodeType: parse.NodeCommand, Pos: at, Args: []parse.Node{parse.NewIdentifier(function).SetPos(at)}}
}
