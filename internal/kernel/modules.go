package kernel

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"

	"banger/internal/ext4/write"
	"banger/internal/initrd"
	"banger/internal/tree"
)

const (
	modulesLabel    = "modules"
	maxModulesImage = 2 << 30 // apparent; the image is cut to fit
)

// readModules reads all modules below dir, uncompressed, and what lies beside them.
func readModules(ctx context.Context, dir *os.Root) (*catalog, error) {
	var modules []*module
	err := fs.WalkDir(dir.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil || path.Ext(name) != ".ko" || !d.Type().IsRegular() {
			return err
		}
		content, err := dir.ReadFile(name)
		if err != nil {
			return err
		}
		m, err := parseModule(name, content)
		modules = append(modules, m)
		return err
	})
	if err != nil {
		return nil, err
	}
	var lists [3][]byte
	for i, name := range []string{modulesOrder, modulesBuiltin, builtinModinfo} {
		if lists[i], err = dir.ReadFile(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return newCatalog(modules, lists[0], lists[1], lists[2])
}

// writeIndexes puts the indexes beside the modules.
func (c *catalog) writeIndexes(dir *os.Root) error {
	for name, content := range c.files() {
		if err := dir.WriteFile(name, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// lookup finds modules for an initrd: by name, else by an alias that is no pattern. inside are more names that are built in.
func (c *catalog) lookup(inside map[string]bool) initrd.Lookup {
	modules, builtIn := map[string][]initrd.Module{}, map[string]bool{}
	maps.Copy(builtIn, inside)
	for _, name := range c.builtIn {
		builtIn[name] = true
	}
	for _, a := range c.builtInAliases {
		builtIn[strings.ReplaceAll(a[1], "-", "_")] = true
	}
	named := map[string]*module{}
	for _, m := range c.modules {
		named[m.name] = m
	}
	for _, m := range c.modules {
		modules[m.name] = []initrd.Module{m.boot()}
		for _, alias := range m.values("alias") {
			if alias = strings.ReplaceAll(alias, "-", "_"); named[alias] == nil {
				modules[alias] = append(modules[alias], m.boot())
			}
		}
	}
	return func(name string) ([]initrd.Module, bool) {
		name = strings.ReplaceAll(name, "-", "_")
		return modules[name], builtIn[name]
	}
}

// path gives where the module of this name lies; "" when there is none.
func (c *catalog) path(name string) string {
	for _, m := range c.modules {
		if m.name == name {
			return m.path
		}
	}
	return ""
}

// writeModulesImage makes modules.ext4 from the directory: its root is what the guest mounts as /usr/lib/modules/<version>.
func writeModulesImage(ctx context.Context, path string, dir *os.Root, of release) error {
	id := sha256.Sum256([]byte("banger modules " + of.version)) // the same for equal images
	_, err := write.CreateFile(ctx, path, write.Options{SizeBytes: maxModulesImage, UUID: [16]byte(id[:16]), HashSeed: [16]byte(id[16:]),
		Label: modulesLabel, Time: of.built, Fit: true, JournalBlocks: -1, Sync: true}, source(dir))
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return os.Chmod(path, 0o444)
}

// source gives a directory's files and directories as root's, in the order of their names.
func source(dir *os.Root) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		err := fs.WalkDir(dir.FS(), ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() {
				return next(yield(tree.Entry{Path: name, Kind: tree.Dir, Mode: 0o755}, nil))
			}
			f, err := dir.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			return next(yield(tree.Entry{Path: name, Kind: tree.File, Mode: 0o644, Size: info.Size(), Content: f}, nil))
		})
		if err != nil {
			yield(tree.Entry{}, err)
		}
	}
}

// next ends a walk when its reader has enough.
func next(more bool) error {
	if more {
		return nil
	}
	return fs.SkipAll
}
