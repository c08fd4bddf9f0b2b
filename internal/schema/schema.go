// Package schema makes JSON Schemas (2020-12) of Go types, with their comments, for documents that are made from the source. Only what
// makes and checks such documents imports it; no program does.
package schema

import (
	"encoding"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/invopop/jsonschema"
)

// Set is the schemas of types that refer to each other by name.
type Set struct {
	Prefix      string // of a reference: "#/components/schemas/"
	Definitions map[string]*jsonschema.Schema
	comments    map[string]string // by import path, type and field
}

// New reads the comments of this module's packages that dirs name, which are below root.
func New(root, prefix string, dirs ...string) (*Set, error) {
	s := &Set{Prefix: prefix, Definitions: map[string]*jsonschema.Schema{}, comments: map[string]string{}}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if err := s.read(filepath.ToSlash(filepath.Join("banger", dir)), file); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// read keeps the comments of the types and fields in a file of package path.
func (s *Set) read(path, name string) error {
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.TYPE {
			continue
		}
		for _, spec := range group.Specs {
			t := spec.(*ast.TypeSpec)
			text := t.Doc.Text()
			if text == "" {
				text = group.Doc.Text()
			}
			s.comments[path+"."+t.Name.Name] = plain(text)
			if fields, ok := t.Type.(*ast.StructType); ok {
				s.fields(path+"."+t.Name.Name, fields)
			}
		}
	}
	return nil
}

func (s *Set) fields(of string, list *ast.StructType) {
	for _, field := range list.Fields.List {
		text := strings.TrimSpace(field.Doc.Text() + " " + field.Comment.Text())
		for _, name := range field.Names {
			s.comments[of+"."+name.Name] = plain(text)
		}
	}
}

// link is a name in brackets, as comments refer to types, functions and constants.
var link = regexp.MustCompile(`\[(\*?[A-Za-z_][A-Za-z0-9_.]*)\]`)

// plain is a comment as one paragraph, without the brackets of links.
func plain(text string) string {
	return link.ReplaceAllString(strings.Join(strings.Fields(text), " "), "$1")
}

// Comment is what stands at a type, or at its field when one is named.
func (s *Set) Comment(t reflect.Type, field string) string {
	key := t.PkgPath() + "." + t.Name()
	if field != "" {
		key += "." + field
	}
	return s.comments[key]
}

// Of gives the schema of t: a reference when it is a struct, which Definitions holds then.
func (s *Set) Of(t reflect.Type) *jsonschema.Schema {
	if t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8 {
		return &jsonschema.Schema{Type: "array", Items: s.Of(t.Elem())}
	}
	r := &jsonschema.Reflector{Anonymous: true, LookupComment: s.Comment, Mapper: mapped}
	whole := r.ReflectFromType(t)
	for name, definition := range whole.Definitions {
		s.refer(definition)
		s.Definitions[name] = definition
	}
	whole.Definitions, whole.Version = nil, ""
	s.refer(whole)
	return whole
}

// refer has the references in a schema begin with our prefix.
func (s *Set) refer(in *jsonschema.Schema) {
	if in == nil {
		return
	}
	in.Ref = strings.Replace(in.Ref, "#/$defs/", s.Prefix, 1)
	s.refer(in.Items)
	s.refer(in.AdditionalProperties)
	if in.Properties != nil {
		for p := in.Properties.Oldest(); p != nil; p = p.Next() {
			s.refer(p.Value)
		}
	}
}

var (
	textual = reflect.TypeFor[encoding.TextMarshaler]()
	special = reflect.TypeFor[json.Marshaler]()
)

// mapped is the schema of a type that encodes itself, or is more than its kind tells.
func mapped(t reflect.Type) *jsonschema.Schema {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return &jsonschema.Schema{Type: "string", Format: "date-time"}
	case t == reflect.TypeFor[time.Duration]():
		return &jsonschema.Schema{Type: "integer", Format: "int64", Description: "nanoseconds"}
	case t == reflect.TypeFor[json.RawMessage]():
		return &jsonschema.Schema{}
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return &jsonschema.Schema{Type: "string", ContentEncoding: "base64"}
	case t.Implements(special) || reflect.PointerTo(t).Implements(special):
		panic(fmt.Sprintf("the schema of %v is not known: it encodes itself", t))
	case t.Implements(textual) || reflect.PointerTo(t).Implements(textual):
		return &jsonschema.Schema{Type: "string"}
	case t.Kind() == reflect.Int64:
		return &jsonschema.Schema{Type: "integer", Format: "int64"}
	}
	return nil
}
