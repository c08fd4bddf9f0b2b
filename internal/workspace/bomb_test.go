package workspace

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/transfer"
	"banger/internal/tree"
)

// guestPack makes a pack (git's documentation, "pack format").
type guestPack struct {
	bytes.Buffer
}

func (p *guestPack) begin(objects uint32) {
	p.WriteString("PACK")
	binary.Write(p, binary.BigEndian, uint32(2))
	binary.Write(p, binary.BigEndian, objects)
}

// object adds one: kind 3 is a blob, 7 a difference to the object base.
func (p *guestPack) object(kind byte, base, content []byte) {
	size := len(content)
	head := kind<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		p.WriteByte(head | 0x80)
		head = byte(size & 0x7f)
	}
	p.WriteByte(head)
	p.Write(base)
	z := zlib.NewWriter(p)
	z.Write(content)
	z.Close()
}

func (p *guestPack) end() []byte {
	sum := sha1.Sum(p.Bytes())
	p.Write(sum[:])
	return p.Bytes()
}

// deltaBomb unfolds a blob of 64 KiB to so many GiB, by telling again and again to copy it.
func deltaBomb(gib int) []byte {
	base := bytes.Repeat([]byte("bomb"), 16<<10)
	id, _ := hex.DecodeString(blobID(base))
	delta := binary.AppendUvarint(nil, uint64(len(base)))
	delta = binary.AppendUvarint(delta, uint64(gib)<<30)
	delta = append(delta, bytes.Repeat([]byte{0x80}, gib<<14)...) // all of 64 KiB from the begin: no bytes for either number
	p := &guestPack{}
	p.begin(2)
	p.object(3, nil, base)
	p.object(7, id, delta)
	return p.end()
}

// TestBombs has packs and objects of few bytes that want a great deal of the host: each is refused soon.
func TestBombs(t *testing.T) {
	many := &guestPack{}
	many.begin(1<<32 - 1)
	many.object(3, nil, []byte("one"))
	for name, pack := range map[string][]byte{
		"a difference of 8 GiB": deltaBomb(8),
		"objects without end":   many.end(),
		"nothing":               nil,
		"cut off":               deltaBomb(1)[:100],
	} {
		t.Run(name, func(t *testing.T) {
			host := newRepo(t)
			commit(t, host, "c")
			guest, record := sent(t, host, Options{})
			writeFile(t, filepath.Join(guest, ".git/objects/pack/pack-"+strings.Repeat("b", 40)+".pack"), string(pack))
			dir := t.TempDir()
			c, err := Fetch(t.Context(), local(nil), guest, dir, record.Origin())
			if !errors.Is(err, banger.ErrCorrupt) {
				t.Errorf("Fetch() = %v, %v", c, err)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

// TestByteCaps has a guest that tells of more than is taken: nothing of it is read.
func TestByteCaps(t *testing.T) {
	host := newRepo(t)
	writeFile(t, filepath.Join(host, "a"), "1")
	commit(t, host, "c")
	guest, record := sent(t, host, Options{})
	whole := local(nil)
	for name, grow := range map[string]func(req transfer.Walk, n *transfer.Node){
		"objects": func(req transfer.Walk, n *transfer.Node) {
			if strings.HasSuffix(string(req.Path), "/objects") {
				n.Size = maxObjects + 1
			}
		},
		"changed files": func(req transfer.Walk, n *transfer.Node) {
			if string(n.Path) == "a" {
				n.Size = maxChanged + 5
			}
		},
	} {
		lies := Guest{Ask: func(ctx context.Context, req transfer.Request, names []string) (io.ReadCloser, error) {
			answer, err := whole.Ask(ctx, req, names)
			if err != nil || req.Walk == nil {
				return answer, err
			}
			defer answer.Close()
			var nodes []transfer.Node
			if err := transfer.ReceiveNodes(answer, func(n transfer.Node) error {
				grow(*req.Walk, &n)
				nodes = append(nodes, n)
				return nil
			}); err != nil {
				return nil, err
			}
			r, w := io.Pipe()
			go func() {
				w.CloseWithError(transfer.ServeParts(ctx, w, nil, req, told(nodes), nil))
			}()
			return r, nil
		}}
		if _, err := Fetch(t.Context(), lies, guest, t.TempDir(), record.Origin()); !errors.Is(err, banger.ErrRefused) {
			t.Errorf("%s: Fetch() = %v", name, err)
		}
	}
}

// told is a directory that is what somebody says.
type told []transfer.Node

func (list told) Walk(_ context.Context, _ func(string) bool, _ func(uint64) bool, yield func(transfer.Node) error) error {
	for _, n := range list {
		if err := yield(n); err != nil {
			return err
		}
	}
	return nil
}

func (told) Entry(string) (tree.Entry, io.Closer, error) { return tree.Entry{}, nil, os.ErrNotExist }
