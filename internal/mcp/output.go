package mcp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"unicode/utf8"

	"banger"
)

const (
	maxKept    = 64 << 20 // bytes of one stream
	maxOutputs = 16
)

// capture keeps what a command writes, in a file that has no name.
type capture struct {
	mu    sync.Mutex
	f     *os.File
	total int64
}

func newCaptures() (stdout, stderr *capture, err error) {
	if stdout, err = newCapture(); err != nil {
		return nil, nil, err
	}
	if stderr, err = newCapture(); err != nil {
		stdout.close()
	}
	return stdout, stderr, err
}

func newCapture() (*capture, error) {
	f, err := os.CreateTemp("", "banger-mcp-")
	if err == nil {
		err = os.Remove(f.Name())
	}
	if err != nil {
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "keep output", Err: err}
	}
	return &capture{f: f}, nil
}

// Write takes everything, and keeps as much of it as it may.
func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if room := maxKept - c.total; room > 0 {
		if _, err := c.f.Write(p[:min(int64(len(p)), room)]); err != nil {
			return 0, err
		}
	}
	c.total += int64(len(p))
	return len(p), nil
}

func (c *capture) close() { c.f.Close() }

// size is how many bytes came, kept is how many of them there are.
func (c *capture) size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

func (c *capture) kept() int64 { return min(c.size(), maxKept) }

// read gives at most limit bytes, whole characters if it is text.
func (c *capture) read(offset int64, limit int) ([]byte, error) {
	b := make([]byte, max(0, min(int64(limit), c.kept()-offset)))
	n, err := c.f.ReadAt(b, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: "read output", Err: err}
	}
	b = b[:n]
	if offset+int64(n) < c.kept() {
		b = b[:wholeEnd(b)]
	}
	return b, nil
}

// wholeEnd is where a character that is cut off at the end of b begins, or the end of b.
func wholeEnd(b []byte) int {
	for i := 1; i < utf8.UTFMax && i < len(b); i++ {
		if start := len(b) - i; utf8.RuneStart(b[start]) {
			if !utf8.FullRune(b[start:]) {
				return start
			}
			break
		}
	}
	return len(b)
}

// show gives all, or the beginning and the end with a word about what is between.
func (c *capture) show(limit int, id, stream string) (string, error) {
	if c.size() <= int64(limit) {
		all, err := c.read(0, limit)
		return string(all), err
	}
	head, err := c.read(0, (limit+1)/2)
	if err != nil {
		return "", err
	}
	from := c.kept() - int64(limit/2)
	tail, err := c.read(from, limit/2)
	if err != nil {
		return "", err
	}
	for len(tail) > 0 && !utf8.RuneStart(tail[0]) && len(tail) > limit/2-utf8.UTFMax {
		tail, from = tail[1:], from+1
	}
	text := fmt.Sprintf("%s\n[%d bytes left out here: vm_output with output_id %q, stream %q, offset %d]\n%s", head, from-int64(len(head)), id, stream, len(head), tail)
	if lost := c.size() - c.kept(); lost > 0 {
		text += fmt.Sprintf("\n[%d more bytes were too much to be kept]", lost)
	}
	return text, nil
}

// outputs are what is kept of commands, the oldest first.
type outputs struct {
	mu   sync.Mutex
	last int
	list []kept
}

type kept struct {
	id       string
	captures [2]*capture // stdout, stderr
}

func (o *outputs) keep(stdout, stderr *capture) (id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last++
	id = "output-" + strconv.Itoa(o.last)
	o.list = append(o.list, kept{id, [2]*capture{stdout, stderr}})
	for len(o.list) > maxOutputs {
		o.drop()
	}
	return id
}

func (o *outputs) drop() {
	for _, c := range o.list[0].captures {
		c.close()
	}
	o.list = o.list[1:]
}

func (o *outputs) find(id string) ([2]*capture, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, k := range o.list {
		if k.id == id {
			return k.captures, true
		}
	}
	return [2]*capture{}, false
}

func (o *outputs) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.list) > 0 {
		o.drop()
	}
}
