package write

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"banger"
	"banger/internal/ext4"
	"banger/internal/tree"
)

const (
	// At most so much is written at once: consecutive small files become one write. The buffer begins smaller, so that a
	// small disk costs no large one; then there are two, and one is written while the other is filled.
	firstBuffer, maxBuffer = 256 << 10, 1 << 20
	// readSize is the least room in the buffer that is worth reading a large file into.
	readSize = 256 << 10
	// minHole is how many zero blocks in a row become a hole within a file; a file of zeros is a hole whatever its size.
	minHole = 8
)

// output is the image file behind a buffer of consecutive blocks, and the allocator that hands these out: a pointer that
// only moves on, past what is reserved for metadata.
type output struct {
	ctx     context.Context
	file    *os.File
	written int64

	next     uint64 // the block to hand out
	end      uint64
	left     uint64 // blocks that can still be handed out
	reserved []span // what lies at next or behind it

	buf     []byte // blocks from first on, not written yet
	first   uint64
	writing chan error // of the other buffer, when it is being written
	spare   []byte     // the other buffer
}

func (o *output) writeAt(b []byte, block uint64) error {
	o.written += int64(len(b))
	_, err := o.file.WriteAt(b, int64(block)*blockSize)
	return err
}

// take hands out up to n consecutive blocks.
func (o *output) take(n uint64) (span, error) {
	for len(o.reserved) > 0 && o.next >= o.reserved[0].from {
		o.next = max(o.next, o.reserved[0].to)
		o.reserved = o.reserved[1:]
	}
	limit := o.end
	if len(o.reserved) > 0 {
		limit = o.reserved[0].from
	}
	if o.next >= limit {
		return span{}, full("blocks")
	}
	s := span{o.next, min(o.next+n, limit)}
	o.next = s.to
	o.left -= s.to - s.from
	return s, nil
}

// flush empties the buffer. A write of a large one goes on behind it, until the next flush or wait.
func (o *output) flush() error {
	if len(o.buf) == 0 {
		return nil
	}
	if err := errors.Join(o.ctx.Err(), o.wait()); err != nil {
		return err
	}
	if len(o.buf) < maxBuffer/2 {
		err := o.writeAt(o.buf, o.first)
		if len(o.buf) > cap(o.buf)/2 && cap(o.buf) < maxBuffer {
			o.buf = make([]byte, 0, min(4*cap(o.buf), maxBuffer))
		}
		o.buf = o.buf[:0]
		return err
	}
	if o.spare == nil {
		o.spare = make([]byte, 0, maxBuffer)
	}
	full, at := o.buf, o.first
	o.buf, o.spare = o.spare[:0], full
	o.written += int64(len(full))
	done := make(chan error, 1)
	o.writing = done
	go func() {
		_, err := o.file.WriteAt(full, int64(at)*blockSize)
		done <- err
	}()
	return nil
}

// wait waits for the write that goes on, if any.
func (o *output) wait() error {
	if o.writing == nil {
		return nil
	}
	err := <-o.writing
	o.writing = nil
	return err
}

// block hands out one block. Its memory is zero and valid until the next call.
func (o *output) block() (uint64, []byte, error) {
	s, err := o.take(1)
	if err != nil {
		return 0, nil, err
	}
	if err := o.follow(s.from); err != nil {
		return 0, nil, err
	}
	n := len(o.buf)
	o.buf = o.buf[:n+blockSize]
	clear(o.buf[n:])
	return s.from, o.buf[n:], nil
}

// follow makes block the next one behind the buffer, which has room for it then.
func (o *output) follow(block uint64) error {
	if o.first+uint64(len(o.buf)/blockSize) != block || len(o.buf) == cap(o.buf) {
		if err := o.flush(); err != nil {
			return err
		}
	}
	if len(o.buf) == 0 {
		o.first = block
	}
	return nil
}

// content streams a file's data.
func (o *output) content(n *node, e tree.Entry) error {
	if e.Size == 0 {
		return nil
	}
	holes, ok := e.Content.(tree.HoleReader)
	if !ok {
		return o.run(n, e, e.Content, 0, e.Size)
	}
	if blocksOf(e.Size) > o.left {
		var need uint64
		err := ranges(holes, e.Size, func(start, end int64) error {
			need += blocksOf(end - start)
			return nil
		})
		if err == nil && need > o.left {
			err = full("blocks")
		}
		if err != nil {
			return err
		}
	}
	return ranges(holes, e.Size, func(start, end int64) error {
		return o.run(n, e, io.NewSectionReader(holes, start, end-start), start, end)
	})
}

func blocksOf(size int64) uint64 { return uint64(size+blockSize-1) / blockSize }

// ranges gives the ranges of blocks that hold a file's data, the last one up to its size.
func ranges(holes tree.HoleReader, size int64, give func(start, end int64) error) error {
	for off := int64(0); off < size; {
		start, end, err := holes.NextData(off)
		if err == io.EOF {
			return nil
		}
		if err == nil && (start < off || end <= start) {
			err = banger.Invalidf("data after %d is said to be from %d to %d", off, start, end)
		}
		if err != nil {
			return err
		}
		start, end = max(start/blockSize*blockSize, off), min((end+blockSize-1)/blockSize*blockSize, size)
		if start >= size {
			return nil
		}
		if err := give(start, end); err != nil {
			return err
		}
		off = end
	}
	return nil
}

// run streams the bytes [from, to) of a file; from is at a block's start. It reads behind the buffered blocks, so that
// data is moved only where zeros or reserved blocks interrupt it.
func (o *output) run(n *node, e tree.Entry, r io.Reader, from, to int64) error {
	for from < to {
		if room := cap(o.buf) - len(o.buf); room < readSize && int64(room) < to-from {
			if err := o.flush(); err != nil {
				return err
			}
		}
		used := len(o.buf)
		size := int(min(to-from, int64(cap(o.buf)-used)))
		blocks := (size + blockSize - 1) / blockSize * blockSize
		data := o.buf[used : used+blocks]
		if got, err := io.ReadFull(r, data[:size]); err != nil {
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				return banger.Invalidf("content ends after %d of %d bytes: %w", from+int64(got), e.Size, io.ErrUnexpectedEOF)
			}
			return err
		}
		clear(data[size:])
		if err := o.keep(n, data, uint32(from/blockSize), e.Size); err != nil {
			return err
		}
		from += int64(size)
	}
	return nil
}

// keep gives blocks to what is not zero of data, which lies behind the buffered blocks.
func (o *output) keep(n *node, data []byte, logical uint32, size int64) error {
	for len(data) > 0 {
		zeros, filled := runs(data)
		if zeros < minHole*blockSize && int64(zeros) < size {
			filled += zeros
		} else {
			data = data[zeros:]
			logical += uint32(zeros / blockSize)
		}
		if err := o.place(n, data[:filled], logical); err != nil {
			return err
		}
		data = data[filled:]
		logical += uint32(filled / blockSize)
	}
	return nil
}

var zeroBlock [blockSize]byte

// runs measures the zeros that data begins with and what follows up to the next hole, in whole blocks.
func runs(data []byte) (zeros, filled int) {
	isZero := func(at int) bool { return bytes.Equal(data[at:at+blockSize], zeroBlock[:]) }
	for zeros < len(data) && isZero(zeros) {
		zeros += blockSize
	}
	hole := 0
	for at := zeros; at < len(data); at += blockSize {
		if !isZero(at) {
			hole = 0
			continue
		}
		if hole += blockSize; hole == minHole*blockSize {
			return zeros, at + blockSize - hole - zeros
		}
	}
	return zeros, len(data) - zeros
}

// place buffers data, which lies somewhere behind the buffered blocks, and maps its blocks.
func (o *output) place(n *node, data []byte, logical uint32) error {
	for len(data) > 0 {
		s, err := o.take(uint64(len(data) / blockSize))
		if err != nil {
			return err
		}
		if err := o.follow(s.from); err != nil {
			return err
		}
		size := int(s.to-s.from) * blockSize
		used := len(o.buf)
		o.buf = o.buf[:used+size]
		if &o.buf[used] != &data[0] {
			copy(o.buf[used:], data[:size])
		}
		n.addBlocks(logical, s)
		logical += uint32(s.to - s.from)
		data = data[size:]
	}
	return nil
}

// text stores a few bytes in blocks of their own.
func (o *output) text(n *node, s string) error {
	for logical := uint32(0); len(s) > 0; logical++ {
		at, b, err := o.block()
		if err != nil {
			return err
		}
		n.addBlocks(logical, span{at, at + 1})
		s = s[copy(b, s):]
	}
	return nil
}

// extentTree writes what does not fit the inode; afterwards the inode's part is in n.more.root.
func (o *output) extentTree(n *node, seed uint32) error {
	if n.more == nil || len(n.more.extents) < inodeExtents {
		return nil
	}
	list, room := n.extents(), ext4.NodeRoom(blockSize)
	var children []ext4.ChildNode
	for len(list) > 0 {
		leaf := list[:min(room, len(list))]
		list = list[len(leaf):]
		at, b, err := o.block()
		if err != nil {
			return err
		}
		ext4.EncodeExtents(b, leaf)
		ext4.SealExtents(b, seed)
		children = append(children, ext4.ChildNode{Logical: leaf[0].Logical, Block: at})
		n.blocks++
	}
	depth := 1
	for ; len(children) > inodeExtents; depth++ {
		var up []ext4.ChildNode
		for len(children) > 0 {
			part := children[:min(room, len(children))]
			children = children[len(part):]
			at, b, err := o.block()
			if err != nil {
				return err
			}
			ext4.EncodeIndexes(b, depth, part)
			ext4.SealExtents(b, seed)
			up = append(up, ext4.ChildNode{Logical: part[0].Logical, Block: at})
			n.blocks++
		}
		children = up
	}
	n.more.root = make([]byte, inodeBlockSize)
	ext4.EncodeIndexes(n.more.root, depth, children)
	return nil
}
