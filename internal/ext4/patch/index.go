package patch

import (
	"cmp"
	"encoding/binary"
	"slices"

	"banger/internal/ext4"
)

// step is a block of the index on the way to a block of names.
type step struct {
	block uint64
	x     ext4.Index
	at    int // entry that was taken
}

// addIndexed enters a name where its hash belongs. done is false, and nothing has changed, when there is no room or the
// hash is not known.
func (d *dir) addIndexed(name string, ino uint32, kind uint8) (done bool, err error) {
	b, err := d.block(0)
	if err != nil {
		return false, err
	}
	root, err := ext4.DecodeIndex(b, true)
	if err != nil {
		return false, err
	}
	if root.Hash != 1 || d.tx.sb.HashUnsigned || root.Levels > 1 {
		return false, nil
	}
	hash, _ := ext4.HashHalfMD4(name, d.tx.sb.HashSeed)
	last := step{block: d.blocks[0], x: root}
	leaf := last.descend(hash)
	if root.Levels == 1 {
		if b, err = d.block(int(leaf)); err != nil {
			return false, err
		}
		node, err := ext4.DecodeIndex(b, false)
		if err != nil {
			return false, err
		}
		last = step{block: d.blocks[leaf], x: node}
		leaf = last.descend(hash)
	}
	if done, err = d.insert(int(leaf), name, ino, kind); done || err != nil || last.x.Count == last.x.Limit {
		return done, err
	}
	return d.split(last, int(leaf), hash, name, ino, kind)
}

// descend chooses the entry whose range of hashes holds hash.
func (s *step) descend(hash uint32) (block uint32) {
	for i := range s.x.Count {
		lo, b := s.x.At(i)
		if i > 0 && lo > hash {
			break
		}
		s.at, block = i, b
	}
	return block
}

// hashed is an entry on its way into one of two blocks.
type hashed struct {
	hash, minor uint32
	ino         uint32
	kind        uint8
	name        string
}

// split moves the upper half of a full block of names to a new one and enters the name in that where it belongs.
func (d *dir) split(above step, logical int, hash uint32, name string, ino uint32, kind uint8) (done bool, err error) {
	b, err := d.block(logical)
	if err != nil {
		return false, err
	}
	list, err := d.collect(b)
	if err != nil {
		return false, err
	}
	_, minor := ext4.HashHalfMD4(name, d.tx.sb.HashSeed)
	list = append(list, hashed{hash, minor, ino, kind, name})
	slices.SortFunc(list, func(a, b hashed) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.minor, b.minor)) })
	half, ok := d.half(list, len(d.names(b)))
	if !ok {
		return false, nil
	}
	added, upper, err := d.grow()
	if err != nil {
		return false, err
	}
	lower, err := d.tx.edit(d.blocks[logical])
	if err != nil {
		return false, err
	}
	d.render(lower, list[:half])
	d.render(upper, list[half:])
	first := list[half].hash
	if list[half-1].hash == first {
		first |= 1 // a run of one hash goes on
	}
	node, err := d.tx.edit(above.block)
	if err != nil {
		return false, err
	}
	x, err := ext4.DecodeIndex(node, above.x.Root)
	if err != nil {
		return false, err
	}
	x.Insert(above.at+1, first, uint32(added))
	d.sealIndex(x)
	return true, nil
}

// collect lists the names in a block with their hashes.
func (d *dir) collect(b []byte) (list []hashed, err error) {
	area := d.names(b)
	for off := 0; off < len(area); {
		e, err := ext4.NextDirent(area, off, d.hasTypes())
		if err != nil {
			return nil, err
		}
		off += e.Len
		if e.Ino == 0 {
			continue
		}
		hash, minor := ext4.HashHalfMD4(string(e.Name), d.tx.sb.HashSeed)
		list = append(list, hashed{hash, minor, e.Ino, e.Type, string(e.Name)})
	}
	return list, nil
}

// half finds where to cut a list so that both parts fit a block of room bytes.
func (d *dir) half(list []hashed, room int) (cut int, ok bool) {
	total := 0
	for _, e := range list {
		total += ext4.DirentSize(len(e.name))
	}
	lower := 0
	for i, e := range list[:len(list)-1] {
		lower += ext4.DirentSize(len(e.name))
		if 2*lower >= total || i == len(list)-2 {
			return i + 1, lower <= room && total-lower <= room
		}
	}
	return 0, false
}

// render fills a block with names.
func (d *dir) render(b []byte, list []hashed) {
	clear(b)
	end := len(d.names(b))
	for i, off := 0, 0; i < len(list); i++ {
		length := ext4.DirentSize(len(list[i].name))
		if i == len(list)-1 {
			length = end - off
		}
		d.put(b, off, length, list[i].ino, list[i].kind, list[i].name)
		off += length
	}
	d.seal(b)
}

// dropIndex turns a hashed directory into a list of names, which every kernel reads: index blocks become blocks without
// names.
func (d *dir) dropIndex() error {
	var nodes []int
	for i := 1; i < len(d.blocks); i++ {
		b, err := d.block(i)
		if err != nil {
			return err
		}
		if isIndexNode(b) {
			nodes = append(nodes, i)
		}
	}
	raw, err := d.tx.inode(d.n.Ino())
	if err != nil {
		return err
	}
	raw.SetFlags(raw.Flags() &^ ext4.InodeIndex)
	d.tx.sb.Seal(d.n.Ino(), raw)
	for _, i := range nodes {
		b, err := d.tx.edit(d.blocks[i])
		if err != nil {
			return err
		}
		clear(b)
		d.put(b, 0, len(d.names(b)), 0, 0, "")
		d.seal(b)
	}
	b, err := d.tx.edit(d.blocks[0])
	if err != nil {
		return err
	}
	clear(b[24:])
	binary.LittleEndian.PutUint16(b[16:], ext4.EncodeRecLen(len(d.names(b))-12, len(b)))
	d.seal(b)
	return nil
}
