package mcp

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"banger"
)

// about is a tool without what it does.
type about struct {
	name, title string
	text        string // what it does, for agents
	reads       bool   // it changes nothing
	destroys    bool   // it may destroy something
	repeatable  bool   // to do it again changes nothing more
	open        bool   // it reaches beyond this computer
	host        string // what it does to the host, for people
}

// call is one use of a tool.
type call struct {
	Commands
	*Server

	mu    sync.Mutex
	notes []string
}

// beside is what a command has to say beside its result.
type beside struct {
	Notes []string `json:"notes,omitempty" jsonschema:"what else is worth knowing"`
}

// told gives what has been said so far.
func (c *call) told() beside {
	c.mu.Lock()
	defer c.mu.Unlock()
	return beside{c.notes}
}

// maxNotes bounds what is said beside one result.
const maxNotes = 50

func (c *call) note(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.notes) < maxNotes {
		c.notes = append(c.notes, text)
	}
}

// add adds a tool. What it gives is made safe to show, but for fields that say "exact".
func add[In, Out any](s *Server, t about, do func(ctx context.Context, c *call, in In) (Out, error)) {
	s.tools = append(s.tools, t)
	destroys, open := t.destroys, t.open
	tool := &sdk.Tool{Name: t.name, Title: t.title, Description: t.text, InputSchema: schemaOf[In](), OutputSchema: schemaOf[Out](), Annotations: &sdk.ToolAnnotations{
		Title: t.title, ReadOnlyHint: t.reads, DestructiveHint: &destroys, IdempotentHint: t.repeatable, OpenWorldHint: &open}}
	sdk.AddTool(s.sdk, tool, func(ctx context.Context, req *sdk.CallToolRequest, in In) (*sdk.CallToolResult, Out, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.over, cancel)()
		c := &call{Server: s}
		c.Commands = s.cfg.Commands(Listener{Progress: progress(ctx, req), Notice: c.note})
		out, err := do(ctx, c, in)
		if err != nil {
			s.cfg.Log.Info("tool failed", "tool", t.name, "error", err)
			return nil, out, errors.New(errorText(err, c.told().Notes))
		}
		clean(reflect.ValueOf(&out).Elem())
		return nil, out, nil
	})
}

// schemaOf describes a type. Lists are lists, never null: not every program that runs agents takes alternatives of types.
func schemaOf[T any]() *jsonschema.Schema {
	schema, err := jsonschema.For[T](nil)
	if err != nil {
		panic(err) // of the type, which a test sees
	}
	noNull(schema)
	return schema
}

func noNull(s *jsonschema.Schema) {
	if slices.Equal(s.Types, []string{"null", "array"}) {
		s.Type, s.Types = "array", nil
	}
	if s.Items != nil {
		noNull(s.Items)
	}
	for _, property := range s.Properties {
		noNull(property)
	}
}

// errorText is an error for an agent: kind, message, next step, what finds it in the log, and what was said before.
func errorText(err error, notes []string) string {
	body := banger.EncodeError(err, "")
	text := body.Message
	if body.Kind != "" {
		text = body.Kind + ": " + text
	}
	if body.Hint != "" {
		text += "\nhint: " + body.Hint
	}
	if body.OpID != "" {
		text += "\noperation: " + body.OpID
	}
	for _, note := range notes {
		text += "\nnote: " + note
	}
	return printable(text)
}

// printable makes text of a guest safe to show. Lines and tabs stay.
func printable(text string) string {
	return banger.Escape(strings.ReplaceAll(text, "\r\n", "\n"), '\n', '\t')
}

// clean makes all text in a value printable, and lists that are not there empty ones.
func clean(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(printable(v.String()))
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); (field.IsExported() || field.Anonymous) && field.Tag.Get("text") != "exact" {
				clean(v.Field(i))
			}
		}
	case reflect.Slice:
		if v.IsNil() {
			v.Set(reflect.MakeSlice(v.Type(), 0, 0)) // [], not null
		}
		for i := range v.Len() {
			clean(v.Index(i))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			clean(v.Elem())
		}
	case reflect.Map:
		cleaned := reflect.MakeMap(v.Type())
		for it := v.MapRange(); it.Next(); {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			key.Set(it.Key())
			value.Set(it.Value())
			clean(key)
			clean(value)
			cleaned.SetMapIndex(key, value)
		}
		if !v.IsNil() {
			v.Set(cleaned)
		}
	}
}

// progressEvery is how often an agent hears how far something is.
const progressEvery = 200 * time.Millisecond

// progress tells an agent how far its request is, if it wants to know.
func progress(ctx context.Context, req *sdk.CallToolRequest) banger.ProgressFunc {
	token := req.Params.GetProgressToken()
	if token == nil {
		return nil
	}
	var mu sync.Mutex
	var last time.Time
	var stage string
	count := 0.0
	return func(p banger.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Stage == stage && !p.Done && time.Since(last) < progressEvery {
			return
		}
		last, stage = time.Now(), p.Stage
		count++
		text := p.Stage + ": " + p.Text
		if p.Detail != "" {
			text += ": " + p.Detail
		}
		if p.Done {
			text = p.Stage + ": done"
		}
		_ = req.Session.NotifyProgress(ctx, &sdk.ProgressNotificationParams{ProgressToken: token, Progress: count, Message: printable(text)})
	}
}
