package check_test

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/ext4"
	"banger/internal/ext4/check"
	"banger/internal/ext4/read"
	"banger/internal/testenv"
)

var le = binary.LittleEndian

// surgeon changes metadata of an image and mends the checksums, so that nothing but the change is wrong.
type surgeon struct {
	t  *testing.T
	f  *os.File
	fs *read.FS
	sb *ext4.Superblock
}

func operate(t *testing.T, image string) *surgeon {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, _ := f.Stat()
	fsys, err := read.Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return &surgeon{t, f, fsys, fsys.Super()}
}

func (s *surgeon) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// block changes a block as it is.
func (s *surgeon) block(n uint64, change func(b []byte)) {
	s.t.Helper()
	b := make([]byte, s.sb.BlockSize)
	s.must(s.fs.ReadBytes(b, int64(n)*int64(len(b))))
	change(b)
	_, err := s.f.WriteAt(b, int64(n)*int64(len(b)))
	s.must(err)
	s.fs.DropCaches()
}

func (s *surgeon) super(change func(b []byte)) {
	b := make([]byte, ext4.SuperSize)
	s.must(s.fs.ReadBytes(b, ext4.SuperOffset))
	change(b)
	le.PutUint32(b[0x3FC:], ext4.Checksum(^uint32(0), b[:0x3FC]))
	_, err := s.f.WriteAt(b, ext4.SuperOffset)
	s.must(err)
}

func (s *surgeon) group(group uint32, change func(ext4.Group)) {
	block, off := s.sb.DescLocation(group)
	s.block(block, func(b []byte) {
		g := ext4.Group(b[off : off+s.sb.DescSize])
		change(g)
		g.SetSum(s.sb.GroupSum(group, g))
	})
}

// bitmap changes the bitmap of blocks or inodes of group 0.
func (s *surgeon) bitmap(inodes bool, change func(b []byte)) {
	g, err := s.fs.Group(0)
	s.must(err)
	place, length := g.BlockBitmap(), s.sb.BlocksPerGroup/8
	if inodes {
		place, length = g.InodeBitmap(), s.sb.InodesPerGroup/8
	}
	var sum uint32
	s.block(place, func(b []byte) {
		change(b)
		sum = s.sb.BitmapSum(b[:length])
	})
	s.group(0, func(g ext4.Group) {
		if inodes {
			g.SetInodeBitmapSum(sum)
		} else {
			g.SetBlockBitmapSum(sum)
		}
	})
}

func (s *surgeon) node(path string) *read.Node {
	s.t.Helper()
	n, err := s.fs.Lookup(path, false)
	s.must(err)
	return n
}

func (s *surgeon) inode(path string, change func(ext4.Inode)) {
	s.inodeNumber(s.node(path).Ino(), change)
}

func (s *surgeon) inodeNumber(ino uint32, change func(ext4.Inode)) {
	block, off, err := s.fs.InodeLocation(ino)
	s.must(err)
	s.block(block, func(b []byte) {
		raw := ext4.Inode(b[off : off+s.sb.InodeSize])
		change(raw)
		s.sb.Seal(ino, raw)
	})
}

// dirBlock changes a block of a directory; index tells that it is one of its index.
func (s *surgeon) dirBlock(path string, logical int, index bool, change func(b []byte)) {
	n := s.node(path)
	data, _, err := n.Layout()
	s.must(err)
	place := data[0].Physical + uint64(logical)
	seed := s.sb.InodeSeed(n.Ino(), n.Raw().Generation())
	s.block(place, func(b []byte) {
		change(b)
		if !index {
			ext4.SealDirBlock(b, seed)
			return
		}
		x, err := ext4.DecodeIndex(b, logical == 0)
		s.must(err)
		x.Seal(seed)
	})
}

// entry finds a name in a block of a directory.
func (s *surgeon) entry(b []byte, name string) ext4.Dirent {
	for off := 0; off < len(b)-ext4.TailSize; {
		d, err := ext4.NextDirent(b, off, true)
		s.must(err)
		if string(d.Name) == name {
			return d
		}
		off += d.Len
	}
	s.t.Fatalf("no %q", name)
	return ext4.Dirent{}
}

// good is an image with what is damaged below.
func good(t *testing.T) string {
	t.Helper()
	seed := t.TempDir()
	script := `cd "$1" && mkdir -p sub/dir many empty && echo content > file && ln file hard && echo other > other && seq 20000 > data && seq 20000 > data2 &&
		ln -s target link && for i in $(seq 400); do : > "many/a name that is long enough to need blocks $i"; done &&
		for i in $(seq 0 2 200); do printf x | dd of=fragmented bs=4096 seek=$i conv=notrunc status=none; done &&
		: > attributes`
	testenv.Run(t, "sh", "-c", script, "sh", seed)
	if err := unix.Lsetxattr(filepath.Join(seed, "attributes"), "user.long", make([]byte, 1000), 0); err != nil {
		t.Skipf("needs extended attributes in %s: %v", seed, err)
	}
	image := testenv.Mke2fs(t, 64<<20, "-t", "ext4", "-b", "4096", "-d", seed)
	if err := exec.Command("e2fsck", "-fyD", image).Run(); err != nil && err.Error() != "exit status 1" {
		t.Fatal(err)
	}
	testenv.CheckExt4(t, image)
	return image
}

var damages = []struct {
	class check.Class
	what  string
	wound func(*surgeon)
}{
	{check.Super, "magic of its own", func(s *surgeon) { s.super(func(b []byte) { le.PutUint32(b[0x20:], 7) }) }},
	{check.Super, "errors recorded", func(s *surgeon) { s.super(func(b []byte) { b[0x3A] |= 2 }) }},
	{check.Super, "broken list of orphans", func(s *surgeon) { s.super(func(b []byte) { le.PutUint32(b[0xE8:], 1<<30) }) }},
	{check.FreeCount, "total of free blocks", func(s *surgeon) { s.super(func(b []byte) { b[0xC]++ }) }},
	{check.FreeCount, "free blocks of a group", func(s *surgeon) { s.group(0, func(g ext4.Group) { g.SetFreeBlocks(g.FreeBlocks() + 1) }) }},
	{check.FreeCount, "free inodes of a group", func(s *surgeon) { s.group(0, func(g ext4.Group) { g.SetFreeInodes(g.FreeInodes() - 1) }) }},
	{check.FreeCount, "directories of a group", func(s *surgeon) { s.group(0, func(g ext4.Group) { g.SetUsedDirs(g.UsedDirs() + 3) }) }},
	{check.Group, "bitmap outside", func(s *surgeon) { s.group(0, func(g ext4.Group) { le.PutUint32(g, 1<<30) }) }},
	{check.Twice, "bitmap over descriptors", func(s *surgeon) { s.group(0, func(g ext4.Group) { le.PutUint32(g, 1) }) }},
	{check.Checksum, "group descriptor", func(s *surgeon) { s.block(1, func(b []byte) { b[0x1E]++ }) }},
	{check.Zeroed, "inode table", func(s *surgeon) {
		s.group(0, func(g ext4.Group) { g.SetFlags(g.Flags() &^ ext4.GroupITableZero) })
	}},
	{check.BlockBitmap, "block in use marked free", func(s *surgeon) { s.bitmap(false, func(b []byte) { b[0] &^= 4 }) }},
	{check.BlockBitmap, "free block marked", func(s *surgeon) { s.bitmap(false, func(b []byte) { b[1900] |= 1 }) }},
	{check.BlockBitmap, "end not set", func(s *surgeon) { s.bitmap(false, func(b []byte) { b[4095] = 0x7F }) }},
	{check.InodeBitmap, "inode in use marked free", func(s *surgeon) { s.bitmap(true, func(b []byte) { b[1] &^= 8 }) }},
	{check.InodeBitmap, "free inode marked", func(s *surgeon) { s.bitmap(true, func(b []byte) { b[1900] |= 1 }) }},
	{check.Checksum, "bitmap", func(s *surgeon) { s.group(0, func(g ext4.Group) { g.SetBlockBitmapSum(7) }) }},
	{check.Checksum, "inode", func(s *surgeon) {
		block, off, _ := s.fs.InodeLocation(s.node("file").Ino())
		s.block(block, func(b []byte) { b[off+0x7C]++ })
	}},
	{check.Inode, "mode", func(s *surgeon) { s.inode("file", func(i ext4.Inode) { i.SetMode(0x3000) }) }},
	{check.Inode, "deleted", func(s *surgeon) { s.inode("file", func(i ext4.Inode) { i.SetDeletedAt(1 << 30) }) }},
	{check.Links, "too many", func(s *surgeon) { s.inode("file", func(i ext4.Inode) { i.SetLinks(3) }) }},
	{check.Links, "of a directory", func(s *surgeon) { s.inode("sub", func(i ext4.Inode) { i.SetLinks(2) }) }},
	{check.Mapping, "extent outside", func(s *surgeon) { s.inode("file", func(i ext4.Inode) { le.PutUint32(i.Block()[12+8:], 1<<30) }) }},
	{check.Mapping, "magic of extents", func(s *surgeon) { s.inode("file", func(i ext4.Inode) { i.Block()[0] = 1 }) }},
	{check.Mapping, "extents out of order", func(s *surgeon) {
		_, meta, err := s.node("fragmented").Layout()
		s.must(err)
		s.block(meta[0], func(b []byte) {
			le.PutUint32(b[12+12:], 0)
			n := s.node("fragmented")
			ext4.SealExtents(b, s.sb.InodeSeed(n.Ino(), n.Raw().Generation()))
		})
	}},
	{check.Mapping, "checksum of extents", func(s *surgeon) {
		_, meta, err := s.node("fragmented").Layout()
		s.must(err)
		s.block(meta[0], func(b []byte) { b[4095]++ })
	}},
	{check.Twice, "two files on one block", func(s *surgeon) {
		theirs := le.Uint32(s.node("other").Raw().Block()[12+8:])
		s.inode("file", func(i ext4.Inode) { le.PutUint32(i.Block()[12+8:], theirs) })
	}},
	{check.Sectors, "too few", func(s *surgeon) { s.inode("data", func(i ext4.Inode) { i.SetSectors(8) }) }},
	{check.Size, "smaller than the blocks", func(s *surgeon) { s.inode("data", func(i ext4.Inode) { i.SetSize(10) }) }},
	{check.Size, "of a directory", func(s *surgeon) { s.inode("many", func(i ext4.Inode) { i.SetSize(4096) }) }},
	{check.Size, "of a link", func(s *surgeon) { s.inode("link", func(i ext4.Inode) { i.SetSize(0) }) }},
	{check.Entry, "inode that is not in use", func(s *surgeon) {
		s.dirBlock(".", 0, false, func(b []byte) { le.PutUint32(b[s.entry(b, "other").Offset:], 5000) })
	}},
	{check.Entry, "slash", func(s *surgeon) { s.dirBlock(".", 0, false, func(b []byte) { s.entry(b, "other").Name[1] = '/' }) }},
	{check.Entry, "twice", func(s *surgeon) { s.dirBlock(".", 0, false, func(b []byte) { copy(s.entry(b, "hard").Name, "file") }) }},
	{check.Entry, "second name of a directory", func(s *surgeon) {
		s.dirBlock(".", 0, false, func(b []byte) { le.PutUint32(b[s.entry(b, "empty").Offset:], s.node("sub").Ino()) })
	}},
	{check.Type, "file as directory", func(s *surgeon) {
		s.dirBlock(".", 0, false, func(b []byte) { b[s.entry(b, "file").Offset+7] = ext4.DirentDir })
	}},
	{check.Directory, "length of an entry", func(s *surgeon) {
		s.dirBlock(".", 0, false, func(b []byte) { le.PutUint16(b[s.entry(b, "file").Offset+4:], 8) })
	}},
	{check.Directory, "no dot", func(s *surgeon) { s.dirBlock("sub", 0, false, func(b []byte) { b[8] = 'x' }) }},
	{check.Directory, "wrong parent", func(s *surgeon) {
		s.dirBlock("sub/dir", 0, false, func(b []byte) { le.PutUint32(b[12:], ext4.RootInode) })
	}},
	{check.Checksum, "directory", func(s *surgeon) {
		data, _, _ := s.node(".").Layout()
		s.block(data[0].Physical, func(b []byte) { b[4095]++ })
	}},
	{check.Unreachable, "name removed", func(s *surgeon) {
		s.dirBlock(".", 0, false, func(b []byte) { le.PutUint32(b[s.entry(b, "other").Offset:], 0) })
	}},
	{check.Unreachable, "ring of directories", func(s *surgeon) {
		sub, dir := s.node("sub").Ino(), s.node("sub/dir").Ino()
		s.dirBlock("sub/dir", 0, false, func(b []byte) { // its own parent now lies below it
			le.PutUint16(b[12+4:], 12)
			at := b[24:]
			le.PutUint32(at, sub)
			le.PutUint16(at[4:], uint16(4096-24-ext4.TailSize))
			at[6], at[7] = 1, ext4.DirentDir
			at[8] = 'x'
		})
		s.dirBlock("sub", 0, false, func(b []byte) { le.PutUint32(b[12:], dir) })
		s.dirBlock(".", 0, false, func(b []byte) { le.PutUint32(b[s.entry(b, "sub").Offset:], 0) })
	}},
	{check.Index, "hash out of order", func(s *surgeon) { s.dirBlock("many", 0, true, func(b []byte) { le.PutUint32(b[32+8:], 0xFFFF0000) }) }},
	{check.Index, "limit", func(s *surgeon) { s.dirBlock("many", 0, true, func(b []byte) { le.PutUint16(b[32:], 400) }) }},
	{check.Index, "name in the wrong block", func(s *surgeon) { s.dirBlock("many", 0, true, func(b []byte) { le.PutUint32(b[32+8:], 2) }) }},
	{check.Index, "block missing", func(s *surgeon) {
		s.dirBlock("many", 0, true, func(b []byte) { le.PutUint16(b[34:], le.Uint16(b[34:])-1) })
	}},
	{check.Checksum, "index", func(s *surgeon) {
		data, _, _ := s.node("many").Layout()
		s.block(data[0].Physical, func(b []byte) { b[4095]++ })
	}},
	{check.Xattr, "references", func(s *surgeon) {
		place := s.node("attributes").Raw().XattrBlock()
		s.block(place, func(b []byte) {
			ext4.SetXattrRefs(b, 5)
			s.sb.SealXattrBlock(place, b)
		})
	}},
	{check.Xattr, "magic", func(s *surgeon) {
		place := s.node("attributes").Raw().XattrBlock()
		s.block(place, func(b []byte) {
			b[0] = 9
			s.sb.SealXattrBlock(place, b)
		})
	}},
	{check.Checksum, "attributes", func(s *surgeon) {
		s.block(s.node("attributes").Raw().XattrBlock(), func(b []byte) { b[16]++ })
	}},
	{check.Journal, "no superblock", func(s *surgeon) {
		_, blocks, err := s.fs.Journal()
		s.must(err)
		place, _ := blocks.At(0)
		s.block(place, func(b []byte) { b[0] = 0 })
	}},
	{check.Journal, "holds a transaction", func(s *surgeon) {
		_, blocks, err := s.fs.Journal()
		s.must(err)
		place, _ := blocks.At(0)
		s.block(place, func(b []byte) { b[0x1F] = 1 })
	}},
}

// notFaultsOfE2fsck are left alone by it when it may not write, or are no faults of a foreign image.
var notFaultsOfE2fsck = map[string]bool{"inode table": true, "errors recorded": true, "broken list of orphans": true}

// Every class of fault is found in an image that has it, and e2fsck objects to that image too.
func TestFindsDamage(t *testing.T) {
	image := good(t)
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[check.Class]bool{check.TooMany: true}
	for _, d := range damages {
		shown[d.class] = true
		t.Run(string(d.class)+" "+d.what, func(t *testing.T) {
			damaged := filepath.Join(t.TempDir(), "damaged")
			if err := os.WriteFile(damaged, data, 0o644); err != nil {
				t.Fatal(err)
			}
			d.wound(operate(t, damaged))
			faults := checkImage(t, damaged, check.Options{ZeroedTables: true})
			found := false
			for _, f := range faults {
				found = found || f.Class == d.class
			}
			if !found {
				t.Errorf("not found; faults: %v", faults)
			}
			out, err := exec.Command("e2fsck", "-fn", damaged).CombinedOutput()
			if err == nil && !strings.Contains(string(out), "? no") && !notFaultsOfE2fsck[d.what] {
				t.Errorf("e2fsck does not object:\n%s", out)
			}
		})
	}
	for _, class := range []check.Class{check.Super, check.Journal, check.Checksum, check.Group, check.Zeroed, check.Inode, check.Mapping, check.Twice, check.Sectors,
		check.Size, check.Xattr, check.Directory, check.Entry, check.Type, check.Index, check.Links, check.Unreachable, check.BlockBitmap, check.InodeBitmap, check.FreeCount} {
		if !shown[class] {
			t.Errorf("nothing shows that %q is found", class)
		}
	}
}
