package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"banger"
	"banger/internal/initrd"
)

// module is one .ko file as depmod sees it.
type module struct {
	path    string // in the modules' directory: "kernel/fs/btrfs/btrfs.ko"
	name    string // with underscores: what the kernel calls it
	info    []field
	exports []string
	needs   []string // symbols of others, in the order of the symbol table

	index   int       // among all modules of the kernel, in the order of modules.order
	depends []*module // owners of needs, the nearest first
	users   int       // modules that depend on it
	rank    int       // in a topological order, users before what they use
}

// field is one "key=value" of .modinfo.
type field struct{ key, value string }

var moduleFilePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}\.ko$`)

const (
	modinfoSection  = ".modinfo"
	exportsSection  = "__ksymtab_strings"
	crcSymbolPrefix = "__crc_"
)

// moduleName gives the kernel's name for a module's file: "kernel/drivers/block/virtio-blk.ko" is virtio_blk.
func moduleName(file string) string {
	base, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

// parseModule reads an uncompressed module. Errors: ErrCorrupt.
func parseModule(file string, content []byte) (*module, error) {
	m := &module{path: file, name: moduleName(file)}
	if !moduleFilePattern.MatchString(path.Base(file)) {
		return nil, fmt.Errorf("module %q: %w: that is no module's name", file, banger.ErrCorrupt)
	}
	if err := m.parse(content); err != nil {
		return nil, fmt.Errorf("module %s: %w: %w", file, banger.ErrCorrupt, err)
	}
	return m, nil
}

func (m *module) parse(content []byte) error {
	object, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return err
	}
	info, err := sectionStrings(object, modinfoSection)
	if err != nil {
		return err
	}
	if m.info = parseInfo(info); len(m.info) == 0 {
		return errors.New("no " + modinfoSection)
	}
	symbols, err := object.Symbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return err
	}
	for _, s := range symbols {
		if strings.ContainsAny(s.Name, " \t\r\n") {
			return fmt.Errorf("a symbol is called %.80q", s.Name)
		}
		if exported, ok := strings.CutPrefix(s.Name, crcSymbolPrefix); ok {
			m.exports = append(m.exports, exported)
		} else if s.Section == elf.SHN_UNDEF && s.Name != "" {
			m.needs = append(m.needs, s.Name)
		}
	}
	if m.exports == nil { // a kernel without versions of symbols
		m.exports, err = sectionStrings(object, exportsSection)
	}
	return err
}

// sectionStrings gives the strings of a section, each of which ends with a NUL; none when there is no such section.
func sectionStrings(object *elf.File, name string) ([]string, error) {
	s := object.Section(name)
	if s == nil || s.Type == elf.SHT_NOBITS {
		return nil, nil
	}
	data, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("section %s: %w", name, err)
	}
	return splitStrings(data), nil
}

func splitStrings(data []byte) []string {
	var found []string
	for text := range bytes.SplitSeq(data, []byte{0}) {
		if len(text) > 0 {
			found = append(found, string(text))
		}
	}
	return found
}

// parseInfo keeps the fields that fit the line of an index.
func parseInfo(lines []string) []field {
	var fields []field
	for _, line := range lines {
		key, value, ok := strings.Cut(line, "=")
		if ok && !strings.ContainsAny(value, "\r\n") {
			fields = append(fields, field{key, value})
		}
	}
	return fields
}

// values gives all values of a key, in order.
func (m *module) values(key string) []string {
	var found []string
	for _, f := range m.info {
		if f.key == key {
			found = append(found, f.value)
		}
	}
	return found
}

// boot gives what an initrd has to know.
func (m *module) boot() initrd.Module {
	b := initrd.Module{Name: m.name}
	for _, list := range m.values("depends") {
		for name := range strings.SplitSeq(list, ",") {
			if name = moduleName(strings.TrimSpace(name)); name != "." && name != "" {
				b.Depends = append(b.Depends, name)
			}
		}
	}
	for _, text := range m.values("softdep") {
		before := false
		for word := range strings.FieldsSeq(text) {
			switch word {
			case "pre:":
				before = true
			case "post:":
				before = false
			default:
				if before {
					b.Before = append(b.Before, word)
				}
			}
		}
	}
	return b
}
