package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger"
	"banger/internal/initrd"
)

// decodeTrie reads an index file: the values of each key, in order.
func decodeTrie(b []byte) (map[string][]trieValue, error) {
	if len(b) < 12 || binary.BigEndian.Uint32(b) != trieMagic || binary.BigEndian.Uint32(b[4:]) != trieVersion {
		return nil, errors.New("no index")
	}
	found := map[string][]trieValue{}
	var walk func(reference uint32, key string)
	walk = func(reference uint32, key string) {
		rest := b[reference&0x0fffffff:]
		text := func() string {
			s, _, _ := bytes.Cut(rest, []byte{0})
			rest = rest[len(s)+1:]
			return string(s)
		}
		number := func() uint32 {
			n := binary.BigEndian.Uint32(rest)
			rest = rest[4:]
			return n
		}
		if reference&trieHasPrefix != 0 {
			key += text()
		}
		if reference&trieHasChildren != 0 {
			first, last := rest[0], rest[1]
			rest = rest[2:]
			for ch := int(first); ch <= int(last); ch++ {
				if child := number(); child != 0 {
					walk(child, key+string([]byte{byte(ch)}))
				}
			}
		}
		if reference&trieHasValues != 0 {
			for range number() {
				priority := number()
				found[key] = append(found[key], trieValue{text(), int(priority)})
			}
		}
	}
	walk(binary.BigEndian.Uint32(b[8:]), "")
	return found, nil
}

// FuzzTrie reads back what was inserted.
func FuzzTrie(f *testing.F) {
	f.Add("symbol:a symbol:ab symbol:b  symbol:a x")
	f.Add("\xff \x01 \xff\xff a")
	f.Fuzz(func(t *testing.T, keys string) {
		if strings.Contains(keys, "\x00") {
			t.Skipf("needs keys without NUL")
		}
		var index trie
		want := map[string][]trieValue{}
		for i, key := range strings.Split(keys, " ") {
			priority := i * 7 % 5
			index.insert(key, fmt.Sprint(i), priority)
			want[key] = append(want[key], trieValue{fmt.Sprint(i), priority})
		}
		for _, values := range want {
			slices.Reverse(values)
			slices.SortStableFunc(values, func(a, b trieValue) int { return a.priority - b.priority })
		}
		got, err := decodeTrie(index.encode())
		if err != nil || !maps.EqualFunc(got, want, slices.Equal) {
			t.Fatalf("read back %v, %v, want %v", got, err, want)
		}
	})
}

func parse(t *testing.T, file string, info []string, symbols ...string) *module {
	t.Helper()
	m, err := parseModule(file, elfModule(t, info, symbols...))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCatalog(t *testing.T) {
	modules := []*module{
		parse(t, "kernel/z.ko", []string{"alias=pci:v*-[a-b]*", "alias=char-major-10-5", "alias=devname:zz"}, "mid", "base", "printk"),
		parse(t, "kernel/mid-dle.ko", []string{"softdep=pre: a-b post: c", "depends=base"}, "+mid", "base"),
		parse(t, "kernel/base.ko", []string{"license=GPL"}, "+base"),
		parse(t, "updates/base.ko", []string{"license=GPL"}, "+base", "+more"),
		parse(t, "kernel/a/first.ko", []string{"alias=broken]"}),
	}
	c, err := newCatalog(modules, []byte("kernel/z.ko\nkernel/mid-dle.ko\n"), []byte("kernel/fs/ext4/ext4.ko\n"), []byte("ext4.alias=fs-ext4\x00ext4.license=GPL\x00"))
	if err != nil {
		t.Fatal(err)
	}
	files := c.files()
	for name, want := range map[string]string{
		"modules.dep":     "kernel/z.ko: kernel/mid-dle.ko updates/base.ko\nkernel/mid-dle.ko: updates/base.ko\nkernel/a/first.ko:\nupdates/base.ko:\n",
		"modules.alias":   "# Aliases extracted from modules themselves.\nalias pci:v*-[a-b]* z\nalias char-major-10-5 z\nalias devname:zz z\nalias broken] first\n",
		"modules.symbols": "# Aliases for symbols, used by symbol_request().\nalias symbol:base base\nalias symbol:mid mid_dle\nalias symbol:more base\n",
		"modules.softdep": "# Soft dependencies extracted from modules themselves.\nsoftdep mid_dle pre: a-b post: c\n",
		"modules.devname": "# Device nodes to trigger on-demand module loading.\nz zz c10:5\n",
	} {
		if diff := cmp.Diff(want, string(files[name])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for name, want := range map[string]map[string][]trieValue{
		"modules.dep.bin": {"z": {{"kernel/z.ko: kernel/mid-dle.ko updates/base.ko", 0}}, "mid_dle": {{"kernel/mid-dle.ko: updates/base.ko", 1}},
			"first": {{"kernel/a/first.ko:", 2}}, "base": {{"updates/base.ko:", 3}}},
		"modules.alias.bin":         {"pci:v*_[a-b]*": {{"z", 0}}, "char_major_10_5": {{"z", 0}}, "devname:zz": {{"z", 0}}},
		"modules.builtin.bin":       {"ext4": {{"", 0}}},
		"modules.builtin.alias.bin": {"fs_ext4": {{"ext4", 0}}},
	} {
		got, err := decodeTrie(files[name])
		if err != nil || !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%s = %v, %v, want %v", name, got, err, want)
		}
	}
	wantBoot := initrd.Module{Name: "mid_dle", Depends: []string{"base"}, Before: []string{"a-b"}}
	if found, builtIn := c.lookup(nil)("mid-dle"); len(found) != 1 || builtIn || !cmp.Equal(found[0], wantBoot) {
		t.Errorf("lookup(mid-dle) = %+v, %v, want %+v", found, builtIn, wantBoot)
	}
	if found, builtIn := c.lookup(nil)("fs-ext4"); len(found) > 0 || !builtIn {
		t.Errorf("lookup(fs-ext4) = %+v, %v, want built in", found, builtIn)
	}
}

func TestCatalogCircle(t *testing.T) {
	_, err := newCatalog([]*module{parse(t, "a.ko", []string{"x=y"}, "+a", "b"), parse(t, "b.ko", []string{"x=y"}, "+b", "a")}, nil, nil, nil)
	if !errors.Is(err, banger.ErrCorrupt) || !strings.Contains(err.Error(), "a, b") {
		t.Errorf("newCatalog = %v, want a corrupt error that names both", err)
	}
}

func TestParseModuleErrors(t *testing.T) {
	good := elfModule(t, []string{"license=GPL"})
	for _, tc := range []struct {
		what, file string
		content    []byte
	}{
		{"no ELF", "a.ko", []byte("module")}, {"cut", "a.ko", good[:80]}, {"no modinfo", "a.ko", elfModule(t, nil)},
		{"name with a space", "a b.ko", good}, {"name with a newline", "a\n.ko", good}, {"no name", ".ko", good},
	} {
		if m, err := parseModule(tc.file, tc.content); !errors.Is(err, banger.ErrCorrupt) {
			t.Errorf("%s: parseModule = %+v, %v, want corrupt", tc.what, m, err)
		}
	}
}

// FuzzParseModule wants of every module that its indexes have no line but its own.
func FuzzParseModule(f *testing.F) {
	f.Add(elfModule(f, []string{"alias=a-b", "depends=c,d", "softdep=pre: x", "alias=x\ny"}, "+exported", "needed"))
	f.Fuzz(func(t *testing.T, content []byte) {
		m, err := parseModule("kernel/m.ko", content)
		if err != nil {
			return
		}
		c, err := newCatalog([]*module{m}, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		files := c.files()
		if got := string(files["modules.dep"]); got != "kernel/m.ko:\n" {
			t.Fatalf("modules.dep = %q", got)
		}
		if got, want := bytes.Count(files["modules.symbols"], []byte("\n")), 1+len(c.owners); got != want {
			t.Fatalf("modules.symbols has %d lines, want %d", got, want)
		}
		if got, want := bytes.Count(files["modules.alias"], []byte("\n")), 1+len(m.values("alias")); got != want {
			t.Fatalf("modules.alias has %d lines, want %d", got, want)
		}
		for _, name := range []string{"modules.dep.bin", "modules.alias.bin", "modules.symbols.bin"} {
			if _, err := decodeTrie(files[name]); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	})
}

// compareDepmod checks that the indexes in a modules directory, laid out as <base>/lib/modules/<version>, are depmod's.
func compareDepmod(t *testing.T, base, version string, got map[string][]byte) {
	t.Helper()
	tool, err := exec.LookPath("depmod")
	if err != nil {
		t.Skipf("needs depmod: %v", err)
	}
	if out, err := exec.Command(tool, "-b", base, version).CombinedOutput(); err != nil {
		t.Fatalf("depmod: %v\n%s", err, out)
	}
	for name, content := range got {
		want, err := os.ReadFile(filepath.Join(base, "lib/modules", version, name))
		if err != nil {
			t.Errorf("depmod makes no such file: %v", err)
			continue
		}
		if name == "modules.symbols" { // depmod writes it in the order of a hash table
			want = sortLines(want)
			content = sortLines(content)
		}
		if !bytes.Equal(content, want) {
			t.Errorf("%s is not depmod's: %d bytes, want %d", name, len(content), len(want))
		}
	}
}

func sortLines(b []byte) []byte {
	lines := strings.SplitAfter(string(b), "\n")
	slices.Sort(lines)
	return []byte(strings.Join(lines, ""))
}
