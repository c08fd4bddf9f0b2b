package format

import (
	"encoding"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"
)

// field is a field of a struct by its JSON name.
type field struct {
	reflect.StructField
	name string
	path []int
}

// fields are those of a struct that encoding/json writes, with those of embedded structs.
func fields(of reflect.Type) (list []field) {
	for i := range of.NumField() {
		f := of.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported() && !f.Anonymous:
		case f.Anonymous && name == "" && indirect(f.Type).Kind() == reflect.Struct:
			for _, inner := range fields(indirect(f.Type)) {
				if !slices.ContainsFunc(list, func(f field) bool { return f.name == inner.name }) {
					list = append(list, field{inner.StructField, inner.name, append([]int{i}, inner.path...)})
				}
			}
		default:
			if name == "" {
				name = f.Name
			}
			list = slices.DeleteFunc(list, func(f field) bool { return f.name == name })
			list = append(list, field{f, name, []int{i}})
		}
	}
	return list
}

// Names are the fields of values of type of, or of a list's elements; those of a struct in it as "spec.name".
func Names(of reflect.Type) []string { return namesBelow(of, "", 3) }

func namesBelow(of reflect.Type, prefix string, depth int) (names []string) {
	if of = indirect(of); of.Kind() == reflect.Slice && prefix == "" {
		of = indirect(of.Elem())
	}
	if of.Kind() != reflect.Struct || isText(of) || depth == 0 {
		return nil
	}
	for _, f := range fields(of) {
		names = append(names, prefix+f.name)
		names = append(names, namesBelow(f.Type, prefix+f.name+".", depth-1)...)
	}
	return names
}

func indirect(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

var (
	textual = reflect.TypeFor[encoding.TextMarshaler]()
	special = reflect.TypeFor[json.Marshaler]()
)

// isText tells whether values of a type encode themselves.
func isText(t reflect.Type) bool { return t.Implements(textual) || t.Implements(special) }

// view is a value as a template sees it: what encoding/json would read back, with whole numbers as int64, and absent fields as the zero of
// single values and else nil.
func view(v reflect.Value) any {
	for v.IsValid() && (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}
	if !v.IsValid() {
		return nil
	}
	if t, ok := v.Interface().(time.Time); ok && t.IsZero() {
		return ""
	}
	if isText(v.Type()) {
		return encoded(v)
	}
	switch v.Kind() {
	case reflect.Struct:
		return viewStruct(v)
	case reflect.Map:
		object := map[string]any{}
		for iter := v.MapRange(); iter.Next(); {
			key, _ := view(iter.Key()).(string)
			object[key] = view(iter.Value())
		}
		return object
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 && v.Kind() == reflect.Slice {
			return base64.StdEncoding.EncodeToString(v.Bytes())
		}
		list := []any{}
		for i := range v.Len() {
			list = append(list, view(v.Index(i)))
		}
		return list
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int()
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return int64(v.Uint())
	case reflect.Float32, reflect.Float64:
		return v.Float()
	case reflect.Bool:
		return v.Bool()
	}
	return v.String()
}

func viewStruct(v reflect.Value) any {
	object := map[string]any{}
	for _, f := range fields(v.Type()) {
		inner, err := v.FieldByIndexErr(f.path)
		if err != nil {
			object[f.name] = nil // of an embedded pointer that is nil
			continue
		}
		_, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if strings.Contains(options, "omit") && inner.IsZero() && inner.Kind() == reflect.Struct && !isText(inner.Type()) {
			object[f.name] = nil
			continue
		}
		object[f.name] = view(inner)
	}
	return object
}

// encoded is what a value that encodes itself gives.
func encoded(v reflect.Value) any {
	text, err := json.Marshal(v.Interface())
	var any any
	if err != nil || json.Unmarshal(text, &any) != nil {
		return ""
	}
	return any
}
