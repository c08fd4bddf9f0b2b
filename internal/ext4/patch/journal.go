package patch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"banger"
	"banger/internal/ext4"
	"banger/internal/ext4/read"
)

// log is the image's journal while nothing else writes it.
type log struct {
	dev    device
	sb     *ext4.Superblock
	j      *ext4.Journal
	places *read.Blocks
	noSync bool
}

func openLog(dev device, fsys *read.FS, opt Options) (*log, error) {
	j, places, err := fsys.Journal()
	if err != nil {
		return nil, err
	}
	if errno := binary.BigEndian.Uint32(j.Raw[0x20:]); errno != 0 {
		return nil, &banger.Error{Kind: banger.ErrCorrupt, Err: fmt.Errorf("the journal records error %d", int32(errno)), Hint: "repair it first: e2fsck -f"}
	}
	return &log{dev, fsys.Super(), j, places, opt.NoSync}, nil
}

func (l *log) sync() error {
	if l.noSync {
		return nil
	}
	return l.dev.Sync()
}

// write puts one block at its place in the file system.
func (l *log) write(block uint64, b []byte) error {
	_, err := l.dev.WriteAt(b, int64(block)*int64(l.sb.BlockSize))
	return err
}

// put writes one block of the journal.
func (l *log) put(logical uint32, b []byte) error {
	place, ok := l.places.At(logical)
	if !ok {
		return corrupt("journal: block %d is a hole", logical)
	}
	return l.write(place, b)
}

// setStart writes the journal's superblock: where the log begins, 0 when it is empty.
func (l *log) setStart(sequence, start uint32) error {
	l.j.SetLog(sequence, start)
	place, _ := l.places.At(0)
	_, err := l.dev.WriteAt(l.j.Raw, int64(place)*int64(l.sb.BlockSize))
	return err
}

// mark writes the superblock in raw with or without the mark that the journal is needed.
func (l *log) mark(raw []byte, needed bool) error {
	le := binary.LittleEndian
	flags := le.Uint32(raw[0x60:]) &^ ext4.IncompatRecover
	if needed {
		flags |= ext4.IncompatRecover
	}
	le.PutUint32(raw[0x60:], flags)
	sealSuper(l.sb, raw)
	_, err := l.dev.WriteAt(raw, ext4.SuperOffset)
	return err
}

func sealSuper(sb *ext4.Superblock, raw []byte) {
	if sb.MetadataCsum() {
		binary.LittleEndian.PutUint32(raw[0x3FC:], ext4.Checksum(^uint32(0), raw[:0x3FC]))
	}
}

// recoverJournal does what a kernel does at a mount: it writes what the journal holds to where it belongs.
func recoverJournal(dev device, fsys *read.FS, opt Options) error {
	l, err := openLog(dev, fsys, opt)
	if err != nil {
		return err
	}
	sequence := l.j.Sequence
	if l.j.Start != 0 {
		sequence = fsys.LastTransaction() + 2 // what may lie in the log beyond the last is void
		for _, block := range fsys.Logged() {
			b, err := fsys.Block(block)
			if err == nil {
				err = l.write(block, b)
			}
			if err != nil {
				return err
			}
		}
		if err := l.sync(); err != nil {
			return err
		}
	}
	raw := make([]byte, ext4.SuperSize)
	if err := fsys.ReadBytes(raw, ext4.SuperOffset); err != nil {
		return err
	}
	return l.finish(raw, sequence)
}

// wipe empties a log that the superblock says is not needed, as kernels do: a program died while it finished.
func wipe(dev device, fsys *read.FS, opt Options) error {
	l, err := openLog(dev, fsys, opt)
	if err != nil || l.j.Start == 0 {
		return err
	}
	if err := l.setStart(l.j.Sequence+l.j.Blocks, 0); err != nil { // beyond what the log may hold
		return err
	}
	return l.sync()
}

// finish empties the log.
func (l *log) finish(super []byte, sequence uint32) error {
	if err := l.setStart(sequence, 0); err != nil {
		return err
	}
	if err := l.mark(super, false); err != nil {
		return err
	}
	return l.sync()
}

// commit writes all changes: first beside what is there, then into the journal's log, and when that is on disk to where
// they belong. The moment at which the journal's superblock names the log decides between old and new.
func (tx *Tx) commit() error {
	if tx.edits == 0 {
		return nil
	}
	if err := tx.applyFreed(); err != nil {
		return err
	}
	if err := tx.sealBitmaps(); err != nil {
		return err
	}
	before := make([]byte, ext4.SuperSize)
	if _, err := tx.dev.ReadAt(before, ext4.SuperOffset); err != nil {
		return err
	}
	after, err := tx.editSuper()
	if err != nil {
		return err
	}
	l, err := openLog(tx.dev, tx.fs, tx.opt)
	if err != nil {
		return err
	}
	sequence := l.j.Sequence
	if err := l.writeTransaction(sequence, tx.dirty); err != nil {
		return err
	}
	if err := l.sync(); err != nil { // the content of files, too
		return err
	}
	l.j.ClearCompatChecksum()
	if err := l.mark(before, true); err != nil {
		return err
	}
	if err := l.setStart(sequence, l.j.First); err != nil {
		return err
	}
	if err := l.sync(); err != nil {
		return err
	}
	for _, block := range slices.Sorted(maps.Keys(tx.dirty)) {
		if err := l.write(block, tx.dirty[block]); err != nil {
			return err
		}
	}
	if err := l.sync(); err != nil {
		return err
	}
	return l.finish(after, sequence+1)
}

// editSuper changes the superblock as the transaction leaves it and gives its bytes.
func (tx *Tx) editSuper() ([]byte, error) {
	b, err := tx.edit(ext4.SuperOffset / uint64(tx.sb.BlockSize))
	if err != nil {
		return nil, err
	}
	raw := b[ext4.SuperOffset%tx.sb.BlockSize:][:ext4.SuperSize]
	le := binary.LittleEndian
	var free uint64
	var inodes uint32
	for group := range tx.sb.Groups { // after a recovery the superblock's own counts may be old
		g, err := tx.fs.RawGroup(group)
		if err != nil {
			return nil, err
		}
		free, inodes = free+uint64(g.FreeBlocks()), inodes+g.FreeInodes()
	}
	le.PutUint32(raw[0xC:], uint32(free))
	if tx.sb.Incompat&ext4.Incompat64Bit != 0 {
		le.PutUint32(raw[0x158:], uint32(free>>32))
	}
	le.PutUint32(raw[0x10:], inodes)
	le.PutUint32(raw[0x30:], uint32(tx.opt.Now.Unix()))
	le.PutUint32(raw[0x60:], le.Uint32(raw[0x60:])|ext4.IncompatRecover) // as kernels have it in the journal
	if tx.large {
		le.PutUint32(raw[0x64:], le.Uint32(raw[0x64:])|ext4.ROCompatLargeFile)
	}
	sealSuper(tx.sb, raw)
	return append([]byte(nil), raw...), nil
}

// writeTransaction writes descriptors, blocks and the commit from the log's start on. Errors: ErrUnavailable, before
// anything is written, when the log is too small.
func (l *log) writeTransaction(sequence uint32, dirty map[uint64][]byte) error {
	list := slices.Sorted(maps.Keys(dirty))
	perTag := l.j.TagSize()
	room := (l.sb.BlockSize - 12 - 16 - 16 - 4) / perTag // tags of one descriptor, at least
	need := len(list) + (len(list)+room-1)/room + 1
	if uint64(need) > uint64(l.j.Blocks-l.j.First) {
		return &banger.Error{Kind: banger.ErrUnavailable, Err: fmt.Errorf("the changes take %d blocks of the journal, which has %d", need, l.j.Blocks-l.j.First),
			Hint: "make them in smaller steps"}
	}
	if last := list[len(list)-1]; last>>32 != 0 && l.j.Incompat&ext4.JournalIncompat64Bit == 0 {
		return unsupported("block %d in a journal of 32 bits", last)
	}
	position := l.j.First
	for len(list) > 0 {
		n := min(room, len(list))
		if err := l.writeDescriptor(position, sequence, list[:n], dirty); err != nil {
			return err
		}
		position += uint32(n) + 1
		list = list[n:]
	}
	commit := make([]byte, l.sb.BlockSize)
	ext4.PutJournalHeader(commit, ext4.JournalCommit, sequence)
	l.j.SealCommit(commit)
	return l.put(position, commit)
}

// writeDescriptor writes a descriptor and the blocks that it names.
func (l *log) writeDescriptor(position, sequence uint32, list []uint64, dirty map[uint64][]byte) error {
	descriptor := make([]byte, l.sb.BlockSize)
	ext4.PutJournalHeader(descriptor, ext4.JournalDescriptor, sequence)
	for i, block := range list {
		b := dirty[block]
		tag := ext4.Tag{Block: block}
		if binary.BigEndian.Uint32(b) == ext4.JournalMagic {
			tag.Flags |= ext4.TagEscaped
			b = append([]byte{0, 0, 0, 0}, b[4:]...)
		}
		if i == len(list)-1 {
			tag.Flags |= ext4.TagLast
		}
		if l.j.Summed() {
			tag.Sum = l.j.DataSum(sequence, b)
		}
		if !l.j.PutTag(descriptor, i, tag) {
			return errors.New("a journal's descriptor has no room")
		}
		if err := l.put(position+1+uint32(i), b); err != nil {
			return err
		}
	}
	l.j.SealTail(descriptor)
	return l.put(position, descriptor)
}
