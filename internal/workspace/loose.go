package workspace

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zlib"

	"banger/internal/tree"
)

// loosePack gathers a guest's loose objects in one pack (git's documentation, "pack format"): a file for each would take the host longer
// than all the rest.
type loosePack struct {
	file  *os.File // in the copy's objects/pack
	w     *bufio.Writer
	at    int64 // where the next object begins
	count uint32
	in    io.ReadCloser // inflates; its buffers are used again
	out   *zlib.Writer
}

// packHeader is the bytes before the first object: "PACK", the version, and how many objects there are.
const packHeader = 12

func newLoosePack(dir string) (*loosePack, error) {
	file, err := os.CreateTemp(filepath.Join(dir, "objects", "pack"), "loose-*.pack")
	if err != nil {
		return nil, err
	}
	p := &loosePack{file: file, w: bufio.NewWriterSize(file, 256<<10), at: packHeader}
	if p.out, err = zlib.NewWriterLevel(p.w, zlib.BestSpeed); err == nil {
		_, err = p.w.Write(make([]byte, packHeader))
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return p, nil
}

// kinds of objects as a pack numbers them.
var kinds = map[string]byte{"commit": 1, "tree": 2, "blob": 3, "tag": 4}

// errDamaged is for a loose object that is not what its name says.
var errDamaged = errors.New("damaged object")

// add takes a loose object called id, whose content has limit bytes at the most. It reads r to the end. Errors: errDamaged, and the pack is
// as before; those of r and of the pack's file.
func (p *loosePack) add(id string, r io.Reader, limit int64) error {
	in := &failing{r: r}
	got, err := p.object(in, limit)
	if _, drainErr := io.Copy(io.Discard, in); drainErr != nil || in.err != nil {
		return errors.Join(drainErr, in.err)
	}
	switch {
	case err == nil && got == id:
		p.count++
		p.at, err = p.file.Seek(0, io.SeekCurrent)
		p.at += int64(p.w.Buffered())
		return err
	case err == nil, errors.Is(err, errDamaged):
		return errors.Join(errDamaged, p.cut())
	}
	return err
}

// object appends what a loose object has and gives the SHA-1 of that.
func (p *loosePack) object(r io.Reader, limit int64) (string, error) {
	damaged := func(err error) error { return fmt.Errorf("%w: %w", errDamaged, err) }
	var err error
	if p.in == nil {
		p.in, err = zlib.NewReader(r)
	} else {
		err = p.in.(zlib.Resetter).Reset(r, nil)
	}
	if err != nil {
		p.in = nil
		return "", damaged(err)
	}
	inflated := bufio.NewReader(p.in)
	head, err := inflated.ReadString(0)
	if err != nil {
		return "", damaged(err)
	}
	name, digits, _ := strings.Cut(strings.TrimSuffix(head, "\x00"), " ")
	size, err := strconv.ParseInt(digits, 10, 64)
	if kinds[name] == 0 || err != nil || size < 0 || size > limit {
		return "", damaged(fmt.Errorf("head %.40q", head))
	}
	if _, err := p.w.Write(objectHead(kinds[name], size)); err != nil {
		return "", err
	}
	h, content := sha1.New(), &failing{r: inflated}
	io.WriteString(h, head)
	p.out.Reset(p.w)
	n, err := io.Copy(io.MultiWriter(h, p.out), io.LimitReader(content, size+1))
	switch {
	case content.err != nil:
		return "", damaged(content.err)
	case err != nil:
		return "", err
	case n != size:
		return "", damaged(fmt.Errorf("%d bytes of %d", n, size))
	}
	return hex.EncodeToString(h.Sum(nil)), p.out.Close()
}

// objectHead is the kind and size before an object: 4 bits, then 7 in each byte.
func objectHead(kind byte, size int64) (head []byte) {
	b := kind<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		head = append(head, b|0x80)
		b = byte(size & 0x7f)
	}
	return append(head, b)
}

// cut takes away what follows the last whole object.
func (p *loosePack) cut() error {
	err := p.w.Flush()
	if err == nil {
		err = p.file.Truncate(p.at)
	}
	if err == nil {
		_, err = p.file.Seek(p.at, io.SeekStart)
	}
	return err
}

// end completes the pack and has git read it. Without an object there is none.
func (p *loosePack) end(ctx context.Context, g git) error {
	if p.count == 0 {
		return os.Remove(p.file.Name())
	}
	head := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), p.count)
	h := sha1.New()
	err := p.w.Flush()
	if err == nil {
		_, err = p.file.WriteAt(head, 0)
	}
	if err == nil {
		_, err = io.Copy(h, io.NewSectionReader(p.file, 0, p.at))
	}
	if err == nil {
		_, err = p.file.WriteAt(h.Sum(nil), p.at)
	}
	if err != nil {
		return err
	}
	return indexPack(ctx, g, nil, p.at, p.file.Name())
}

// takeLoose adds a loose object to a pack; a damaged one is left out and told.
func (c *Copy) takeLoose(p *loosePack, e tree.Entry) error {
	id := strings.Replace(e.Path, "/", "", 1)
	err := p.add(id, orEmpty(e.Content), maxObject)
	if errors.Is(err, errDamaged) {
		c.note("a damaged object %s was left out", id)
		return nil
	}
	return err
}

// loosePaths gives where objects lie below objects.
func loosePaths(ids []string) []string {
	paths := make([]string, len(ids))
	for i, id := range ids {
		paths[i] = id[:2] + "/" + id[2:]
	}
	return paths
}
