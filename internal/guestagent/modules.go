package guestagent

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// moduleCompressed is MODULE_INIT_COMPRESSED_FILE: the kernel unpacks the file itself.
const moduleCompressed = 4

// loadBootModules loads the modules of the initrd in the order of its list.
func loadBootModules(dir string) error {
	order, err := os.ReadFile(filepath.Join(dir, modulesOrder))
	if err != nil {
		return fmt.Errorf("read the list of modules: %w", err)
	}
	for _, name := range strings.Fields(string(order)) {
		if err := loadModule(filepath.Join(dir, name), ""); err != nil {
			logf("%v", err)
		}
	}
	return nil
}

// loadModule loads one file with its parameters; a module that is there already is no error.
func loadModule(file, params string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("load module: %w", err)
	}
	defer f.Close()
	flags := 0
	if filepath.Ext(file) != ".ko" {
		flags = moduleCompressed
	}
	if err := unix.FinitModule(int(f.Fd()), params, flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", filepath.Base(file), err)
	}
	return nil
}

// moduleIndex is a directory with modules.dep, modules.alias and modules.builtin.
type moduleIndex struct{ dir string }

var errNoModule = errors.New("no such module")

// resolve gives the files to load for a module or an alias, in order; none for what is built in.
func (x moduleIndex) resolve(name string) ([]string, error) {
	names := []string{moduleName(name)}
	if files, err := x.files(names); err != nil || len(files) > 0 {
		return files, err
	}
	builtin := false
	err := x.lines("modules.builtin", func(line string) bool {
		builtin = moduleName(line) == names[0]
		return !builtin
	})
	if err != nil || builtin {
		return nil, err
	}
	if names, err = x.aliases(name); err != nil {
		return nil, err
	}
	files, err := x.files(names)
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%w: %s", errNoModule, name)
	}
	return files, err
}

// files gives the files of modules and of what they depend on, dependencies first.
func (x moduleIndex) files(names []string) (files []string, err error) {
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	seen := map[string]bool{}
	err = x.lines("modules.dep", func(line string) bool {
		file, deps, ok := strings.Cut(line, ":")
		if !ok || !wanted[moduleName(file)] {
			return true
		}
		// The line names every dependency, the nearest first.
		list := strings.Fields(deps)
		for i := len(list) - 1; i >= 0; i-- {
			files = appendOnce(files, seen, filepath.Join(x.dir, list[i]))
		}
		files = appendOnce(files, seen, filepath.Join(x.dir, file))
		return true
	})
	return files, err
}

func appendOnce(list []string, seen map[string]bool, s string) []string {
	if seen[s] {
		return list
	}
	seen[s] = true
	return append(list, s)
}

// aliases gives the modules whose alias patterns match.
func (x moduleIndex) aliases(name string) (modules []string, err error) {
	plain := strings.ReplaceAll(name, "-", "_")
	err = x.lines("modules.alias", func(line string) bool {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "alias" {
			return true
		}
		exact, _ := path.Match(f[1], name)
		same, _ := path.Match(strings.ReplaceAll(f[1], "-", "_"), plain)
		if exact || same {
			modules = append(modules, moduleName(f[2]))
		}
		return true
	})
	return modules, err
}

func (x moduleIndex) lines(name string, each func(line string) bool) error {
	f, err := os.Open(filepath.Join(x.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() && each(s.Text()) {
	}
	return s.Err()
}

// moduleName is a module's name of a path: "kernel/net/ipv4/netfilter/ip-tables.ko.xz" is ip_tables.
func moduleName(file string) string {
	base, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}
