package kernel

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"banger"
)

// catalog is all modules of a kernel with what its build says of them.
type catalog struct {
	modules []*module
	owners  map[string]*module // of exported symbols
	builtIn []string           // names, in the order of modules.builtin
	listed  bool               // modules.builtin is there: what is in neither list is not in the kernel
	// builtInAliases are "name, alias" of what is built in, in order.
	builtInAliases [][2]string
}

// newCatalog orders the modules by modules.order, then by path, and works out who depends on whom. builtIn and builtInInfo are
// modules.builtin and modules.builtin.modinfo; each of the three may be nil for one that is not there.
// Errors: ErrCorrupt when modules depend on each other in a circle.
func newCatalog(modules []*module, order, builtIn, builtInInfo []byte) (*catalog, error) {
	c := &catalog{modules: sortModules(modules, order), owners: map[string]*module{}, listed: builtIn != nil}
	for i, m := range c.modules {
		m.index = i
		for _, symbol := range m.exports {
			c.owners[symbol] = m // the last one, as depmod
		}
	}
	for line := range strings.SplitSeq(string(builtIn), "\n") {
		if line != "" {
			c.builtIn = append(c.builtIn, moduleName(line))
		}
	}
	for _, line := range splitStrings(builtInInfo) {
		name, rest, _ := strings.Cut(line, ".")
		if alias, ok := strings.CutPrefix(rest, "alias="); ok {
			c.builtInAliases = append(c.builtInAliases, [2]string{name, alias})
		}
	}
	for _, m := range c.modules {
		c.link(m)
	}
	return c, c.rank()
}

// sortModules also drops all but one module of a name: those below updates/ replace others.
func sortModules(modules []*module, order []byte) []*module {
	place := map[string]int{}
	for i, line := range strings.Split(string(order), "\n") {
		place[line] = i - len(order) // before all that are not in the list
	}
	isUpdate := func(m *module) bool { return strings.HasPrefix(m.path, "updates/") }
	byName := map[string]*module{}
	for _, m := range slices.SortedFunc(slices.Values(modules), func(a, b *module) int { return cmp.Compare(a.path, b.path) }) {
		if other := byName[m.name]; other == nil || isUpdate(m) && !isUpdate(other) {
			byName[m.name] = m
		}
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b *module) int {
		return cmp.Or(cmp.Compare(place[a.path], place[b.path]), cmp.Compare(a.path, b.path))
	})
}

// link finds the owners of the symbols that a module needs.
func (c *catalog) link(m *module) {
	seen := map[*module]bool{m: true}
	for _, symbol := range m.needs {
		if owner := c.owners[symbol]; owner != nil && !seen[owner] {
			seen[owner] = true
			m.depends = append(m.depends, owner)
			owner.users++
		}
	}
}

// rank numbers the modules so that users come before what they use, in depmod's order of the many that do so.
func (c *catalog) rank() error {
	left := make([]int, len(c.modules))
	var free []*module
	for i, m := range c.modules {
		if left[i] = m.users; left[i] == 0 {
			free = append(free, m)
		}
	}
	ranked := 0
	for len(free) > 0 {
		m := free[len(free)-1]
		free = free[:len(free)-1]
		m.rank = ranked
		ranked++
		for _, other := range m.depends {
			if left[other.index]--; left[other.index] == 0 {
				free = append(free, other)
			}
		}
	}
	if ranked == len(c.modules) {
		return nil
	}
	var circle []string
	for i, n := range left {
		if n > 0 {
			circle = append(circle, c.modules[i].name)
		}
	}
	return fmt.Errorf("%w: modules need each other: %s", banger.ErrCorrupt, strings.Join(circle[:min(len(circle), 8)], ", "))
}

// closure gives all that m depends on, the nearest first: loaded from the end, each finds what it needs.
func (m *module) closure() []*module {
	seen := map[*module]bool{}
	list := slices.Clone(m.depends)
	for i := 0; i < len(list); i++ {
		if seen[list[i]] {
			continue
		}
		seen[list[i]] = true
		list = append(list, list[i].depends...)
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b *module) int { return cmp.Compare(a.rank, b.rank) })
}

// files gives the indexes that depmod makes, by name. kmod looks things up in those ending with .bin and reads softdep and
// devname as text; other programs read the text.
func (c *catalog) files() map[string][]byte {
	files := map[string][]byte{}
	dep, depIndex := c.dependencies()
	files["modules.dep"], files["modules.dep.bin"] = dep, depIndex.encode()
	alias, aliasIndex := c.aliases()
	files["modules.alias"], files["modules.alias.bin"] = alias, aliasIndex.encode()
	symbols, symbolIndex := c.symbols()
	files["modules.symbols"], files["modules.symbols.bin"] = symbols, symbolIndex.encode()
	files["modules.softdep"] = c.softDependencies()
	files["modules.devname"] = c.deviceNames()
	var builtIn, builtInAliases trie
	for _, name := range c.builtIn {
		builtIn.insert(name, "", 0)
	}
	for _, a := range c.builtInAliases {
		if alias, ok := normalAlias(a[1]); ok {
			builtInAliases.insert(alias, a[0], 0)
		}
	}
	files["modules.builtin.bin"], files["modules.builtin.alias.bin"] = builtIn.encode(), builtInAliases.encode()
	return files
}

func (c *catalog) dependencies() (text []byte, index *trie) {
	var b bytes.Buffer
	index = &trie{}
	for _, m := range c.modules {
		line := m.path + ":"
		for _, other := range m.closure() {
			line += " " + other.path
		}
		b.WriteString(line + "\n")
		index.insert(m.name, line, m.index)
	}
	return b.Bytes(), index
}

func (c *catalog) aliases() (text []byte, index *trie) {
	b := bytes.NewBufferString("# Aliases extracted from modules themselves.\n")
	index = &trie{}
	for _, m := range c.modules {
		for _, alias := range m.values("alias") {
			fmt.Fprintf(b, "alias %s %s\n", alias, m.name)
			if normal, ok := normalAlias(alias); ok {
				index.insert(normal, m.name, m.index)
			}
		}
	}
	return b.Bytes(), index
}

// normalAlias replaces dashes by underscores but for those in [brackets]; false when brackets do not match.
func normalAlias(alias string) (string, bool) {
	b, inside := []byte(alias), false
	for i, ch := range b {
		switch {
		case ch == '[' && !inside:
			inside = true
		case ch == ']' && !inside:
			return "", false
		case ch == ']':
			inside = false
		case ch == '-' && !inside:
			b[i] = '_'
		}
	}
	return string(b), !inside
}

func (c *catalog) symbols() (text []byte, index *trie) {
	b := bytes.NewBufferString("# Aliases for symbols, used by symbol_request().\n")
	index = &trie{}
	for _, symbol := range slices.Sorted(maps.Keys(c.owners)) {
		owner := c.owners[symbol]
		fmt.Fprintf(b, "alias symbol:%s %s\n", symbol, owner.name)
		index.insert("symbol:"+symbol, owner.name, owner.index)
	}
	return b.Bytes(), index
}

func (c *catalog) softDependencies() []byte {
	b := bytes.NewBufferString("# Soft dependencies extracted from modules themselves.\n")
	for _, m := range c.modules {
		for _, text := range m.values("softdep") {
			fmt.Fprintf(b, "softdep %s %s\n", m.name, text)
		}
	}
	return b.Bytes()
}

// deviceNames lists the device nodes that may be made before their module is loaded: opening one loads it.
func (c *catalog) deviceNames() []byte {
	var b bytes.Buffer
	for _, m := range c.modules {
		node, device := "", ""
		for _, alias := range m.values("alias") {
			var major, minor uint32
			if name, ok := strings.CutPrefix(alias, "devname:"); ok && node == "" {
				node = name
			} else if n, _ := fmt.Sscanf(alias, "char-major-%d-%d", &major, &minor); n == 2 {
				device = fmt.Sprintf("c%d:%d", major, minor)
			} else if n, _ := fmt.Sscanf(alias, "block-major-%d-%d", &major, &minor); n == 2 {
				device = fmt.Sprintf("b%d:%d", major, minor)
			}
			if node != "" && device != "" {
				break
			}
		}
		if node == "" || device == "" {
			continue
		}
		if b.Len() == 0 {
			b.WriteString("# Device nodes to trigger on-demand module loading.\n")
		}
		fmt.Fprintf(&b, "%s %s %s\n", m.name, node, device)
	}
	return b.Bytes()
}
