package image

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/pelletier/go-toml/v2"

	"banger"
)

//go:embed definitions/*.toml
var files embed.FS

// definition says how an image is made from Debian packages.
type definition struct {
	Name        string          `toml:"-"`
	Description string          `toml:"description"`
	Suite       string          `toml:"suite"`
	Variant     string          `toml:"variant"` // mmdebstrap's
	Packages    []string        `toml:"packages"`
	Boot        banger.BootKind `toml:"boot"`
	Mirror      string          `toml:"mirror"` // URL; empty: mmdebstrap's own
	Time        time.Time       `toml:"time"`
}

// definitions gives all that banger knows, by name.
var definitions = sync.OnceValues(func() (map[string]definition, error) {
	names, err := fs.Glob(files, "definitions/*.toml")
	if err != nil {
		return nil, err
	}
	all := map[string]definition{}
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		d, err := parseDefinition(strings.TrimSuffix(path.Base(name), ".toml"), text)
		if err != nil {
			return nil, err
		}
		all[d.Name] = d
	}
	return all, nil
})

// parseDefinition reads one definition; unknown keys are errors.
func parseDefinition(name string, text []byte) (definition, error) {
	d := definition{Name: name}
	dec := toml.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return d, fmt.Errorf("image definition %s: %w", name, err)
	}
	switch {
	case d.Suite == "" || d.Variant == "" || d.Time.IsZero():
		return d, banger.Invalidf("image definition %s: suite, variant and time are needed", name)
	case d.Boot != banger.BootAgent && d.Boot != banger.BootSystem:
		return d, banger.Invalidf("image definition %s: boot %q: want agent or system", name, d.Boot)
	}
	return d, nil
}

// args is mmdebstrap's command line: a tar on standard output, made by an ordinary user.
func (d definition) args() []string {
	args := []string{"--mode=unshare", "--format=tar", "--variant=" + d.Variant}
	if len(d.Packages) > 0 {
		args = append(args, "--include="+strings.Join(d.Packages, ","))
	}
	args = append(args, d.Suite, "-")
	if d.Mirror != "" {
		args = append(args, d.Mirror)
	}
	return args
}
