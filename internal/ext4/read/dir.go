package read

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"banger"
	"banger/internal/ext4"
)

// Dirent is a name in a directory.
type Dirent struct {
	Name string // never empty, ".", ".." or with a slash or NUL; any other bytes
	Ino  uint32
	Type uint8 // ext4.DirentFile…; 0 when the file system does not record it
}

func (n *Node) hasTypes() bool { return n.fs.sb.Incompat&ext4.IncompatFiletype != 0 }

// Entries yields the names in a directory as they lie on disk, without "." and "..", up to the first error. Errors:
// ErrInvalid when the node is no directory, ErrCorrupt.
func (n *Node) Entries() iter.Seq2[Dirent, error] {
	return func(yield func(Dirent, error) bool) {
		stopped := false
		err := n.entries(func(d Dirent) error {
			if stopped = !yield(d, nil); stopped {
				return errEnough
			}
			return nil
		})
		if err != nil && !stopped {
			yield(Dirent{}, fmt.Errorf("directory inode %d: %w", n.ino, err))
		}
	}
}

func (n *Node) entries(visit func(Dirent) error) error {
	if !n.IsDir() {
		return banger.Invalidf("it is no directory")
	}
	if n.inline != nil {
		return n.inlineEntries(visit)
	}
	size := uint64(n.fs.sb.BlockSize)
	if n.raw.Size() == 0 || n.raw.Size()%size != 0 {
		return corrupt("size %d", n.raw.Size())
	}
	blocks, done := n.raw.Size()/size, uint64(0)
	err := n.walk(0, nil, func(e ext4.Extent) error {
		if uint64(e.Logical) != done || e.Unwritten {
			return corrupt("hole at block %d", done)
		}
		for i := uint64(0); i < uint64(e.Len) && done < blocks; i++ {
			b, err := n.fs.Block(e.Physical + i)
			if err != nil {
				return err
			}
			if err := n.VerifyDirBlock(b, done); err != nil {
				return err
			}
			if err := n.blockEntries(b, visit); err != nil {
				return err
			}
			done++
		}
		if done == blocks {
			return errEnough
		}
		return nil
	})
	if err == nil && done < blocks {
		return corrupt("%d blocks of %d", done, blocks)
	}
	return err
}

// blockEntries visits the entries in a block or a part of one.
func (n *Node) blockEntries(b []byte, visit func(Dirent) error) error {
	for off := 0; off < len(b); {
		d, err := ext4.NextDirent(b, off, n.hasTypes())
		if err != nil {
			return err
		}
		off += d.Len
		if d.Ino == 0 || string(d.Name) == "." || string(d.Name) == ".." {
			continue
		}
		if len(d.Name) == 0 || bytes.ContainsAny(d.Name, "/\x00") || d.Ino > n.fs.sb.InodesCount {
			return corrupt("entry %q of inode %d", d.Name, d.Ino)
		}
		if err := visit(Dirent{string(d.Name), d.Ino, d.Type}); err != nil {
			return err
		}
	}
	return nil
}

// inlineEntries: the parent's number, then entries in what is left of the 60 bytes, then entries in the attribute.
func (n *Node) inlineEntries(visit func(Dirent) error) error {
	if err := n.blockEntries(n.inline[4:60], visit); err != nil {
		return err
	}
	return n.blockEntries(n.inline[60:], visit)
}

// VerifyDirBlock checks the checksum of block number logical of a directory, be it one of names or of an index.
func (n *Node) VerifyDirBlock(b []byte, logical uint64) error {
	if !n.fs.sb.MetadataCsum() {
		return nil
	}
	indexed := n.raw.Flags()&ext4.InodeIndex != 0
	var got, want uint32
	switch {
	case indexed && logical == 0 || indexed && isIndexNode(b):
		x, err := ext4.DecodeIndex(b, logical == 0)
		if err != nil {
			return err
		}
		got, want = x.StoredSum(), x.Sum(n.seed())
	case ext4.HasDirTail(b):
		got, want = ext4.StoredDirBlockSum(b), ext4.DirBlockSum(b, n.seed())
	default:
		return corrupt("block %d: no checksum", logical)
	}
	if got != want {
		return corrupt("block %d: checksum %#x, computed %#x", logical, got, want)
	}
	return nil
}

// isIndexNode tells an inner block of an index, which to readers that know no index is one unused entry.
func isIndexNode(b []byte) bool {
	d, err := ext4.NextDirent(b, 0, true)
	return err == nil && d.Ino == 0 && d.Len == len(b)
}

// dirBlock gives a block of a directory and its place.
func (n *Node) dirBlock(logical uint32) (b []byte, place uint64, err error) {
	err = n.walk(uint64(logical), nil, func(e ext4.Extent) error {
		if e.Logical <= logical {
			place = e.Physical + uint64(logical-e.Logical)
		}
		return errEnough
	})
	if err != nil {
		return nil, 0, err
	}
	if place == 0 {
		return nil, 0, corrupt("inode %d: directory block %d is a hole", n.ino, logical)
	}
	b, err = n.fs.Block(place)
	return b, place, err
}

// Child finds a name in a directory. ok is false when it is not there.
func (n *Node) Child(name string) (d Dirent, ok bool, err error) {
	d, err = n.child(name)
	if errors.Is(err, fs.ErrNotExist) {
		return d, false, nil
	}
	return d, err == nil, err
}

// child finds a name. Errors: fs.ErrNotExist through notFound.
func (n *Node) child(name string) (Dirent, error) {
	n.fs.mu.Lock()
	names, cached := n.fs.directories[n.ino]
	n.fs.mu.Unlock()
	if !cached {
		var found Dirent
		var err error
		if names, found, err = n.index(name); err != nil {
			return Dirent{}, err
		}
		if names == nil {
			if found.Ino == 0 {
				return Dirent{}, errNotExist
			}
			return found, nil
		}
	}
	if d, ok := names[name]; ok {
		return d, nil
	}
	return Dirent{}, errNotExist
}

// index reads the whole directory into the cache; when it is too large for that, names is nil and found what was asked for.
func (n *Node) index(name string) (names map[string]Dirent, found Dirent, err error) {
	names = map[string]Dirent{}
	for d, err := range n.Entries() {
		if err != nil {
			return nil, Dirent{}, err
		}
		if d.Name == name {
			found = d
		}
		if names != nil {
			names[d.Name] = d
		}
		if len(names) > cachedNames {
			names = nil
		}
	}
	if names == nil {
		return nil, found, nil
	}
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	if n.fs.names+len(names) > cachedNames {
		n.fs.directories, n.fs.names = map[uint32]map[string]Dirent{}, 0
	}
	n.fs.directories[n.ino] = names
	n.fs.names += len(names) + 1
	return names, found, nil
}

var _ io.ReaderAt = (*Node)(nil)
