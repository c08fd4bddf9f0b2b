package ext4

import (
	"encoding/binary"
	"fmt"

	"banger"
)

// The journal is big endian.
var be = binary.BigEndian

// Types of journal blocks.
const (
	JournalDescriptor = 1
	JournalCommit     = 2
	JournalSuperV1    = 3
	JournalSuperV2    = 4
	JournalRevoke     = 5
)

// Features of a journal.
const (
	JournalCompatChecksum = 0x1

	JournalIncompatRevoke     = 0x1
	JournalIncompat64Bit      = 0x2
	JournalIncompatAsync      = 0x4
	JournalIncompatCsumV2     = 0x8
	JournalIncompatCsumV3     = 0x10
	JournalIncompatFastCommit = 0x20
)

// Flags of a tag.
const (
	TagEscaped  = 1 // the block began with the journal's magic number, which was zeroed
	TagSameUUID = 2
	TagLast     = 8
)

// JournalHeader is the start of every journal block but data. ok is false when the magic number is missing.
func JournalHeader(b []byte) (kind, sequence uint32, ok bool) {
	return be.Uint32(b[4:]), be.Uint32(b[8:]), be.Uint32(b) == JournalMagic
}

// PutJournalHeader writes it.
func PutJournalHeader(b []byte, kind, sequence uint32) {
	be.PutUint32(b, JournalMagic)
	be.PutUint32(b[4:], kind)
	be.PutUint32(b[8:], sequence)
}

// Journal is a journal's superblock.
type Journal struct {
	Raw              []byte // 1024 bytes
	Blocks           uint32 // length, in blocks of the file system
	First            uint32 // block of the log
	Sequence         uint32 // of the first transaction in the log
	Start            uint32 // its block; 0: the log is empty
	Compat, Incompat uint32
	Seed             uint32 // of its checksums
}

// DecodeJournal reads a journal's superblock. Errors: ErrCorrupt, ErrUnsupported names the feature.
func DecodeJournal(b []byte, blockSize int) (*Journal, error) {
	kind, _, ok := JournalHeader(b)
	if !ok || kind != JournalSuperV1 && kind != JournalSuperV2 {
		return nil, corrupt("journal: no superblock")
	}
	j := &Journal{Raw: b[:1024], Blocks: be.Uint32(b[0x10:]), First: be.Uint32(b[0x14:]), Sequence: be.Uint32(b[0x18:]), Start: be.Uint32(b[0x1C:])}
	if kind == JournalSuperV2 {
		j.Compat, j.Incompat = be.Uint32(b[0x24:]), be.Uint32(b[0x28:])
		j.Seed = Checksum(^uint32(0), b[0x30:0x40])
	}
	if unknown := j.Incompat &^ 0x3F; unknown != 0 {
		return nil, &banger.Error{Kind: banger.ErrUnsupported, Err: fmt.Errorf("journal feature bit %#x", unknown)}
	}
	if j.Summed() {
		if got, want := j.sum(), be.Uint32(b[0xFC:]); got != want {
			return nil, corrupt("journal: superblock checksum %#x, computed %#x", want, got)
		}
	}
	if size := be.Uint32(b[0xC:]); size != uint32(blockSize) {
		return nil, corrupt("journal: blocks of %d bytes", size)
	}
	if j.Incompat&JournalIncompatFastCommit != 0 {
		fast := be.Uint32(b[0x54:])
		if fast == 0 {
			fast = 256
		}
		j.Blocks -= min(fast, j.Blocks)
	}
	if j.First == 0 || j.First >= j.Blocks || j.Start != 0 && (j.Start < j.First || j.Start >= j.Blocks) {
		return nil, corrupt("journal: log %d to %d starts at %d", j.First, j.Blocks, j.Start)
	}
	return j, nil
}

// Summed tells whether the journal's blocks carry crc32c checksums.
func (j *Journal) Summed() bool {
	return j.Incompat&(JournalIncompatCsumV2|JournalIncompatCsumV3) != 0
}

func (j *Journal) sum() uint32 {
	sum := Checksum(^uint32(0), j.Raw[:0xFC])
	return Checksum(Checksum32(sum, 0), j.Raw[0x100:1024])
}

// SetLog changes where the log begins: sequence of its first transaction and its block, 0 for an empty log.
func (j *Journal) SetLog(sequence, start uint32) {
	j.Sequence, j.Start = sequence, start
	be.PutUint32(j.Raw[0x18:], sequence)
	be.PutUint32(j.Raw[0x1C:], start)
	if j.Summed() {
		be.PutUint32(j.Raw[0xFC:], j.sum())
	}
}

// ClearCompatChecksum drops the oldest kind of checksum, for transactions that carry none.
func (j *Journal) ClearCompatChecksum() {
	j.Compat &^= JournalCompatChecksum
	be.PutUint32(j.Raw[0x24:], j.Compat)
}

// Tag names the home of one block of a transaction.
type Tag struct {
	Block uint64
	Flags uint32
	Sum   uint32 // of the block, when the journal is Summed
}

// TagSize is the length of a tag without the UUID that may follow it.
func (j *Journal) TagSize() int {
	if j.Incompat&JournalIncompatCsumV3 != 0 {
		return 16
	}
	size := 8
	if j.Incompat&JournalIncompatCsumV2 != 0 {
		size += 2
	}
	if j.Incompat&JournalIncompat64Bit != 0 {
		size += 4
	}
	return size
}

// body is where the list of tags or of revoked blocks ends.
func (j *Journal) body(block []byte) int {
	if j.Summed() {
		return len(block) - 4
	}
	return len(block)
}

// Tags decodes a descriptor block.
func (j *Journal) Tags(block []byte) (list []Tag) {
	size := j.TagSize()
	for off := 12; off+size <= j.body(block); {
		b := block[off:]
		t := Tag{Block: uint64(be.Uint32(b)), Flags: uint32(be.Uint16(b[6:])), Sum: uint32(be.Uint16(b[4:]))}
		wide := 8
		if size == 16 {
			t.Flags, t.Sum = be.Uint32(b[4:]), be.Uint32(b[12:])
		}
		if j.Incompat&JournalIncompat64Bit != 0 {
			t.Block |= uint64(be.Uint32(b[wide:])) << 32
		}
		list = append(list, t)
		if t.Flags&TagLast != 0 {
			break
		}
		off += size
		if t.Flags&TagSameUUID == 0 {
			off += 16
		}
	}
	return list
}

// PutTag writes tag n of a descriptor block, for tags that all but the first share the UUID. It reports false when there
// is no room.
func (j *Journal) PutTag(block []byte, n int, t Tag) bool {
	size := j.TagSize()
	off := 12 + n*size
	if n > 0 {
		off += 16
		t.Flags |= TagSameUUID
	}
	if off+size+16 > j.body(block) {
		return false
	}
	b := block[off:]
	be.PutUint32(b, uint32(t.Block))
	if n == 0 {
		copy(b[size:size+16], j.Raw[0x30:0x40])
	}
	if size == 16 {
		be.PutUint32(b[4:], t.Flags)
		be.PutUint32(b[8:], uint32(t.Block>>32))
		be.PutUint32(b[12:], t.Sum)
		return true
	}
	be.PutUint16(b[6:], uint16(t.Flags))
	if j.Incompat&JournalIncompatCsumV2 != 0 {
		be.PutUint16(b[4:], uint16(t.Sum))
	}
	if j.Incompat&JournalIncompat64Bit != 0 {
		be.PutUint32(b[8:], uint32(t.Block>>32))
	}
	return true
}

// DataSum is the checksum of a block of a transaction as a tag stores it.
func (j *Journal) DataSum(sequence uint32, data []byte) uint32 {
	sum := Checksum(Checksum(j.Seed, be.AppendUint32(nil, sequence)), data)
	if j.Incompat&JournalIncompatCsumV2 != 0 && j.Incompat&JournalIncompatCsumV3 == 0 {
		sum &= 0xFFFF
	}
	return sum
}

// TailOK verifies a descriptor or revoke block, SealTail makes it verify.
func (j *Journal) TailOK(block []byte) bool {
	return !j.Summed() || be.Uint32(block[len(block)-4:]) == j.tailSum(block)
}

func (j *Journal) SealTail(block []byte) {
	if j.Summed() {
		be.PutUint32(block[len(block)-4:], j.tailSum(block))
	}
}

func (j *Journal) tailSum(block []byte) uint32 {
	return Checksum32(Checksum(j.Seed, block[:len(block)-4]), 0)
}

// CommitOK verifies a commit block, SealCommit makes it verify.
func (j *Journal) CommitOK(block []byte) bool {
	return !j.Summed() || be.Uint32(block[16:]) == j.commitSum(block)
}

func (j *Journal) SealCommit(block []byte) {
	if j.Summed() {
		be.PutUint32(block[16:], j.commitSum(block))
	}
}

func (j *Journal) commitSum(block []byte) uint32 {
	sum := Checksum32(Checksum(j.Seed, block[:16]), 0)
	return Checksum(sum, block[20:])
}

// CompatSum gives the checksum over a whole transaction that JournalCompatChecksum puts into its commit block.
func CompatSum(commit []byte) (sum uint32, ok bool) {
	return be.Uint32(commit[16:]), commit[12] == 1 && commit[13] == 4
}

// CRC32BE continues the checksum of JournalCompatChecksum.
func CRC32BE(crc uint32, b []byte) uint32 {
	for _, c := range b {
		crc = crc<<8 ^ crcBE[byte(crc>>24)^c]
	}
	return crc
}

var crcBE = func() (table [256]uint32) {
	for i := range table {
		crc := uint32(i) << 24
		for range 8 {
			carry := crc >> 31
			crc <<= 1
			if carry != 0 {
				crc ^= 0x04C11DB7
			}
		}
		table[i] = crc
	}
	return table
}()

// Revoked decodes a revoke block. Errors: ErrCorrupt.
func (j *Journal) Revoked(block []byte) (list []uint64, err error) {
	end := int(be.Uint32(block[12:]))
	if end < 16 || end > j.body(block) {
		return nil, corrupt("journal: revoke block of %d bytes", end)
	}
	for b := block[16:end]; ; {
		switch {
		case j.Incompat&JournalIncompat64Bit != 0 && len(b) >= 8:
			list, b = append(list, be.Uint64(b)), b[8:]
		case j.Incompat&JournalIncompat64Bit == 0 && len(b) >= 4:
			list, b = append(list, uint64(be.Uint32(b))), b[4:]
		default:
			return list, nil
		}
	}
}
