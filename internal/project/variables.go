package project

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"path"
	"slices"
	"strings"
)

// Values are what variables stand for.
type Values struct {
	Root         string                            // of the repository on this computer
	Folder       string                            // where it lies in the VM; empty: not known yet
	LocalEnv     func(name string) (string, bool)  // nil: such variables stay as they are
	ContainerEnv func(name string) (string, error) // asked for what Env of the settings does not have; nil: such variables stay as they are
}

// Resolve gives the settings with their variables replaced. LocalEnv is asked only about names that [Settings.Needs] tells of.
// Errors: ErrInvalid for what comes out; what ContainerEnv says.
func (s Settings) Resolve(v Values) (Settings, error) {
	out := s.clone()
	var failed error
	known := map[string]string{} // of Env, resolved
	simple := func(_, text string) string { return replace(text, v.replace) }
	late := func(key, text string) string {
		return replace(text, func(kind string, args []string) (string, bool) {
			if kind != "containerEnv" || len(args) == 0 {
				return v.replace(kind, args)
			}
			value, ok := known[args[0]]
			if key == envKey(args[0]) {
				ok = false // PATH=${containerEnv:PATH}:/more is about the image's
			}
			if !ok && v.ContainerEnv == nil {
				return "", false
			}
			if !ok && failed == nil {
				value, failed = v.ContainerEnv(args[0])
			}
			if value == "" && len(args) > 1 {
				value = strings.Join(args[1:], ":")
			}
			return value, true
		})
	}
	// Values without ${containerEnv:…} first: others may be about them.
	for name, text := range out.Env {
		if !slices.Contains(kinds(text), "containerEnv") {
			known[name] = simple("", text)
		}
	}
	out.texts(func(key string, text *string) { *text = late(key, *text) })
	if failed != nil {
		return Settings{}, failed
	}
	if err := out.checkResolved(); err != nil {
		return Settings{}, invalid(s.files(), 0, "", err)
	}
	return out, nil
}

// files names the files that s comes from.
func (s Settings) files() string {
	return strings.Join(slices.Compact(slices.Sorted(maps.Values(s.From))), ", ")
}

// replace does what needs nothing of the guest.
func (v Values) replace(kind string, args []string) (string, bool) {
	switch kind {
	case "localEnv", "env":
		if len(args) == 0 || v.LocalEnv == nil {
			return "", false
		}
		value, ok := v.LocalEnv(args[0])
		if !ok || value == "" {
			value = strings.Join(args[1:], ":")
		}
		return value, true
	case "localWorkspaceFolder":
		return v.Root, true
	case "localWorkspaceFolderBasename":
		return path.Base(v.Root), true
	case "containerWorkspaceFolder":
		return v.Folder, v.Folder != ""
	case "containerWorkspaceFolderBasename":
		return path.Base(v.Folder), v.Folder != ""
	case "devcontainerId":
		sum := sha256.Sum256([]byte(v.Root))
		return hex.EncodeToString(sum[:16]), true
	}
	return "", false
}

// replace gives text with each ${kind:arg:…} that do knows replaced; the others, which a shell may know, stay. What is put in is not
// looked at again.
func replace(text string, do func(kind string, args []string) (string, bool)) string {
	var b strings.Builder
	for {
		start := strings.Index(text, "${")
		if start < 0 {
			break
		}
		end := strings.IndexByte(text[start:], '}')
		if end < 0 {
			break
		}
		end += start
		if inner := strings.LastIndex(text[start:end], "${"); inner > 0 {
			start += inner // the innermost of nested ones
		}
		b.WriteString(text[:start])
		parts := strings.Split(text[start+2:end], ":")
		if value, ok := do(parts[0], parts[1:]); ok {
			b.WriteString(value)
		} else {
			b.WriteString(text[start : end+1])
		}
		text = text[end+1:]
	}
	b.WriteString(text)
	return b.String()
}

// kinds gives the kinds of the variables in text.
func kinds(text string) (list []string) {
	replace(text, func(kind string, _ []string) (string, bool) {
		list = append(list, kind)
		return "", false
	})
	return list
}
