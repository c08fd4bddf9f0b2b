package read

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sort"

	"banger/internal/ext4"
)

// logged is where the newest content of a block lies.
type logged struct {
	block   uint64
	escaped bool // its first bytes are the journal's magic number
}

// unescape puts the magic number back into p, which begins at offset in of the block.
func (l logged) unescape(p []byte, in int64) {
	if in < 4 {
		copy(p, binary.BigEndian.AppendUint32(nil, ext4.JournalMagic)[in:])
	}
}

// Logged lists the blocks whose newest content lies in the journal, in order.
func (f *FS) Logged() []uint64 { return slices.Sorted(maps.Keys(f.log)) }

// LastTransaction gives the number of the last one that Logged is made of, when the file system needs recovery.
func (f *FS) LastTransaction() uint32 { return f.last }

// Journal gives the journal's superblock and the blocks it lies in. Errors: ErrUnsupported when it is on another device or there is none.
func (f *FS) Journal() (*ext4.Journal, *Blocks, error) {
	switch {
	case f.sb.Compat&ext4.CompatJournal == 0:
		return nil, nil, corrupt("there is no journal")
	case f.sb.JournalIno == 0:
		return nil, nil, unsupported("journal on another device")
	}
	n, err := f.Node(f.sb.JournalIno)
	if err != nil {
		return nil, nil, err
	}
	data, _, err := n.Layout()
	if err != nil {
		return nil, nil, err
	}
	blocks := &Blocks{data}
	first, ok := blocks.At(0)
	if !ok {
		return nil, nil, corrupt("the journal is empty")
	}
	b := make([]byte, f.sb.BlockSize)
	if err := f.readFull(b, int64(first)*int64(f.sb.BlockSize)); err != nil {
		return nil, nil, err
	}
	j, err := ext4.DecodeJournal(b, f.sb.BlockSize)
	if err != nil {
		return nil, nil, err
	}
	if last, ok := blocks.At(j.Blocks - 1); !ok || last == 0 {
		return nil, nil, corrupt("journal: %d blocks, its file is shorter", j.Blocks)
	}
	return j, blocks, nil
}

// Blocks maps blocks of a file to blocks of the file system.
type Blocks struct{ list []ext4.Extent }

// At gives the place of a block; false for a hole.
func (b *Blocks) At(logical uint32) (uint64, bool) {
	i := sort.Search(len(b.list), func(i int) bool { return uint64(b.list[i].Logical)+uint64(b.list[i].Len) > uint64(logical) })
	if i == len(b.list) || logical < b.list[i].Logical {
		return 0, false
	}
	return b.list[i].Physical + uint64(logical-b.list[i].Logical), true
}

// transaction is one that was committed.
type transaction struct {
	sequence uint32
	tags     []ext4.Tag
	places   []uint64 // of the tags' blocks in the journal
	revoked  []uint64
}

// recovery walks the log.
type recovery struct {
	f        *FS
	j        *ext4.Journal
	blocks   *Blocks
	position uint32
	left     uint32 // blocks until the log has been gone round
	compat   uint32 // checksum of the transaction so far, as JournalCompatChecksum has it
}

// replay fills f.log with what was committed to the journal.
func (f *FS) replay() error {
	j, blocks, err := f.Journal()
	if err != nil || j.Start == 0 {
		return err
	}
	if j.Incompat&ext4.JournalIncompatFastCommit != 0 {
		return unsupported("journal feature fast_commit")
	}
	r := &recovery{f: f, j: j, blocks: blocks, position: j.Start, left: j.Blocks - j.First}
	list, err := r.scan()
	if err != nil {
		return err
	}
	revoked := map[uint64]uint32{} // block → the last transaction that revoked it
	for _, t := range list {
		for _, block := range t.revoked {
			revoked[block] = t.sequence
		}
	}
	places := map[uint64]logged{}
	for _, t := range list {
		for i, tag := range t.tags {
			if last, ok := revoked[tag.Block]; ok && int32(last-t.sequence) >= 0 {
				continue
			}
			if tag.Block >= f.sb.BlocksCount {
				return corrupt("journal: block %d of %d", tag.Block, f.sb.BlocksCount)
			}
			if err := r.verify(t.sequence, tag, t.places[i]); err != nil {
				return err
			}
			places[tag.Block] = logged{t.places[i], tag.Flags&ext4.TagEscaped != 0}
		}
	}
	f.log, f.last = places, j.Sequence+uint32(len(list))-1
	return nil
}

func (r *recovery) verify(sequence uint32, tag ext4.Tag, place uint64) error {
	if !r.j.Summed() {
		return nil
	}
	b, err := r.f.Block(place)
	if err != nil {
		return err
	}
	if got := r.j.DataSum(sequence, b); got != tag.Sum {
		return corrupt("journal: transaction %d, block %d: checksum %#x, computed %#x", sequence, tag.Block, tag.Sum, got)
	}
	return nil
}

// next gives the next block of the log and its place. ok is false at the end of the log.
func (r *recovery) next() (b []byte, place uint64, ok bool, err error) {
	if r.left == 0 {
		return nil, 0, false, nil
	}
	place, ok = r.blocks.At(r.position)
	if !ok {
		return nil, 0, false, corrupt("journal: block %d is a hole", r.position)
	}
	r.left--
	if r.position++; r.position == r.j.Blocks {
		r.position = r.j.First
	}
	b, err = r.f.Block(place)
	return b, place, err == nil, err
}

// scan collects transactions up to the first that is not whole.
func (r *recovery) scan() (list []transaction, err error) {
	for sequence := r.j.Sequence; ; sequence++ {
		t, ok, err := r.transaction(sequence)
		if err != nil {
			return nil, fmt.Errorf("transaction %d: %w", sequence, err)
		}
		if !ok {
			return list, nil
		}
		list = append(list, t)
	}
}

func (r *recovery) transaction(sequence uint32) (t transaction, whole bool, err error) {
	t.sequence = sequence
	r.compat = ^uint32(0)
	for {
		b, _, ok, err := r.next()
		if !ok || err != nil {
			return t, false, err
		}
		kind, seq, ok := ext4.JournalHeader(b)
		if !ok || seq != sequence {
			return t, false, nil
		}
		switch kind {
		case ext4.JournalDescriptor:
			if ok, err = r.descriptor(&t, b); !ok {
				return t, false, err
			}
		case ext4.JournalRevoke:
			if !r.j.TailOK(b) {
				return t, false, nil
			}
			list, err := r.j.Revoked(b)
			if err != nil {
				return t, false, err
			}
			t.revoked = append(t.revoked, list...)
		case ext4.JournalCommit:
			return t, r.j.CommitOK(b) && r.compatOK(b), nil
		default:
			return t, false, nil
		}
	}
}

// descriptor takes the tags of block b and steps over the blocks that follow it.
func (r *recovery) descriptor(t *transaction, b []byte) (ok bool, err error) {
	if !r.j.TailOK(b) {
		return false, nil
	}
	summed := r.j.Compat&ext4.JournalCompatChecksum != 0
	if summed {
		r.compat = ext4.CRC32BE(r.compat, b)
	}
	for _, tag := range r.j.Tags(b) {
		data, place, ok, err := r.next()
		if !ok || err != nil {
			return false, err
		}
		if summed {
			r.compat = ext4.CRC32BE(r.compat, data)
		}
		t.tags, t.places = append(t.tags, tag), append(t.places, place)
	}
	return true, nil
}

func (r *recovery) compatOK(commit []byte) bool {
	if r.j.Compat&ext4.JournalCompatChecksum == 0 || r.j.Summed() {
		return true
	}
	sum, ok := ext4.CompatSum(commit)
	if !ok {
		return sum == 0 && commit[12] == 0 && commit[13] == 0
	}
	return sum == r.compat
}
