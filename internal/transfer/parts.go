package transfer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"banger"
	"banger/internal/tree"
)

// Walk asks what lies below a directory: lines of [Node], in a stream.
type Walk struct {
	Path []byte   `json:"path"`           // absolute
	Skip [][]byte `json:"skip,omitempty"` // paths below it that are not gone into
}

// Read asks for files below a directory. After the request comes a stream with their paths, each ended by a NUL.
type Read struct {
	Path []byte `json:"path"` // absolute
}

// Remove asks for files below a directory to go, with directories that are empty then. After the request comes a stream as with [Read].
type Remove struct {
	Path []byte `json:"path"` // absolute
}

// Node is one thing in a file tree without its content.
type Node struct {
	Path  []byte    `json:"p"` // below the directory that was asked for
	Kind  tree.Kind `json:"k"`
	Mode  uint32    `json:"m"` // 07777
	UID   uint32    `json:"u,omitempty"`
	GID   uint32    `json:"g,omitempty"`
	Ino   uint64    `json:"i"`
	Size  int64     `json:"s,omitempty"`
	MTime int64     `json:"t"` // nanoseconds since 1970
	CTime int64     `json:"c"`
}

// maxNames bounds the bytes of all paths of one request.
const maxNames = 256 << 20

// Parts is a directory whose files are asked for by name: one of this machine ([Dir]), or of a VM that does not run.
type Parts interface {
	Walk(ctx context.Context, skip func(name string) bool, enter func(dev uint64) bool, yield func(Node) error) error
	Entry(name string) (tree.Entry, io.Closer, error)
}

// ServeParts answers a Walk or Read from files; r is what follows the request's line. It fails only before the answer.
func ServeParts(ctx context.Context, w io.Writer, r *bufio.Reader, req Request, files Parts, enter func(dev uint64) bool) error {
	if req.Walk != nil {
		return sendNodes(ctx, w, files, req.Walk.Skip, enter)
	}
	names, err := readNames(r)
	if err != nil {
		return err
	}
	_ = Send(w, Origin{Dir: true}, entries(ctx, files, names), nil) // the stream tells what went wrong
	return nil
}

func sendNodes(ctx context.Context, w io.Writer, files Parts, skip [][]byte, enter func(dev uint64) bool) error {
	skipped := map[string]bool{}
	for _, name := range skip {
		skipped[string(name)] = true
	}
	if err := writeLine(w, Answer{}); err != nil {
		return nil // a client that is gone needs no answer
	}
	out := newStreamWriter(w)
	buffered := bufio.NewWriterSize(out, maxFrame)
	var line []byte
	err := files.Walk(ctx, func(name string) bool { return skipped[name] }, enter, func(n Node) error {
		line = append(appendNode(line[:0], n), '\n')
		_, err := buffered.Write(line)
		return err
	})
	if err == nil {
		err = buffered.Flush()
	}
	last := end{}
	if err != nil {
		body := banger.EncodeError(describe(err, ""), "")
		last.Error = &body
	}
	_ = out.finish(last)
	return nil
}

// appendNode is json.Marshal without reflection: of a list of many files that takes a guest's processor most of the time.
func appendNode(b []byte, n Node) []byte {
	number := func(key string, value int64) { b = strconv.AppendInt(append(b, key...), value, 10) }
	b = append(b, `{"p":"`...)
	b = append(base64.StdEncoding.AppendEncode(b, n.Path), '"')
	number(`,"k":`, int64(n.Kind))
	number(`,"m":`, int64(n.Mode))
	if n.UID != 0 {
		number(`,"u":`, int64(n.UID))
	}
	if n.GID != 0 {
		number(`,"g":`, int64(n.GID))
	}
	b = strconv.AppendUint(append(b, `,"i":`...), n.Ino, 10)
	if n.Size != 0 {
		number(`,"s":`, n.Size)
	}
	number(`,"t":`, n.MTime)
	number(`,"c":`, n.CTime)
	return append(b, '}')
}

// entries yields what is there of names.
func entries(ctx context.Context, files Parts, names []string) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		for _, name := range names {
			if ctx.Err() != nil {
				yield(tree.Entry{}, context.Cause(ctx))
				return
			}
			if !give(files, name, yield) {
				return
			}
		}
	}
}

func give(files Parts, name string, yield func(tree.Entry, error) bool) bool {
	e, open, err := files.Entry(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, banger.ErrNotFound) {
		return true
	}
	if err != nil {
		yield(tree.Entry{}, fmt.Errorf("%.300q: %w", name, err))
		return false
	}
	if open != nil {
		defer open.Close()
	}
	return yield(e, nil)
}

// readNames reads a stream of paths.
func readNames(r *bufio.Reader) ([]string, error) {
	b, err := io.ReadAll(io.LimitReader(&streamReader{r: r}, maxNames+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxNames {
		return nil, banger.Invalidf("more than %d bytes of paths", maxNames)
	}
	var names []string
	for name := range strings.SplitSeq(string(b), "\x00") {
		if name == "" {
			continue
		}
		if !filepath.IsLocal(name) || path.Clean(name) != name || name == "." {
			return nil, banger.Invalidf("path %.300q: want one below the directory", name)
		}
		names = append(names, name)
	}
	return names, nil
}

// ReceiveNodes reads the answer to a Walk.
func ReceiveNodes(r io.Reader, yield func(Node) error) error {
	in := bufio.NewReaderSize(r, maxFrame)
	if _, err := readAnswer(in); err != nil {
		return err
	}
	lines := bufio.NewReaderSize(&streamReader{r: in}, maxFrame)
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		var n Node
		if err := json.Unmarshal(bytes.TrimSpace(line), &n); err != nil || !filepath.IsLocal(string(n.Path)) {
			return &banger.Error{Kind: banger.ErrCorrupt, Op: "list files", Err: fmt.Errorf("a line that is none: %.100q", line)}
		}
		if err := yield(n); err != nil {
			return err
		}
	}
}

// WriteRequest writes a Walk, Read or Remove with the paths that it is about.
func WriteRequest(w io.Writer, req Request, names []string) error {
	if err := writeLine(w, req); err != nil {
		return cutOff(err)
	}
	if req.Walk != nil {
		return nil
	}
	out := newStreamWriter(w)
	buffered := bufio.NewWriterSize(out, maxFrame)
	for _, name := range names {
		buffered.WriteString(name)
		buffered.WriteByte(0)
	}
	if err := buffered.Flush(); err != nil {
		return cutOff(err)
	}
	if err := out.finish(end{}); err != nil {
		return cutOff(err)
	}
	return nil
}

// ReadRequest reads the line that a connection begins with.
func ReadRequest(r *bufio.Reader) (req Request, err error) {
	if err = readLine(r, &req); err != nil {
		return req, err
	}
	set := 0
	for _, field := range []bool{req.Get != nil, req.Put != nil, req.Walk != nil, req.Read != nil, req.Remove != nil, req.Sync != nil, req.Watch != nil, req.Change != nil} {
		if field {
			set++
		}
	}
	if set != 1 {
		return req, banger.Invalidf("a request sets %d of its fields, want one", set)
	}
	return req, nil
}

// Dir is the directory that a Walk or Read is about.
func (r Request) Dir() string {
	if r.Walk != nil {
		return string(r.Walk.Path)
	}
	return string(r.Read.Path)
}

// remove answers a Remove.
func (s Server) remove(w io.Writer, r *bufio.Reader, req Remove) error {
	names, err := readNames(r)
	if err == nil {
		err = absolute(string(req.Path))
	}
	if err != nil {
		return err
	}
	dir, err := OpenDir(string(req.Path))
	if err != nil {
		return &banger.Error{Op: "remove from", Subject: string(req.Path), Err: describe(err, "")}
	}
	defer dir.Close()
	for _, name := range names {
		if err := dir.Remove(name); err != nil {
			return &banger.Error{Op: "remove from", Subject: string(req.Path), Err: describe(err, "")}
		}
	}
	return writeLine(w, Answer{Report: &Report{Entries: len(names)}})
}
