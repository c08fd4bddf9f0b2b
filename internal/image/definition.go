package image

import (
	"cmp"
	"embed"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"banger"
	"banger/api"
)

//go:embed definitions/*.toml
var files embed.FS

// definition says how an image is made from the packages of a distribution: the format of the files in definitions and of those
// that users give. docs/image-definition.md explains every key.
type definition struct {
	Name        string          `toml:"-"`
	Description string          `toml:"description"`
	From        string          `toml:"from"`       // "debian:bookworm"
	Variant     string          `toml:"variant"`    // mmdebstrap's; empty: minbase
	Components  []string        `toml:"components"` // of the archive; empty: the distribution's
	Packages    []string        `toml:"packages"`
	Boot        banger.BootKind `toml:"boot"`   // empty: system if the image has systemd
	Mirror      string          `toml:"mirror"` // URL; empty: the daemon's for Debian, or the distribution's own
	Time        time.Time       `toml:"time"`   // newer files get this time
	Remove      []string        `toml:"remove"` // paths
	Files       []addition      `toml:"file"`   // after that
}

// addition is a file or a link of the definition's own. One of Content, Link and URL is set.
type addition struct {
	Path     string  `toml:"path"`
	Mode     uint32  `toml:"mode"` // 0: 0644
	Content  *string `toml:"content"`
	Link     string  `toml:"link"` // text of a symbolic link
	URL      string  `toml:"url"`
	Size     int64   `toml:"size"`     // bytes behind URL
	SHA256   string  `toml:"sha256"`   // of them
	Member   string  `toml:"member"`   // the file in the tar behind URL; empty: they are the file
	Optional bool    `toml:"optional"` // left out when URL does not answer
}

// distribution is where packages come from.
type distribution struct {
	keyring    string // of the archive, on the host
	keyPackage string // which has it
	components []string
	mirror     string   // empty: mmdebstrap knows it, and where the updates are
	security   string   // mirror of the security updates, where mirror is set
	suites     []string // examples
}

var distributions = map[string]distribution{
	"debian": {keyring: "/usr/share/keyrings/debian-archive-keyring.gpg", keyPackage: "debian-archive-keyring", components: []string{"main"},
		suites: []string{"bookworm", "trixie"}},
	"ubuntu": {keyring: "/usr/share/keyrings/ubuntu-archive-keyring.gpg", keyPackage: "ubuntu-keyring", components: []string{"main", "universe"},
		mirror: "http://archive.ubuntu.com/ubuntu", security: "http://security.ubuntu.com/ubuntu", suites: []string{"jammy", "noble"}},
}

const defaultFrom = "debian:bookworm"

// defaultTime is a time before that of most files, so that equal packages make equal images.
var defaultTime = time.Date(2023, 6, 10, 0, 0, 0, 0, time.UTC)

// distribution gives where the packages come from, and the suite.
func (d definition) distribution() (distribution, string) {
	name, suite, _ := strings.Cut(d.From, ":")
	return distributions[name], suite
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
		d, err := parseDefinition(strings.TrimSuffix(path.Base(name), ".toml"), string(text))
		if err != nil {
			return nil, err
		}
		all[d.Name] = d
	}
	return all, nil
})

// define gives what a request asks to be built. Errors: ErrInvalid; ErrNotFound for a name that alone says nothing; ErrConflict for
// another definition under a name of banger's own.
func define(req api.BuildRequest) (definition, error) {
	known, err := definitions()
	if err != nil {
		return definition{}, err
	}
	if err := banger.ValidateImageName(req.Name); err != nil {
		return definition{}, err
	}
	own, isOwn := known[req.Name]
	plain := req.From == "" && len(req.Packages) == 0 && req.Definition == "" && req.Boot == ""
	switch {
	case isOwn && plain:
		return own, nil
	case isOwn:
		return definition{}, reservedName()
	case plain:
		return definition{}, &banger.Error{Kind: banger.ErrNotFound, Op: "image definition", Subject: req.Name,
			Hint: "say what it is made from: --from, --packages or --file; banger's own are " + strings.Join(slices.Sorted(maps.Keys(known)), ", ")}
	}
	d := definition{From: defaultFrom, Variant: defaultVariant, Time: defaultTime}
	if req.Definition != "" {
		if d, err = parseDefinition(req.Name, req.Definition); err != nil {
			return d, err
		}
	}
	if base, ok := known[req.From]; ok && req.Definition == "" {
		d = base
		d.Description = ""
	} else if req.From != "" {
		d.From = req.From
	}
	d.Name, d.Boot = req.Name, cmp.Or(req.Boot, d.Boot)
	d.Packages = slices.Concat(d.Packages, req.Packages)
	return d, d.validate()
}

func reservedName() error {
	return &banger.Error{Kind: banger.ErrConflict, Err: errReserved, Hint: "choose another name"}
}

// args is mmdebstrap's command line: a tar on standard output, made by an ordinary user. mirror and keyring are the daemon's, for Debian.
func (d definition) args(mirror, keyring string) []string {
	dist, suite := d.distribution()
	args := []string{"--mode=unshare", "--format=tar", "--variant=" + d.Variant}
	if components := d.components(); !slices.Equal(components, []string{"main"}) {
		args = append(args, "--components="+strings.Join(components, ","))
	}
	if len(d.Packages) > 0 {
		args = append(args, "--include="+strings.Join(d.Packages, ","))
	}
	if dist.mirror == "" && keyring != "" {
		args = append(args, "--keyring="+keyring)
	}
	args = append(args, suite, "-")
	if dist.mirror == "" {
		if mirror = cmp.Or(d.Mirror, mirror); mirror != "" {
			args = append(args, mirror)
		}
		return args
	}
	source := func(url, suite string) string {
		return "deb [signed-by=" + dist.keyring + "] " + url + " " + suite + " " + strings.Join(d.components(), " ")
	}
	main := cmp.Or(d.Mirror, dist.mirror)
	return append(args, source(main, suite), source(main, suite+"-updates"), source(cmp.Or(d.Mirror, dist.security), suite+"-security"))
}

func (d definition) components() []string {
	dist, _ := d.distribution()
	if len(d.Components) > 0 {
		return d.Components
	}
	return dist.components
}
