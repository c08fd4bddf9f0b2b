package ext4

import "encoding/binary"

// Xattr is an extended attribute as it lies on disk.
type Xattr struct {
	Name  string // with the prefix of its name space
	Value []byte // lies in the area; nil when Inode is set
	Inode uint32 // holds the value, under ea_inode
	Size  uint32
}

// xattrPrefixes are the name spaces by index.
var xattrPrefixes = map[byte]string{1: "user.", 2: XattrACL, 3: XattrDefaultACL, 4: "trusted.", 6: "security.", 7: "system.", 8: "system.richacl"}

// Names of attributes with a meaning to the format.
const (
	XattrACL        = "system.posix_acl_access"
	XattrDefaultACL = "system.posix_acl_default"
	XattrInline     = "system.data" // the rest of inline data
)

// DecodeXattrs reads the entries that begin at off of area; offsets of values count from base. Errors: ErrCorrupt.
func DecodeXattrs(area []byte, off, base int) (list []Xattr, err error) {
	first := off
	for off+4 <= len(area) && le.Uint32(area[off:]) != 0 {
		if off+16 > len(area) || off+16+int(area[off]) > len(area) {
			return nil, corrupt("extended attribute at %d leaves its area", off)
		}
		e := area[off:]
		x := Xattr{Name: xattrPrefixes[e[1]] + string(e[16:16+int(e[0])]), Inode: le.Uint32(e[4:]), Size: le.Uint32(e[8:])}
		if _, known := xattrPrefixes[e[1]]; !known && e[1] != 0 {
			return nil, corrupt("extended attribute at %d: name space %d", off, e[1])
		}
		if start := base + int(le.Uint16(e[2:])); x.Inode == 0 && x.Size > 0 {
			if int64(start)+int64(x.Size) > int64(len(area)) || start < first {
				return nil, corrupt("extended attribute %q: value at %d, %d bytes", x.Name, start, x.Size)
			}
			x.Value = area[start : start+int(x.Size)]
		}
		list = append(list, x)
		off += (16 + int(e[0]) + 3) &^ 3
	}
	return list, nil
}

// InodeXattrs gives the attributes in an inode's own space.
func InodeXattrs(i Inode) ([]Xattr, error) {
	if len(i) <= 128 || i.Extra() == 0 {
		return nil, nil
	}
	area := i[128+i.Extra():]
	if len(area) < 4 || le.Uint32(area) != XattrMagic {
		return nil, nil
	}
	return DecodeXattrs(area, 4, 4)
}

// BlockXattrs gives the attributes in a block of them.
func BlockXattrs(b []byte) ([]Xattr, error) {
	if le.Uint32(b) != XattrMagic || le.Uint32(b[8:]) != 1 {
		return nil, corrupt("extended attributes: magic %#x, %d blocks", le.Uint32(b), le.Uint32(b[8:]))
	}
	return DecodeXattrs(b, 32, 0)
}

// XattrRefs is how many inodes share a block of attributes.
func XattrRefs(b []byte) uint32 { return le.Uint32(b[4:]) }

// SetXattrRefs changes it.
func SetXattrRefs(b []byte, n uint32) { le.PutUint32(b[4:], n) }

// XattrBlockSum computes, StoredXattrBlockSum reads the checksum of a block of attributes.
func (s *Superblock) XattrBlockSum(block uint64, b []byte) uint32 {
	sum := Checksum(s.Seed, le.AppendUint64(nil, block))
	sum = Checksum(sum, b[:16])
	sum = Checksum32(sum, 0)
	return Checksum(sum, b[20:])
}

func StoredXattrBlockSum(b []byte) uint32 { return le.Uint32(b[16:]) }

// SealXattrBlock writes it.
func (s *Superblock) SealXattrBlock(block uint64, b []byte) {
	if s.MetadataCsum() {
		le.PutUint32(b[16:], s.XattrBlockSum(block, b))
	}
}

// ACLFromDisk turns a POSIX ACL of the disk (version 1, ids only where they mean something) into that of system calls
// (version 2). Errors: ErrCorrupt.
func ACLFromDisk(b []byte) ([]byte, error) {
	if len(b) < 4 || le.Uint32(b) != 1 {
		return nil, corrupt("ACL: no version 1 in %d bytes", len(b))
	}
	out := binary.LittleEndian.AppendUint32(nil, 2)
	for b = b[4:]; len(b) > 0; {
		if len(b) < 4 {
			return nil, corrupt("ACL: %d bytes left over", len(b))
		}
		out = append(out, b[:4]...)
		tag := le.Uint16(b)
		b = b[4:]
		if tag != 2 && tag != 8 { // a named user, a named group
			out = le.AppendUint32(out, ^uint32(0))
			continue
		}
		if len(b) < 4 {
			return nil, corrupt("ACL: entry without its id")
		}
		out, b = append(out, b[:4]...), b[4:]
	}
	return out, nil
}
