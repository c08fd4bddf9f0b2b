package write

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"banger/internal/ext4"
)

var le = binary.LittleEndian

// xattr is an extended attribute on its way to the disk.
type xattr struct {
	space byte
	name  string // without the prefix of its name space
	value []byte
}

// inodeXattrs is the room that an inode has for attributes.
const inodeXattrs = ext4.InodeSize - 128 - extraSize

// setXattrs gives n these attributes instead of those it has. They lie in the inode, or all in one block.
func (w *writer) setXattrs(n *node, attrs map[string][]byte) error {
	w.freeXattrs(n)
	if n.more != nil {
		n.more.xattrs = nil
	}
	if len(attrs) == 0 {
		return nil
	}
	list, err := sortXattrs(attrs)
	if err != nil {
		return err
	}
	size := 4
	for _, x := range list {
		size += x.entrySize() + x.valueSize()
	}
	if 4+size <= inodeXattrs {
		area := make([]byte, inodeXattrs)
		le.PutUint32(area, ext4.XattrMagic)
		putXattrs(area[4:], 0, list, false)
		n.extra().xattrs = area
		return nil
	}
	if xattrHeader+size > blockSize {
		return fmt.Errorf("extended attributes of %d bytes: at most %d", size, blockSize-xattrHeader)
	}
	at, b, err := w.block()
	if err != nil {
		return err
	}
	le.PutUint32(b, ext4.XattrMagic)
	ext4.SetXattrRefs(b, 1)
	le.PutUint32(b[8:], 1) // block
	le.PutUint32(b[12:], putXattrs(b[xattrHeader:], xattrHeader, list, true))
	w.super.SealXattrBlock(at, b)
	n.extra().xattrBlock = at
	n.blocks++
	return nil
}

const xattrHeader = 32

func (x xattr) entrySize() int { return (16 + len(x.name) + 3) &^ 3 }
func (x xattr) valueSize() int { return (len(x.value) + 3) &^ 3 }

// sortXattrs gives the attributes in the order that the kernel searches them in.
func sortXattrs(attrs map[string][]byte) ([]xattr, error) {
	var list []xattr
	for name, value := range attrs {
		x := xattr{value: value}
		switch {
		case name == ext4.XattrACL || name == ext4.XattrDefaultACL:
			x.space = 2
			if name == ext4.XattrDefaultACL {
				x.space = 3
			}
			var err error
			if x.value, err = aclToDisk(value); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		default:
			for _, space := range []struct {
				prefix string
				index  byte
			}{{"user.", 1}, {"trusted.", 4}, {"security.", 6}} {
				if rest, ok := strings.CutPrefix(name, space.prefix); ok && rest != "" {
					x.space, x.name = space.index, rest
				}
			}
		}
		if x.space == 0 || len(x.name) > maxName || strings.IndexByte(x.name, 0) >= 0 {
			return nil, fmt.Errorf("extended attribute %.300q: its name is of no known kind", name)
		}
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b xattr) int {
		return cmp.Or(cmp.Compare(a.space, b.space), cmp.Compare(len(a.name), len(b.name)), strings.Compare(a.name, b.name))
	})
	return list, nil
}

// putXattrs writes entries from the start of b and values from its end; offsets of values count from base bytes before b.
// It gives the hash of all, which only blocks have.
func putXattrs(b []byte, base int, list []xattr, hashed bool) (all uint32) {
	at, end := 0, len(b)
	for _, x := range list {
		end -= x.valueSize()
		e := b[at:]
		e[0], e[1] = byte(len(x.name)), x.space
		if len(x.value) > 0 {
			le.PutUint16(e[2:], uint16(base+end))
		}
		le.PutUint32(e[8:], uint32(len(x.value)))
		copy(e[16:], x.name)
		copy(b[end:], x.value)
		if hashed {
			hash := x.hash(b[end : end+x.valueSize()])
			le.PutUint32(e[12:], hash)
			all = all<<16 ^ all>>16 ^ hash
		}
		at += x.entrySize()
	}
	return all
}

// hash is the hash of one attribute with its value, padded to words.
func (x xattr) hash(padded []byte) (h uint32) {
	for i := range len(x.name) {
		h = h<<5 ^ h>>27 ^ uint32(x.name[i])
	}
	for ; len(padded) > 0; padded = padded[4:] {
		h = h<<16 ^ h>>16 ^ le.Uint32(padded)
	}
	return h
}

// aclToDisk turns a POSIX ACL of system calls (version 2) into that of the disk (version 1), which has ids only where they
// mean something.
func aclToDisk(b []byte) ([]byte, error) {
	if len(b) < 4 || len(b)%8 != 4 || le.Uint32(b) != 2 {
		return nil, fmt.Errorf("%d bytes are no POSIX ACL of version 2", len(b))
	}
	out := le.AppendUint32(nil, 1)
	for b = b[4:]; len(b) > 0; b = b[8:] {
		const namedUser, namedGroup = 2, 8
		out = append(out, b[:4]...)
		if tag := le.Uint16(b); tag == namedUser || tag == namedGroup {
			out = append(out, b[4:8]...)
		}
	}
	return out, nil
}
