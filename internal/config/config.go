// Package config reads the user's configuration file. docs/config.md explains every key.
//
// What is not in the file has the value that [Default] gives.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"

	"github.com/pelletier/go-toml/v2"

	"banger"
)

// maxFile bounds the file.
const maxFile = 1 << 20

// Config is all that a user can set.
type Config struct {
	Images     Images     `toml:"images"`
	Catalog    Catalog    `toml:"catalog"`
	Debian     Debian     `toml:"debian"`
	SSH        SSH        `toml:"ssh"`
	Ports      Ports      `toml:"ports"`
	VM         VM         `toml:"vm"`
	VMDefaults VMDefaults `toml:"vm_defaults"`

	FileSync []banger.FileSync `toml:"file_sync"` // for every VM; the first is file_sync[1]
}

// Images says what machines are made from and how much an image may hold.
type Images struct {
	Default    string   `toml:"default"`     // of "vm run" without --image
	Order      []Source `toml:"order"`       // where the default image is looked for when it is not there
	Registry   string   `toml:"registry"`    // repository prefix, "registry.example/banger"; empty: no registry
	MaxBytes   Size     `toml:"max_bytes"`   // of all files of one image together
	MaxEntries int      `toml:"max_entries"` // files, directories and links of one image
}

// Catalog says where ready images and kernels are, and whose word counts.
type Catalog struct {
	URL  string      `toml:"url"`  // https, or an absolute path of a file or directory; empty: no catalog
	Keys []PublicKey `toml:"keys"` // any of them may have signed the index
}

// Debian says where Debian packages come from.
type Debian struct {
	Mirror  string `toml:"mirror"`  // URL; empty: that of the tool or of Debian
	Proxy   string `toml:"proxy"`   // URL; empty: that of the environment
	Keyring string `toml:"keyring"` // absolute path of the archive's keys; empty: those of the system or of banger
}

// SSH says how VMs are reached.
type SSH struct {
	Start bool `toml:"start"` // start a stopped VM instead of refusing
}

// Ports says when ports of VMs are opened on their addresses on this computer.
type Ports struct {
	Publish Publish `toml:"publish"`
}

// VM says what all VMs together may take.
type VM struct {
	MaxMemory Share `toml:"max_memory"` // of those that run; 0: no limit
}

// VMDefaults is what holds for a new VM that is not asked for anything else.
type VMDefaults struct {
	VCPU         int              `toml:"vcpu"`   // 0: by the host
	Memory       Size             `toml:"memory"` // 0: by the host
	DiskSize     Size             `toml:"disk_size"`
	AutoStopIdle Span             `toml:"auto_stop_idle"` // stop it when nobody has used it for so long; 0: never
	Net          banger.NetPolicy `toml:"net"`
}

// Default gives what holds without a file.
func Default() Config {
	return Config{Images: Images{Default: "debian-bookworm", Order: []Source{FromCatalog, FromRegistry, FromPackages}, MaxBytes: 64 << 30, MaxEntries: 4_000_000},
		Ports: Ports{Publish: PublishOnNeed}, VM: VM{MaxMemory: Share{Percent: 80}}, VMDefaults: VMDefaults{DiskSize: 8 << 30, Net: banger.NetFull}}
}

// Locate gives the path of the file: $BANGER_CONFIG, else banger/config.toml in $XDG_CONFIG_HOME or ~/.config. A file that the
// first of these names has to be there.
func Locate() (path string, must bool, err error) {
	if path := os.Getenv("BANGER_CONFIG"); path != "" {
		if !filepath.IsAbs(path) { // the daemon has another working directory than who starts it
			return "", true, banger.Invalidf("BANGER_CONFIG %q: want an absolute path", path)
		}
		return path, true, nil
	}
	dir := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", false, fmt.Errorf("locate the configuration: %w", err)
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "banger", "config.toml"), false, nil
}

// Loaded is a configuration, and where its values come from.
type Loaded struct {
	Config
	from map[string]string // by key; what is missing is built in
	file string            // path
}

// Load reads the file that Locate names, then the environment: BANGER_DEBIAN_MIRROR stands above debian.mirror, and so on for each key.
// Errors: ErrInvalid with file and line, or the variable; ErrNotFound; ErrRefused for a file that others can write.
func Load() (Loaded, error) {
	path, must, err := Locate()
	if err != nil {
		return Loaded{}, err
	}
	text, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !must:
		err = nil
	case errors.Is(err, fs.ErrNotExist):
		err = &banger.Error{Kind: banger.ErrNotFound, Op: "configuration", Subject: path, Err: fs.ErrNotExist, Hint: "BANGER_CONFIG names it: make the file, or unset BANGER_CONFIG"}
	}
	if err != nil {
		return Loaded{}, err
	}
	l := Loaded{from: map[string]string{}}
	if l.Config, err = Parse(path, text); err != nil {
		return Loaded{}, err
	}
	l.note(path, text)
	if err := l.override(os.LookupEnv); err != nil {
		return Loaded{}, err
	}
	return l, nil
}

// readFile reads a file that only its owner can change, who is the caller or root.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would wait for its writer
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	fail := func(kind error, hint, format string, args ...any) ([]byte, error) {
		return nil, &banger.Error{Kind: kind, Op: "configuration", Subject: path, Err: fmt.Errorf(format, args...), Hint: hint}
	}
	st := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return fail(banger.ErrInvalid, "", "it is no regular file")
	case st.Uid != 0 && int(st.Uid) != os.Getuid():
		return fail(banger.ErrRefused, "make it your own: sudo chown $(id -u) "+path, "it belongs to user %d, not to %d", st.Uid, os.Getuid())
	case info.Mode().Perm()&0o022 != 0:
		return fail(banger.ErrRefused, "chmod go-w "+path, "others can write it: its mode is %04o", info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		return fail(banger.ErrInvalid, "", "it has more than %s", banger.FormatSize(maxFile))
	}
	return text, err
}

// Parse reads the text of a file; path is for errors. Errors: ErrInvalid.
func Parse(path string, text []byte) (Config, error) {
	cfg := Default()
	dec := toml.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(&cfg)
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		first := strict.Errors[0]
		key := strings.Join(first.Key(), ".")
		line, _ := first.Position()
		known := append(Keys(), "file_sync.host", "file_sync.guest", "file_sync.mode")
		return Config{}, invalid(path, line, banger.DidYouMean(key, known), fmt.Errorf("unknown key %.100q", key))
	}
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := bad.Position()
		err := error(bad)
		if len(bad.Key()) > 0 {
			err = fmt.Errorf("%s: %w", strings.Join(bad.Key(), "."), bad)
		}
		return Config{}, invalid(path, line, "", err)
	}
	if err == nil {
		err = cfg.validate()
	}
	if err != nil {
		return Config{}, invalid(path, 0, banger.HintOf(err), err)
	}
	return cfg, nil
}

func invalid(path string, line int, hint string, err error) error {
	if line > 0 {
		path = fmt.Sprintf("%s:%d", path, line)
	}
	return &banger.Error{Kind: banger.ErrInvalid, Op: "configuration", Subject: path, Err: err, Hint: hint}
}

// Keys gives the key of every single value, "images.default" and so on, in the order of the structs.
func Keys() []string {
	var keys []string
	for section := range reflect.TypeFor[Config]().Fields() {
		if section.Type.Kind() != reflect.Struct {
			continue
		}
		for field := range section.Type.Fields() {
			keys = append(keys, section.Tag.Get("toml")+"."+field.Tag.Get("toml"))
		}
	}
	return keys
}
