package image

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/pelletier/go-toml/v2"

	"banger"
)

// Bounds of a definition that somebody else may have written.
const (
	maxDefinition = 256 << 10
	maxPackages   = 2000
	maxFiles      = 500
	maxFetched    = 1 << 30
	maxText       = 200
	maxPath       = 1000
)

const defaultVariant = "minbase"

var (
	variants         = []string{"minbase", "buildd", "apt", "essential", "required", "important", "standard"}
	suitePattern     = regexp.MustCompile(`^[a-z][a-z0-9-]{0,40}$`)
	componentPattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,40}$`)
	packagePattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]*[a-z0-9+.](=[A-Za-z0-9][A-Za-z0-9.+:~-]*)?$`)
	digestPattern    = regexp.MustCompile(`^[0-9a-f]{64}$`)
	errReserved      = errors.New("banger builds the image of that name itself")
)

// parseDefinition reads one definition. Errors: ErrInvalid with the line, and for an unknown key with the nearest known one.
func parseDefinition(name, text string) (definition, error) {
	d := definition{Name: name, Variant: defaultVariant, From: defaultFrom, Time: defaultTime}
	if len(text) > maxDefinition {
		return d, d.bad("it has %d bytes, more than %d", len(text), maxDefinition)
	}
	dec := toml.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(&d)
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		first := strict.Errors[0]
		key := strings.Join(first.Key(), ".")
		line, _ := first.Position()
		err := d.bad("line %d: unknown key %.100q", line, key)
		err.Hint = banger.DidYouMean(key, keys())
		return d, err
	}
	if broken, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := broken.Position()
		return d, d.bad("line %d: %s: %w", line, strings.Join(broken.Key(), "."), broken)
	}
	if err != nil {
		return d, d.bad("%w", err)
	}
	return d, d.validate()
}

func (d definition) bad(format string, args ...any) *banger.Error {
	return &banger.Error{Kind: banger.ErrInvalid, Op: "image definition", Subject: d.Name, Err: fmt.Errorf(format, args...)}
}

// keys gives every key of a definition.
func keys() []string {
	var all []string
	for field := range reflect.TypeFor[definition]().Fields() {
		if name := field.Tag.Get("toml"); name != "-" {
			all = append(all, name)
		}
	}
	for field := range reflect.TypeFor[addition]().Fields() {
		all = append(all, "file."+field.Tag.Get("toml"))
	}
	return all
}

// validate checks every value: they become arguments of mmdebstrap and names in the image.
func (d definition) validate() error {
	name, suite, ok := strings.Cut(d.From, ":")
	dist, known := distributions[name]
	switch {
	case !ok || !known:
		err := d.bad("from %.100q: want a distribution and a suite, such as %s", d.From, defaultFrom)
		err.Hint = banger.DidYouMean(d.From, knownFroms())
		return err
	case !suitePattern.MatchString(suite):
		return d.bad("from %.100q: the name of a suite is one word, such as %s", d.From, strings.Join(dist.suites, " or "))
	case !slices.Contains(variants, d.Variant):
		return d.bad("variant %.100q: want one of %s", d.Variant, strings.Join(variants, ", "))
	case d.Boot != "" && d.Boot != banger.BootAgent && d.Boot != banger.BootSystem:
		return d.bad("boot %.100q: want agent or system", d.Boot)
	case len(d.Packages) > maxPackages || len(d.Files) > maxFiles || len(d.Remove) > maxFiles || len(d.Components) > maxFiles:
		return d.bad("more than %d packages, or %d of something else", maxPackages, maxFiles)
	case len(d.Description) > maxText || strings.ContainsFunc(d.Description, unicode.IsControl):
		return d.bad("description: want one line of at most %d bytes", maxText)
	case d.Time.Unix() < 0 || d.Time.Year() > 2100:
		return d.bad("time %s: want one from 1970 to 2100", d.Time)
	}
	for _, component := range d.Components {
		if !componentPattern.MatchString(component) {
			return d.bad("component %.100q: want a word such as main", component)
		}
	}
	for _, p := range d.Packages {
		if len(p) > maxText || !packagePattern.MatchString(p) {
			return d.bad("package %.100q: a name has the characters a-z, 0-9, '+', '-' and '.', at least two of them; =VERSION may follow", p)
		}
	}
	if err := checkURL(d.Mirror, "http", "https", "file"); d.Mirror != "" && err != nil {
		return d.bad("mirror: %w", err)
	}
	return d.validateFiles()
}

func knownFroms() []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(distributions)) {
		for _, suite := range distributions[name].suites {
			all = append(all, name+":"+suite)
		}
	}
	return all
}

func (d definition) validateFiles() error {
	for _, removed := range d.Remove {
		if err := checkPath(removed); err != nil {
			return d.bad("remove: %w", err)
		}
	}
	for _, f := range d.Files {
		if err := f.validate(); err != nil {
			return d.bad("file %.100q: %w", f.Path, err)
		}
	}
	return nil
}

func (f addition) validate() error {
	if err := checkPath(f.Path); err != nil {
		return err
	}
	set := 0
	for _, is := range []bool{f.Content != nil, f.Link != "", f.URL != ""} {
		if is {
			set++
		}
	}
	fetched := f.URL != ""
	switch {
	case set != 1:
		return errors.New("want one of content, link and url")
	case f.Mode > 0o7777:
		return fmt.Errorf("mode %#o: want at most 07777", f.Mode)
	case len(f.Link) > maxPath || strings.ContainsRune(f.Link, 0):
		return errors.New("link: too long, or with a NUL byte")
	case !fetched && (f.Size != 0 || f.SHA256 != "" || f.Member != "" || f.Optional):
		return errors.New("size, sha256, member and optional go with url")
	case fetched && (f.Size < 1 || f.Size > maxFetched || !digestPattern.MatchString(f.SHA256)):
		return fmt.Errorf("url needs size, from 1 to %d bytes, and sha256, 64 hexadecimal digits", maxFetched)
	case fetched && f.Member != "" && (path.Clean(f.Member) != f.Member || path.IsAbs(f.Member) || strings.HasPrefix(f.Member, "..")):
		return fmt.Errorf("member %.100q: want a path in the tar", f.Member)
	case fetched:
		return checkFetched(f.URL)
	}
	return nil
}

// checkPath takes a place in the image.
func checkPath(p string) error {
	if !path.IsAbs(p) || path.Clean(p) != p || p == "/" || len(p) > maxPath || strings.ContainsFunc(p, unicode.IsControl) {
		return fmt.Errorf("path %.100q: want an absolute one, with no . or .. in it", p)
	}
	return nil
}

// checkURL takes a URL without a password, which would stand on a command line.
func checkURL(text string, schemes ...string) error {
	u, err := url.Parse(text)
	if err != nil || !slices.Contains(schemes, u.Scheme) || u.Host == "" && u.Scheme != "file" || u.User != nil ||
		strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("want a URL with %s://, without a password", strings.Join(schemes, ":// or "))
	}
	return nil
}

// checkFetched lets only this computer answer in the clear.
func checkFetched(text string) error {
	if u, err := url.Parse(text); err == nil && u.Scheme == "http" {
		if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsLoopback() {
			return errors.New("url: want https://")
		}
	}
	return checkURL(text, "http", "https")
}
