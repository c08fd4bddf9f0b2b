// Package read opens ext2, ext3 and ext4 file systems that lie in any io.ReaderAt and reads all there is: names, content,
// holes, attributes. It never writes: when the journal holds changes that the file system does not yet, they are applied
// in memory.
//
// Every byte may come from a guest: whatever an image holds, calls end, stay within bounds and memory in proportion to
// the image. What is wrong is an error of kind ErrCorrupt, what is not known one of kind ErrUnsupported, by name.
//
// Three levels: [FS] as io/fs sees it, [Node] for what io/fs lacks, and blocks, groups and inodes as they lie on disk.
package read

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"banger"
	"banger/internal/ext4"
)

// readable are the features that need no refusal. Others of the kind "incompat" are refused.
const readable = ext4.IncompatFiletype | ext4.IncompatRecover | ext4.IncompatMetaBG | ext4.IncompatExtents | ext4.Incompat64Bit |
	ext4.IncompatMMP | ext4.IncompatFlexBG | ext4.IncompatEAInode | ext4.IncompatCsumSeed | ext4.IncompatLargeDir | ext4.IncompatInlineData |
	ext4.IncompatCasefold

// FS is an open file system. It is safe for concurrent use when its io.ReaderAt is.
type FS struct {
	r    io.ReaderAt
	size int64
	sb   *ext4.Superblock
	log  map[uint64]logged // blocks whose newest content lies in the journal
	last uint32            // transaction in the journal
	over map[uint64][]byte // blocks that an editor changed

	mu          sync.Mutex
	cache       map[uint64][]byte // metadata blocks; never changed once in here
	order       []uint64          // of arrival in cache, a ring
	next        int
	directories map[uint32]map[string]Dirent
	names       int // in directories
}

const (
	cacheBytes  = 4 << 20
	cachedNames = 1 << 17
)

// Open reads the superblock and, when it needs recovery, the journal of the file system in the first size bytes of r.
// Errors: ErrUnsupported says what r is instead, or names a feature; ErrCorrupt.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	f := &FS{r: r, size: size}
	f.DropCaches()
	head := make([]byte, min(max(size, 0), identifyBytes))
	if err := f.readFull(head, 0); err != nil {
		return nil, err
	}
	if len(head) < ext4.SuperOffset+ext4.SuperSize || !ext4.HasMagic(head[ext4.SuperOffset:]) {
		return nil, notExt4(head, size)
	}
	var err error
	if f.sb, err = decodeSuper(head[ext4.SuperOffset:], size); err != nil {
		return nil, err
	}
	if f.sb.Incompat&ext4.IncompatRecover == 0 {
		return f, nil
	}
	if err := f.replay(); err != nil {
		return nil, fmt.Errorf("recover journal: %w", err)
	}
	f.DropCaches()
	if len(f.log) == 0 {
		return f, nil
	}
	if err := f.ReadBytes(head[:ext4.SuperSize], ext4.SuperOffset); err != nil {
		return nil, err
	}
	f.sb, err = decodeSuper(head[:ext4.SuperSize], size)
	return f, err
}

func decodeSuper(b []byte, size int64) (*ext4.Superblock, error) {
	sb, err := ext4.DecodeSuper(b)
	if sb != nil {
		if unknown := sb.Incompat &^ readable; unknown != 0 {
			return nil, unsupported("file system feature %s", strings.Join(ext4.IncompatNames(unknown), ", "))
		}
		if sb.ROCompat&ext4.ROCompatBigalloc != 0 {
			return nil, unsupported("file system feature bigalloc")
		}
	}
	if err != nil {
		return nil, err
	}
	if sb.BlocksCount > uint64(size)/uint64(sb.BlockSize) {
		return nil, corrupt("truncated: the file system has %d blocks of %d bytes, the image %d bytes", sb.BlocksCount, sb.BlockSize, size)
	}
	return sb, nil
}

// Super gives the superblock, after recovery.
func (f *FS) Super() *ext4.Superblock { return f.sb }

// NeedsRecovery tells that the journal held changes that the file system itself has not.
func (f *FS) NeedsRecovery() bool { return f.sb.Incompat&ext4.IncompatRecover != 0 }

// DropCaches forgets what was read. It must be called after the bytes under the file system have changed.
func (f *FS) DropCaches() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cache, f.order, f.next = map[uint64][]byte{}, nil, 0
	f.directories, f.names = map[uint32]map[string]Dirent{}, 0
}

// readFull reads from the image itself, without the journal.
func (f *FS) readFull(p []byte, off int64) error {
	if off < 0 || int64(len(p)) > f.size-off {
		return corrupt("read of %d bytes at %d: the image has %d", len(p), off, f.size)
	}
	n, err := f.r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return corrupt("truncated: the image ends at %d", off+int64(n))
	}
	return fmt.Errorf("read image: %w", err)
}

// ReadBytes fills p from offset off of the file system, as it is after recovery.
func (f *FS) ReadBytes(p []byte, off int64) error {
	if len(f.log) == 0 && len(f.over) == 0 {
		return f.readFull(p, off)
	}
	size := int64(f.sb.BlockSize)
	for len(p) > 0 {
		block, in := uint64(off/size), off%size
		run, at := min(int64(len(p)), size-in), off
		if b, ok := f.over[block]; ok {
			copy(p, b[in:])
			p, off = p[run:], off+run
			continue
		}
		l, inLog := f.log[block]
		if inLog {
			at = int64(l.block)*size + in
		}
		for !inLog && run < int64(len(p)) { // as much at once as lies where it belongs
			if block++; f.elsewhere(block) {
				break
			}
			run = min(int64(len(p)), run+size)
		}
		if err := f.readFull(p[:run], at); err != nil {
			return err
		}
		if l.escaped {
			l.unescape(p[:run], in)
		}
		p, off = p[run:], off+run
	}
	return nil
}

// elsewhere tells that a block is not read from its own place.
func (f *FS) elsewhere(block uint64) bool {
	if _, ok := f.log[block]; ok {
		return true
	}
	_, ok := f.over[block]
	return ok
}

// Overlay lays changed blocks over the file system: an editor adds to them and changes them as it goes on, and tells of
// changed names with Renamed. An FS with an overlay is not safe for concurrent use.
func (f *FS) Overlay(blocks map[uint64][]byte) { f.over = blocks }

// Renamed tells that a name in a directory now stands for d; for nothing when d.Ino is 0.
func (f *FS) Renamed(dir uint32, name string, d Dirent) {
	names, ok := f.directories[dir]
	switch {
	case !ok:
	case d.Ino == 0:
		delete(names, name)
	default:
		names[name] = d
	}
}

// Forget drops what is remembered of a directory that is no more.
func (f *FS) Forget(dir uint32) {
	f.names -= len(f.directories[dir])
	delete(f.directories, dir)
}

// Block gives a block of metadata, after recovery. Callers must not change it.
func (f *FS) Block(n uint64) ([]byte, error) {
	if n >= f.sb.BlocksCount {
		return nil, corrupt("block %d of %d", n, f.sb.BlocksCount)
	}
	if b, ok := f.over[n]; ok {
		return b, nil
	}
	f.mu.Lock()
	b, ok := f.cache[n]
	f.mu.Unlock()
	if ok {
		return b, nil
	}
	b = make([]byte, f.sb.BlockSize)
	if err := f.ReadBytes(b, int64(n)*int64(f.sb.BlockSize)); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.cache[n]; ok {
		return b, nil
	}
	if room := cacheBytes / f.sb.BlockSize; len(f.order) < room {
		f.order = append(f.order, n)
	} else {
		delete(f.cache, f.order[f.next])
		f.order[f.next] = n
		f.next = (f.next + 1) % room
	}
	f.cache[n] = b
	return b, nil
}

// Group gives the descriptor of a group, its checksum verified. Callers must not change it.
func (f *FS) Group(group uint32) (ext4.Group, error) {
	g, err := f.RawGroup(group)
	if err != nil {
		return nil, err
	}
	if got, want := g.Sum(), f.sb.GroupSum(group, g); f.sb.GroupCsum() && got != want {
		return nil, corrupt("group %d: checksum %#x, computed %#x", group, got, want)
	}
	return g, nil
}

// RawGroup gives a descriptor unverified.
func (f *FS) RawGroup(group uint32) (ext4.Group, error) {
	if group >= f.sb.Groups {
		return nil, corrupt("group %d of %d", group, f.sb.Groups)
	}
	block, off := f.sb.DescLocation(group)
	b, err := f.Block(block)
	if err != nil {
		return nil, fmt.Errorf("group %d: %w", group, err)
	}
	return ext4.Group(b[off : off+f.sb.DescSize]), nil
}

// InodeLocation gives the block and the offset in it of an inode.
func (f *FS) InodeLocation(ino uint32) (block uint64, off int, err error) {
	if ino == 0 || ino > f.sb.InodesCount {
		return 0, 0, corrupt("inode %d of %d", ino, f.sb.InodesCount)
	}
	g, err := f.Group((ino - 1) / f.sb.InodesPerGroup)
	if err != nil {
		return 0, 0, err
	}
	at := int64((ino-1)%f.sb.InodesPerGroup) * int64(f.sb.InodeSize)
	return g.InodeTable() + uint64(at)/uint64(f.sb.BlockSize), int(at % int64(f.sb.BlockSize)), nil
}

// RawInode gives an inode unverified. Callers must not change it.
func (f *FS) RawInode(ino uint32) (ext4.Inode, error) {
	block, off, err := f.InodeLocation(ino)
	if err != nil {
		return nil, err
	}
	b, err := f.Block(block)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", ino, err)
	}
	return ext4.Inode(b[off : off+f.sb.InodeSize]), nil
}

func corrupt(format string, args ...any) error {
	return &banger.Error{Kind: banger.ErrCorrupt, Err: fmt.Errorf(format, args...)}
}

func unsupported(format string, args ...any) error {
	return &banger.Error{Kind: banger.ErrUnsupported, Err: fmt.Errorf(format, args...)}
}
