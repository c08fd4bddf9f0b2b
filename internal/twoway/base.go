package twoway

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/atomicfile"
)

// Base is what both sides have agreed on last, by path, in a file of lines. It is rewritten when it is opened and grows until it is closed;
// the end of a line that a crash cut off is as if it had not been written.
type Base struct {
	file, lock *os.File
	states     map[string]State
	complete   bool // all paths have been agreed on once
	lines      bytes.Buffer
}

// baseHeader is the first line: whom the base is about.
type baseHeader struct {
	Version int    `json:"version"`
	Host    string `json:"host"`
	Guest   string `json:"guest"`
}

const baseVersion = 1

// baseLine is one of the others.
type baseLine struct {
	Path     []byte `json:"p,omitempty"`
	State    State  `json:"s,omitzero"` // none: nobody has the file any more
	Complete bool   `json:"complete,omitempty"`
}

// OpenBase opens the base at a path, or begins one. One that is about other directories begins anew. It must be closed.
// Errors: ErrConflict while another process has it open; ErrUnsupported for one of another version.
func OpenBase(path, host, guest string) (*Base, error) {
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, banger.SpaceError(err, path)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, &banger.Error{Kind: banger.ErrConflict, Op: "watch", Subject: guest, Err: errors.New("it is watched already"), Hint: "end the other banger workspace watch first"}
	}
	b := &Base{lock: lock, states: map[string]State{}}
	if err := b.open(path, baseHeader{baseVersion, host, guest}); err != nil {
		lock.Close()
		return nil, err
	}
	return b, nil
}

func (b *Base) open(path string, header baseHeader) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := b.load(old, header); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	b.line(header)
	for at, s := range b.states {
		b.line(baseLine{Path: []byte(at), State: s})
	}
	b.line(baseLine{Complete: b.complete})
	if err := atomicfile.Write(path, b.lines.Bytes(), 0o600); err != nil {
		return banger.SpaceError(err, path)
	}
	b.lines.Reset()
	b.file, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	return err
}

func (b *Base) load(text []byte, want baseHeader) error {
	r := bufio.NewReader(bytes.NewReader(text))
	first, err := r.ReadBytes('\n')
	if err != nil {
		return nil // it was never begun
	}
	var header baseHeader
	if json.Unmarshal(first, &header) != nil {
		return &banger.Error{Kind: banger.ErrCorrupt, Op: "read what was agreed on", Hint: "remove the file: files that differ are then kept on both sides"}
	}
	if header.Version != baseVersion {
		return &banger.Error{Kind: banger.ErrUnsupported, Op: "read what was agreed on", Err: fmt.Errorf("version %d, this banger knows %d", header.Version, baseVersion)}
	}
	if header != want {
		return nil
	}
	for {
		text, err := r.ReadBytes('\n')
		var l baseLine
		if err != nil || json.Unmarshal(text, &l) != nil { // a line that a crash cut off
			maps.DeleteFunc(b.states, func(_ string, s State) bool { return b.complete && s.Kind == None })
			return nil
		}
		if b.complete = b.complete || l.Complete; len(l.Path) > 0 {
			b.set(string(l.Path), l.State)
		}
	}
}

// New tells that nothing has been agreed on yet.
func (b *Base) New() bool { return len(b.states) == 0 && !b.complete }

// set keeps that a file is gone until all paths have been agreed on: till then a path without a state may be one that was sent before.
func (b *Base) set(at string, s State) {
	if s.Kind == None && b.complete {
		delete(b.states, at)
		return
	}
	b.states[at] = s
}

func (b *Base) line(v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // of types of ours
	}
	b.lines.Write(append(text, '\n'))
}

// agree notes that both sides have the same at a path. It is durable after the next save.
func (b *Base) agree(at string, s State) {
	if old, ok := b.states[at]; ok && old == s || !ok && s.Kind == None && b.complete {
		return
	}
	b.set(at, s)
	b.line(baseLine{Path: []byte(at), State: s})
}

// save makes what was agreed on durable.
func (b *Base) save() error {
	if b.lines.Len() == 0 {
		return nil
	}
	if _, err := b.file.Write(b.lines.Bytes()); err != nil {
		return banger.SpaceError(err, b.file.Name())
	}
	b.lines.Reset()
	return b.file.Sync()
}

// completed notes that all paths have been agreed on.
func (b *Base) completed() {
	if !b.complete {
		b.complete = true
		b.line(baseLine{Complete: true})
	}
}

// Close ends it; what is not saved is forgotten.
func (b *Base) Close() error { return errors.Join(b.file.Close(), b.lock.Close()) }
