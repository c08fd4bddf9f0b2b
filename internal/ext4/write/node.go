package write

import (
	"time"

	"banger/internal/ext4"
)

// node is an inode in memory. It is kept small: there is one for each entry.
type node struct {
	kids    map[string]*node // of a directory
	parent  *node            // of a directory
	more    *more            // what few nodes have
	first   ext4.Extent
	size    int64 // bytes; a device's numbers
	blocks  uint64
	changed stamp
	modTime stamp
	access  stamp
	uid     uint32
	gid     uint32
	ino     uint32 // given at the end
	links   uint32
	mode    uint16 // with the type
	layer   uint16
}

type more struct {
	extents    []ext4.Extent // after the first
	link       string
	xattrs     []byte // as they lie in the inode
	xattrBlock uint64
	root       []byte // of an extent tree that has blocks of its own
}

// stamp is a time as it lies in an inode.
type stamp struct{ seconds, extra uint32 }

const (
	minSeconds = -1 << 31
	maxSeconds = 1<<34 - 1<<31 - 1
)

// newStamp takes the nearest time that an inode can hold.
func newStamp(t time.Time) stamp {
	s, ns := t.Unix(), uint32(t.Nanosecond())
	switch {
	case s < minSeconds:
		s, ns = minSeconds, 0
	case s > maxSeconds:
		s, ns = maxSeconds, 999_999_999
	}
	epoch := uint32((s-int64(int32(s)))>>32) & 3
	return stamp{uint32(s), epoch | ns<<2}
}

func (n *node) kind() uint16 { return n.mode & 0xF000 }

func (n *node) isDir() bool { return n.kids != nil }

func (n *node) extra() *more {
	if n.more == nil {
		n.more = &more{}
	}
	return n.more
}

// extents gives all, in order.
func (n *node) extents() []ext4.Extent {
	switch {
	case n.first.Len == 0:
		return nil
	case n.more == nil:
		return []ext4.Extent{n.first}
	}
	return append([]ext4.Extent{n.first}, n.more.extents...)
}

// maxExtent is how many blocks one extent maps.
const maxExtent = 32768

// addBlocks maps a file's blocks from logical on to s.
func (n *node) addBlocks(logical uint32, s span) {
	n.blocks += s.to - s.from
	for s.from < s.to {
		last := &n.first
		if n.more != nil && len(n.more.extents) > 0 {
			last = &n.more.extents[len(n.more.extents)-1]
		}
		room := uint32(maxExtent)
		joins := last.Len > 0 && last.Logical+last.Len == logical && last.Physical+uint64(last.Len) == s.from && last.Len < maxExtent
		if joins {
			room -= last.Len
		}
		count := uint32(min(s.to-s.from, uint64(room)))
		added := ext4.Extent{Logical: logical, Len: count, Physical: s.from}
		switch {
		case joins:
			last.Len += count
		case n.first.Len == 0:
			n.first = added
		default:
			m := n.extra()
			m.extents = append(m.extents, added)
		}
		logical += count
		s.from += uint64(count)
	}
}
