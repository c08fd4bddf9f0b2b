package kernel

import (
	"encoding/binary"
	"slices"
)

// trie is an index of kmod's (libkmod-index): keys that share their beginnings, each with values in the order of their priority.
// The zero value is empty.
//
// On disk: magic, version, the root's reference; then nodes, children before parents. A reference is an offset with flags that
// tell which parts the node has: its prefix with a NUL; first and last byte of its children and a reference for each between
// them, 0 where there is none; the number of its values, each a priority and a string with a NUL. Numbers are big-endian.
type trie struct {
	root trieNode
}

type trieNode struct {
	prefix   string
	children map[byte]*trieNode
	values   []trieValue
}

type trieValue struct {
	text     string
	priority int
}

const (
	trieMagic       = 0xb007f457
	trieVersion     = 0x00020001
	trieHasPrefix   = 0x80000000
	trieHasValues   = 0x40000000
	trieHasChildren = 0x20000000
)

// insert adds a value. Of equal priority, the later one comes first.
func (t *trie) insert(key, value string, priority int) {
	n := &t.root
	for {
		n.split(commonPrefix(n.prefix, key))
		if key = key[len(n.prefix):]; key == "" {
			break
		}
		child := n.children[key[0]]
		if child == nil {
			if n.children == nil {
				n.children = map[byte]*trieNode{}
			}
			child = &trieNode{prefix: key[1:]}
			n.children[key[0]] = child
		}
		n, key = child, key[1:]
	}
	at := slices.IndexFunc(n.values, func(v trieValue) bool { return v.priority >= priority })
	if at < 0 {
		at = len(n.values)
	}
	n.values = slices.Insert(n.values, at, trieValue{value, priority})
}

// split cuts the node's prefix to n bytes and moves the rest into a child.
func (n *trieNode) split(at int) {
	if at == len(n.prefix) {
		return
	}
	child := &trieNode{prefix: n.prefix[at+1:], children: n.children, values: n.values}
	*n = trieNode{prefix: n.prefix[:at], children: map[byte]*trieNode{n.prefix[at]: child}}
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// encode gives the file.
func (t *trie) encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, trieMagic)
	b = binary.BigEndian.AppendUint32(b, trieVersion)
	b = binary.BigEndian.AppendUint32(b, 0)
	root := t.root.encode(&b)
	binary.BigEndian.PutUint32(b[8:], root)
	return b
}

// encode appends the node with all below it and gives its reference.
func (n *trieNode) encode(b *[]byte) uint32 {
	first, last := n.childRange()
	var references []uint32
	for ch := first; ch <= last; ch++ {
		reference := uint32(0)
		if child := n.children[byte(ch)]; child != nil {
			reference = child.encode(b)
		}
		references = append(references, reference)
	}
	reference := uint32(len(*b))
	if n.prefix != "" {
		reference |= trieHasPrefix
		*b = append(append(*b, n.prefix...), 0)
	}
	if len(references) > 0 {
		reference |= trieHasChildren
		*b = append(*b, byte(first), byte(last))
		for _, child := range references {
			*b = binary.BigEndian.AppendUint32(*b, child)
		}
	}
	if len(n.values) > 0 {
		reference |= trieHasValues
		*b = binary.BigEndian.AppendUint32(*b, uint32(len(n.values)))
		for _, v := range n.values {
			*b = binary.BigEndian.AppendUint32(*b, uint32(v.priority))
			*b = append(append(*b, v.text...), 0)
		}
	}
	return reference
}

// childRange gives the lowest and the highest byte that leads to a child; an empty range without one.
func (n *trieNode) childRange() (first, last int) {
	first, last = 256, -1
	for ch := range n.children {
		first, last = min(first, int(ch)), max(last, int(ch))
	}
	return first, last
}
