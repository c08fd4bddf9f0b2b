package config

import (
	"encoding"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"banger"
)

// FromHost and BuiltIn are where a value comes from that neither the file nor the environment gives.
const (
	FromHost = "this computer"
	BuiltIn  = "built in"
)

// Variable is the environment variable that stands above a key of the file: BANGER_VM_DEFAULTS_MEMORY for vm_defaults.memory.
func Variable(key string) string {
	return "BANGER_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// mirrorVariable is a shorter name of the one for debian.mirror, which the build uses too.
const mirrorVariable = "BANGER_MIRROR"

// Mistyped gives the variables of an environment that set nothing and are named nearly like one that does, each with what it may have been
// meant to be. Others that begin like ours may be anybody's.
func Mistyped(environ []string) (found []string) {
	const prefix = "BANGER_" // which all have in common: what is behind it is compared
	known := []string{"CONFIG", "STATE_DIR", "BOOT_DEADLINE", "PAGER", strings.TrimPrefix(mirrorVariable, prefix)}
	for _, key := range Keys() {
		known = append(known, strings.TrimPrefix(Variable(key), prefix))
	}
	for _, entry := range environ {
		variable, _, _ := strings.Cut(entry, "=")
		name, ours := strings.CutPrefix(variable, prefix)
		if !ours || slices.Contains(known, name) {
			continue
		}
		if near := banger.Near(name, known); len(near) > 0 {
			found = append(found, fmt.Sprintf("%.100q sets nothing: did you mean %s?", variable, prefix+near[0]))
		}
	}
	slices.Sort(found)
	return found
}

// note remembers what the text of a file sets.
func (l *Loaded) note(path string, text []byte) {
	var all map[string]any
	if toml.Unmarshal(text, &all) != nil {
		return // Parse has taken it
	}
	l.file = path
	for _, key := range Keys() {
		section, name, _ := strings.Cut(key, ".")
		values, _ := all[section].(map[string]any)
		if _, ok := values[name]; ok {
			l.from[key] = path
		}
	}
}

// override takes what the environment sets. An empty variable sets nothing.
func (l *Loaded) override(lookup func(string) (string, bool)) error {
	set := func(variable, key string) error {
		text, ok := lookup(variable)
		if !ok || text == "" {
			return nil
		}
		l.from[key] = "$" + variable
		if err := l.Config.set(key, text); err != nil {
			return &banger.Error{Kind: banger.ErrInvalid, Op: "environment", Subject: variable, Err: err, Hint: banger.HintOf(err)}
		}
		return nil
	}
	if err := set(mirrorVariable, "debian.mirror"); err != nil {
		return err
	}
	for _, key := range Keys() {
		if err := set(Variable(key), key); err != nil {
			return err
		}
	}
	return nil
}

// set gives one key the value that text means: text itself where the file has a string, else what TOML says.
func (c *Config) set(key, text string) error {
	changed := *c
	field := c.field(key)
	if strings.ContainsAny(text, "\n\r") {
		return fmt.Errorf("it has several lines")
	}
	literal := text
	if _, isText := field.Addr().Interface().(encoding.TextUnmarshaler); isText || field.Kind() == reflect.String {
		literal = strconv.Quote(text)
	}
	section, name, _ := strings.Cut(key, ".")
	if err := toml.Unmarshal([]byte("["+section+"]\n"+name+" = "+literal+"\n"), &changed); err != nil {
		return err
	}
	if err := changed.validate(); err != nil {
		return err
	}
	*c = changed
	return nil
}

// field gives the field of a key.
func (c *Config) field(key string) reflect.Value {
	section, name, _ := strings.Cut(key, ".")
	byTag := func(v reflect.Value, tag string) reflect.Value {
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("toml") == tag {
				return v.Field(i)
			}
		}
		panic("no key " + key)
	}
	return byTag(byTag(reflect.ValueOf(c).Elem(), section), name)
}

// Settings gives every key with its value, in the order of the structs, then each file that is synced. A password in a URL is left out.
func (l *Loaded) Settings() []banger.Setting {
	var list []banger.Setting
	for _, key := range Keys() {
		from := l.from[key]
		if from == "" {
			from = BuiltIn
		}
		list = append(list, banger.Setting{Key: key, Value: show(l.Config.field(key)), From: from})
	}
	for i, f := range l.FileSync {
		list = append(list, banger.Setting{Key: fmt.Sprintf("file_sync[%d]", i+1), Value: f.String(), From: l.file})
	}
	return list
}

func show(v reflect.Value) string {
	switch value := v.Interface().(type) {
	case string:
		if u, err := url.Parse(value); err == nil && u.User != nil {
			return u.Redacted()
		}
		return value
	case fmt.Stringer:
		return value.String()
	}
	if v.Kind() != reflect.Slice || v.Type().Elem().Kind() == reflect.Uint8 {
		return fmt.Sprint(v.Interface())
	}
	parts := []string{}
	for i := range v.Len() {
		parts = append(parts, show(v.Index(i)))
	}
	return strings.Join(parts, ", ")
}
