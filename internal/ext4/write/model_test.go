package write_test

import (
	"maps"
	"slices"
	"strings"
	"time"

	"banger/internal/tree"
)

// model is a tree in memory that does what the writer should with each entry.
type model struct {
	root  *modelNode
	layer int
}

type modelNode struct {
	e     tree.Entry // without its path and its content
	text  string     // content of a file
	kids  map[string]*modelNode
	layer int
}

func newModel() *model { return &model{root: &modelNode{e: root(), kids: map[string]*modelNode{}}} }

// walk finds a directory, or makes it; symlinks stay below the root. It fails where something else is in the way.
func (m *model) walk(path string, create bool) (*modelNode, bool) {
	at, todo := []*modelNode{m.root}, strings.Split(path, "/")
	for hops := 0; len(todo) > 0; {
		name, parent := todo[0], at[len(at)-1]
		todo = todo[1:]
		next := parent.kids[name]
		switch {
		case name == "" || name == ".":
			continue
		case name == "..":
			at = at[:max(len(at)-1, 1)]
			continue
		case next == nil && !create:
			return nil, true
		case next == nil:
			next = &modelNode{e: dir(""), kids: map[string]*modelNode{}, layer: m.layer}
			parent.kids[name] = next
		case next.e.Kind == tree.Symlink:
			if hops++; hops > 40 {
				return nil, false
			}
			if strings.HasPrefix(next.e.Link, "/") {
				at = at[:1]
			}
			todo = append(strings.Split(next.e.Link, "/"), todo...)
			continue
		case next.kids == nil:
			return nil, false
		}
		at = append(at, next)
	}
	return at[len(at)-1], true
}

// blocked says that something on the way to path is no directory.
func (m *model) blocked(path string) bool {
	_, ok := m.walk(parentOf(path), false)
	return !ok
}

func parentOf(path string) string {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i]
	}
	return "."
}

func (m *model) find(path string) *modelNode {
	parent, _ := m.walk(parentOf(path), false)
	if parent == nil {
		return nil
	}
	return parent.kids[baseOf(path)]
}

func baseOf(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// apply does what an entry says; text is its content. It refuses what the writer has to refuse, and does nothing then.
func (m *model) apply(e tree.Entry, text string) bool {
	switch e.Kind {
	case tree.Layer:
		m.layer++
		return true
	case tree.Opaque:
		d, ok := m.walk(e.Path, false)
		if d != nil {
			m.prune(d)
		}
		return ok
	case tree.Delete:
		parent, ok := m.walk(parentOf(e.Path), false)
		if parent != nil {
			delete(parent.kids, baseOf(e.Path))
		}
		return ok
	}
	if m.blocked(e.Path) {
		return false
	}
	var target *modelNode
	if e.Kind == tree.HardLink {
		if target = m.find(e.Link); target == nil || target.kids != nil || m.blocked(e.Link) {
			return false
		}
	}
	path := e.Path
	parent, _ := m.walk(parentOf(path), true)
	old := parent.kids[baseOf(path)]
	e.Path, e.Content = "", nil
	switch {
	case e.Kind == tree.HardLink:
		if target != old {
			target.layer = m.layer
			parent.kids[baseOf(path)] = target
		}
	case e.Kind == tree.Dir && old != nil && old.kids != nil:
		old.e, old.layer = e, m.layer
	case e.Kind == tree.Dir:
		parent.kids[baseOf(path)] = &modelNode{e: e, kids: map[string]*modelNode{}, layer: m.layer}
	default:
		parent.kids[baseOf(path)] = &modelNode{e: e, text: text, layer: m.layer}
	}
	return true
}

func (m *model) prune(d *modelNode) {
	for name, n := range d.kids {
		if n.kids != nil {
			m.prune(n)
		}
		if n.layer < m.layer && len(n.kids) == 0 {
			delete(d.kids, name)
		}
	}
}

// source gives what should be in the image.
func (m *model) source() tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		seen := map[*modelNode]string{}
		var give func(path string, n *modelNode) bool
		give = func(path string, n *modelNode) bool {
			e := n.e
			e.Path = path
			if first, ok := seen[n]; ok {
				return yield(link(path, first), nil)
			}
			seen[n] = path
			if e.Size > 0 {
				e.Content = strings.NewReader(n.text)
			}
			if !yield(e, nil) {
				return false
			}
			for _, name := range slices.Sorted(maps.Keys(n.kids)) {
				if !give(strings.TrimPrefix(path+"/"+name, "./"), n.kids[name]) {
					return false
				}
			}
			return true
		}
		give(".", m.root)
	}
}

// script takes choices from bytes; when they are used up every choice is the first.
type script []byte

func (s *script) intn(n int) int {
	if len(*s) == 0 {
		return 0
	}
	v := int((*s)[0])
	*s = (*s)[1:]
	return v % n
}

var (
	someNames = []string{"a", "b", "c", strings.Repeat("n", 255), "\xff\x01"}
	someLinks = []string{"b", "/c", "../b", "/", "c/a", "..", "/b/a", "../../../c", ".//b/./c/"}
	someTimes = []time.Time{{}, time.Unix(0, 1), time.Unix(-1<<31, 0), time.Unix(1<<33, 999_999_999), epoch}
	someSizes = []int{0, 1, 100, 4095, 4096, 4097, 12_000, 40_000, 140_000}
	someXattr = []map[string][]byte{nil, nil, nil, {"user.a": []byte("1")}, {"user.a": {}, "security.b": []byte("22"), "trusted.c": []byte("333")},
		{"user.block": []byte(strings.Repeat("v", 500))}, {"system.posix_acl_access": []byte(acl)}, {"user.many": []byte(strings.Repeat("w", 3000)), "user.z": []byte("z")}}
)

func (s *script) path() string {
	var parts []string
	for range 1 + s.intn(3) {
		parts = append(parts, someNames[s.intn(len(someNames))])
	}
	return strings.Join(parts, "/")
}

// text is content with runs of zeros.
func (s *script) text() string {
	var b strings.Builder
	for range 1 + s.intn(3) {
		size := someSizes[s.intn(len(someSizes))]
		if s.intn(3) == 0 {
			b.WriteString(strings.Repeat("\x00", size))
		} else {
			b.WriteString(pattern(size))
		}
	}
	return b.String()
}

// entry makes one entry, and its content.
func (s *script) entry() (e tree.Entry, text string) {
	e = tree.Entry{Path: s.path(), Mode: uint32(s.intn(256))<<4 | 0o400, UID: uint32(s.intn(3)) * 70_000, GID: uint32(s.intn(2)), ModTime: someTimes[s.intn(len(someTimes))],
		ChangeTime: someTimes[s.intn(len(someTimes))], Xattrs: someXattr[s.intn(len(someXattr))]}
	switch kinds := []tree.Kind{tree.File, tree.File, tree.File, tree.Dir, tree.Dir, tree.Symlink, tree.Symlink, tree.HardLink, tree.HardLink, tree.CharDevice, tree.BlockDevice, tree.FIFO, tree.Socket,
		tree.Delete, tree.Delete, tree.Opaque, tree.Layer}; kinds[s.intn(len(kinds))] {
	case tree.File:
		e.Kind, text = tree.File, s.text()
		if e.Size = int64(len(text)); e.Size > 0 {
			e.Content = strings.NewReader(text)
		}
	case tree.Dir:
		e.Kind = tree.Dir
	case tree.Symlink:
		e.Kind, e.Mode, e.Link = tree.Symlink, 0o777, strings.Repeat("x", 1+s.intn(100))
		if n := s.intn(2 * len(someLinks)); n < len(someLinks) {
			e.Link = someLinks[n]
		}
		for name := range e.Xattrs {
			if !strings.HasPrefix(name, "trusted.") && !strings.HasPrefix(name, "security.") {
				e.Xattrs = nil // a symlink has no others
				break
			}
		}
	case tree.HardLink:
		e = link(e.Path, s.path())
	case tree.CharDevice:
		e.Kind, e.Major, e.Minor = tree.CharDevice, uint32(s.intn(200))*20, uint32(s.intn(256))*4000
	case tree.BlockDevice:
		e.Kind, e.Major, e.Minor = tree.BlockDevice, uint32(s.intn(256)), uint32(s.intn(256))
	case tree.FIFO:
		e.Kind = tree.FIFO
	case tree.Socket:
		e.Kind = tree.Socket
	case tree.Delete:
		e = tree.Entry{Path: e.Path, Kind: tree.Delete}
	case tree.Opaque:
		e = tree.Entry{Path: e.Path, Kind: tree.Opaque}
	case tree.Layer:
		e = tree.Entry{Path: ".", Kind: tree.Layer}
	}
	return e, text
}
