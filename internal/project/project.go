// Package project reads what a repository says about the VM that it wants: .banger.toml and devcontainer.json.
//
// Whoever wrote the repository wrote these files, so nothing in them is believed. They are read once, and what was read is what is
// asked about, hashed and used ([Load]). What would widen a VM's access to this computer is a [Need], and counts only after the
// user's consent ([Consents]); nothing in them ever runs on the host. docs/project-files.md explains both files.
package project

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
)

// TOMLFile is banger's own file at the root of a repository.
const TOMLFile = ".banger.toml"

const (
	devcontainerDir  = ".devcontainer"
	devcontainerFile = "devcontainer.json"
	maxFile          = 256 << 10
	maxVariants      = 64
)

var plainDevcontainers = []string{path.Join(devcontainerDir, devcontainerFile), "." + devcontainerFile}

// Options say which files count.
type Options struct {
	Variant        string // .devcontainer/VARIANT/devcontainer.json instead of the plain one
	NoDevcontainer bool
	Home           string // of the user, absolute: "~" in paths of this computer
}

// File is one file as it was read.
type File struct {
	Name string `json:"name"`   // below the root
	Sum  string `json:"sha256"` // sha256 of its bytes, in hexadecimal digits
}

// Project is what the files of one repository say together.
type Project struct {
	Root     string // real path
	Files    []File
	Settings Settings
	Notices  []string // what is not supported and the like
}

// Load reads the files of the repository at root. Without any, Settings are empty.
// Errors: ErrInvalid with file and line; ErrRefused for a symbolic link or what is no regular file; ErrNotFound for a variant.
func Load(root string, o Options) (*Project, error) {
	real, err := filepath.EvalSymlinks(root)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(real)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	p := &Project{Root: real}
	own, err := p.read(dir, TOMLFile, parseTOML)
	if err != nil {
		return nil, err
	}
	other := Settings{}
	if !o.NoDevcontainer {
		if other, err = p.devcontainer(dir, o.Variant); err != nil {
			return nil, err
		}
	}
	p.Settings = own.over(other)
	return p, p.findCopies(o.Home)
}

// devcontainer reads the first devcontainer.json, or that of a variant.
func (p *Project) devcontainer(dir *os.File, variant string) (Settings, error) {
	if variant != "" {
		name := path.Join(devcontainerDir, variant, devcontainerFile)
		if variant == "." || variant == ".." || strings.ContainsRune(variant, '/') {
			return Settings{}, &banger.Error{Kind: banger.ErrInvalid, Op: "--devcontainer", Subject: fmt.Sprintf("%.100q", variant), Err: errors.New("want the name of a directory in " + devcontainerDir)}
		}
		settings, err := p.read(dir, name, parseDevcontainer)
		if err == nil && !p.has(name) {
			err = &banger.Error{Kind: banger.ErrNotFound, Op: "--devcontainer", Subject: variant, Err: fmt.Errorf("there is no %s in %s", name, p.Root),
				Hint: banger.DidYouMean(variant, Variants(p.Root))}
		}
		return settings, err
	}
	for _, name := range plainDevcontainers {
		settings, err := p.read(dir, name, parseDevcontainer)
		if err != nil || p.has(name) {
			return settings, err
		}
	}
	if variants := Variants(p.Root); len(variants) > 0 {
		p.Notices = append(p.Notices, "no devcontainer.json is used; there is one by name: --devcontainer "+strings.Join(variants, ", --devcontainer "))
	}
	return Settings{}, nil
}

func (p *Project) has(name string) bool {
	return slices.ContainsFunc(p.Files, func(f File) bool { return f.Name == name })
}

// Variants gives the names of directories in .devcontainer that hold a devcontainer.json, sorted.
func Variants(root string) []string {
	entries, err := os.ReadDir(filepath.Join(root, devcontainerDir))
	if err != nil {
		return nil
	}
	var names []string
	for _, entry := range entries {
		if !entry.IsDir() || len(names) == maxVariants {
			continue
		}
		if _, err := os.Lstat(filepath.Join(root, devcontainerDir, entry.Name(), devcontainerFile)); err == nil {
			names = append(names, entry.Name())
		}
	}
	return names
}

// Present names, unread, the files that Load would take of the repository at root when none of its variants is named.
func Present(root string, noDevcontainer bool) (names []string) {
	is := func(name string) bool {
		_, err := os.Lstat(filepath.Join(root, name))
		return err == nil
	}
	if is(TOMLFile) {
		names = append(names, TOMLFile)
	}
	if i := slices.IndexFunc(plainDevcontainers, is); i >= 0 && !noDevcontainer {
		names = append(names, plainDevcontainers[i])
	}
	return names
}

// parser takes a file apart. Notices are for the user; an error has no file's name yet.
type parser func(name string, text []byte) (settings Settings, notices []string, err error)

// read reads one file once: what is parsed is what was hashed. A missing one is none.
func (p *Project) read(dir *os.File, name string, parse parser) (Settings, error) {
	text, err := readBeneath(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return Settings{}, nil
	}
	if err != nil {
		return Settings{}, err
	}
	sum := sha256.Sum256(text)
	p.Files = append(p.Files, File{Name: name, Sum: hex.EncodeToString(sum[:])})
	settings, notices, err := parse(name, text)
	p.Notices = append(p.Notices, notices...)
	return settings, err
}

// readBeneath reads a file below dir that is reached without any symbolic link: a link could make banger read, and tell, what is
// none of the repository's.
func readBeneath(dir *os.File, name string) ([]byte, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(int(dir.Fd()), name, &how)
	fail := func(kind error, format string, args ...any) ([]byte, error) {
		return nil, &banger.Error{Kind: kind, Op: "project file", Subject: path.Join(dir.Name(), name), Err: fmt.Errorf(format, args...), Hint: "to go without it: --no-project"}
	}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return nil, fs.ErrNotExist
	case errors.Is(err, unix.ELOOP):
		return fail(banger.ErrRefused, "it is, or lies behind, a symbolic link")
	case err != nil:
		return fail(banger.ErrUnavailable, "%w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return fail(banger.ErrUnavailable, "%w", err)
	case !info.Mode().IsRegular():
		return fail(banger.ErrRefused, "it is no regular file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return fail(banger.ErrUnavailable, "%w", err)
	case len(text) > maxFile:
		return fail(banger.ErrInvalid, "it has more than %s", banger.FormatSize(maxFile))
	}
	return text, nil
}

// invalid is a mistake in a file.
func invalid(name string, line int, hint string, err error) error {
	if line > 0 {
		name = fmt.Sprintf("%s:%d", name, line)
	}
	return &banger.Error{Kind: banger.ErrInvalid, Op: "project file", Subject: name, Err: err, Hint: cmp.Or(hint, banger.HintOf(err), "to go without it: --no-project")}
}

var userPattern = banger.Pattern(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}(:[0-9]{1,10})?$`)

// checkUser takes a name, or uid[:gid].
func checkUser(user string) error {
	if user != "" && !userPattern().MatchString(user) {
		return fmt.Errorf("user %.100q: want a name, or uid[:gid]", user)
	}
	return nil
}
