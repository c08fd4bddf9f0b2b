package guestagent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// modprobePlaces are where programs look for modprobe.
var modprobePlaces = []string{"/sbin", "/usr/sbin", "/bin", "/usr/bin"}

// linkModprobe gives an image without modprobe ours. A package with the real one takes its place.
func linkModprobe() {
	for _, dir := range modprobePlaces {
		if _, err := os.Lstat(filepath.Join(dir, "modprobe")); err == nil {
			return
		}
	}
	for _, dir := range modprobePlaces {
		err := os.Symlink(modprobe, filepath.Join(dir, "modprobe"))
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
}

// modprobeArgs is a command line of modprobe(8), as far as it loads modules.
type modprobeArgs struct {
	names  []string
	params string
	quiet  bool
	dry    bool
}

// staticNodes is systemd's service that runs kmod for the nodes of modules that are not loaded yet; the agent makes those itself.
const staticNodes = "kmod-static-nodes.service"

// maskStaticNodes keeps systemd from starting that service in an image without kmod, where it would fail. units is where the units
// of this boot are; programs are where kmod may be.
func maskStaticNodes(units string, programs ...string) error {
	for _, program := range programs {
		if checkExecutable(program) == nil {
			return nil
		}
	}
	if err := os.MkdirAll(units, 0o755); err != nil {
		return err
	}
	return os.Symlink("/dev/null", filepath.Join(units, staticNodes)) // masked: systemd.unit(5)
}

// parseModprobe reads what follows the program's name. The kernel calls it with "-q -- <module or alias>".
func parseModprobe(args []string) (m modprobeArgs, err error) {
	all, options := false, true
	for _, arg := range args {
		switch {
		case options && arg == "--":
			options = false
		case options && strings.HasPrefix(arg, "--"):
			err = errors.Join(err, m.long(arg, &all))
		case options && strings.HasPrefix(arg, "-"):
			for _, letter := range arg[1:] {
				err = errors.Join(err, m.short(letter, &all))
			}
		case !all && len(m.names) == 1:
			m.params = strings.TrimSpace(m.params + " " + arg)
		default:
			m.names = append(m.names, arg)
		}
	}
	if err == nil && len(m.names) == 0 {
		err = errors.New("no module named")
	}
	return m, err
}

func (m *modprobeArgs) long(option string, all *bool) error {
	for long, short := range map[string]rune{"--all": 'a', "--quiet": 'q', "--verbose": 'v', "--use-blacklist": 'b', "--syslog": 's', "--dry-run": 'n', "--show": 'n',
		"--first-time": 'b'} {
		if option == long {
			return m.short(short, all)
		}
	}
	return fmt.Errorf("option %.40q: this modprobe only loads modules; the whole one is in the package kmod", option)
}

func (m *modprobeArgs) short(option rune, all *bool) error {
	switch option {
	case 'a':
		*all = true
	case 'q':
		m.quiet = true
	case 'n':
		m.dry = true
	case 'v', 'b', 's', 'i':
	default:
		return m.long("-"+string(option), all)
	}
	return nil
}

// modprobeMain is the kernel's helper, and modprobe in images that have none.
func modprobeMain(args []string, errs io.Writer) int {
	var uts unix.Utsname
	m, err := parseModprobe(args)
	if err == nil {
		err = unix.Uname(&uts)
	}
	index := moduleIndex{filepath.Join("/lib/modules", unix.ByteSliceToString(uts.Release[:]))}
	if err == nil {
		for _, name := range m.names {
			err = errors.Join(err, m.load(index, name))
		}
	}
	if err == nil {
		return 0
	}
	if !m.quiet {
		fmt.Fprintf(errs, "modprobe: %v\n", err)
	}
	return 1
}

// load loads a module after those that it needs; only the last of them gets the parameters.
func (m modprobeArgs) load(index moduleIndex, name string) error {
	files, err := index.resolve(name)
	if m.dry {
		return err
	}
	for i := 0; i < len(files) && err == nil; i++ {
		params := ""
		if i == len(files)-1 {
			params = m.params
		}
		err = loadModule(files[i], params)
	}
	return err
}
