package workspace

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/transfer"
	"banger/internal/tree"
)

// Shipment is a plan with everything that it needs beside the work tree. It must be closed.
type Shipment struct {
	plan   Plan
	prefix string // where the root lies below the root of the whole; "" for the whole
	dir    string // of our own, for packs
	pack   pack
	subs   []*Shipment
	eol    map[string]string // core.autocrlf and core.eol

	clean map[string]bool // paths whose content went out as the index says
	sent  Manifest
	now   time.Time
}

// Prepare makes the packs of a plan. have are commits that the guest has.
func (p Plan) Prepare(ctx context.Context, have []string) (*Shipment, error) {
	dir, err := os.MkdirTemp("", "banger-workspace-")
	if err != nil {
		return nil, spaceIn(os.TempDir(), err)
	}
	s, err := p.prepare(ctx, dir, "", have)
	if err != nil {
		return nil, errors.Join(spaceIn(dir, err), os.RemoveAll(dir))
	}
	return s, nil
}

func (p Plan) prepare(ctx context.Context, dir, prefix string, have []string) (*Shipment, error) {
	s := &Shipment{plan: p, prefix: prefix, dir: dir, clean: map[string]bool{}, sent: Manifest{}, now: time.Now()}
	for _, e := range p.entries {
		if e.Skip {
			s.sent[e.Path] = Sent{Mode: e.Mode, ID: e.ID, Absent: true}
		}
	}
	if p.Directory {
		return s, nil
	}
	index := filepath.Join(dir, "index")
	if err := writeIndex(index, p.entries); err != nil {
		return nil, err
	}
	var tips []string
	if p.Start != "" {
		tips = append(tips, p.Start)
	}
	if p.Repo.Upstream != "" && p.Repo.Upstream != p.Start {
		tips = append(tips, p.Repo.Upstream)
	}
	depth := DefaultDepth
	if p.Options.FullHistory {
		depth = 0
	}
	var err error
	if s.pack, err = p.Repo.makePack(ctx, dir, index, tips, have, depth); err != nil {
		return nil, err
	}
	if s.eol, err = p.Repo.endsOfLines(ctx); err != nil {
		return nil, err
	}
	for i, sub := range p.Subs {
		subDir := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(subDir, 0o700); err != nil {
			return nil, err
		}
		sub.Plan.Readonly = p.Readonly
		ship, err := sub.Plan.prepare(ctx, subDir, path.Join(prefix, sub.Path), nil)
		if err != nil {
			return nil, fmt.Errorf("submodule %s: %w", sub.Path, err)
		}
		s.subs = append(s.subs, ship)
	}
	return s, nil
}

func writeIndex(name string, entries []indexEntry) error {
	b, err := encodeIndex(slices.Clone(entries))
	if err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o600)
}

// Close removes what Prepare made.
func (s *Shipment) Close() error { return os.RemoveAll(s.dir) }

var endsOfLines = map[string][]string{"core.autocrlf": {"true", "false", "input"}, "core.eol": {"lf", "crlf", "native"}}

// endsOfLines gives the settings by which the work tree's files differ from what the index names.
func (r *Repo) endsOfLines(ctx context.Context) (map[string]string, error) {
	settings := map[string]string{}
	text, err := (git{dir: r.Root}).ask(ctx, "config", "--get-regexp", `^core\.(autocrlf|eol)$`)
	for line := range strings.Lines(text) { // the last one counts
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		delete(settings, key)
		if slices.Contains(endsOfLines[key], value) {
			settings[key] = value
		}
	}
	return settings, err
}

// Entries yields all that travels, in an order that a tar may have: the root, files, then the .git directory. A file that has gone
// since the plan was made is left out.
func (s *Shipment) Entries(ctx context.Context) tree.Source {
	own := tree.Concat(tree.Of(tree.Directory(".", 0o755)), s.files(ctx), s.emptyDirs())
	if !s.plan.Directory {
		own = tree.Concat(own, s.gitDir())
	}
	sources := []tree.Source{own}
	for _, sub := range s.subs {
		sources = append(sources, tree.Under(sub.plan.subPath(s), sub.Entries(ctx)))
	}
	return s.modes(tree.Concat(sources...))
}

// modes takes permission to write from what is to have none. root of the guest can write all the same.
func (s *Shipment) modes(src tree.Source) tree.Source {
	if !s.plan.Readonly {
		return src
	}
	return tree.WithModeMask(src, 0o7555)
}

// subPath is where a submodule's root lies below the root of s.
func (p Plan) subPath(s *Shipment) string {
	for _, sub := range s.plan.Subs {
		if sub.Plan.Repo.Root == p.Repo.Root {
			return sub.Path
		}
	}
	return ""
}

// files yields the work tree's files, or those of the commit that the plan begins at.
func (s *Shipment) files(ctx context.Context) tree.Source {
	if s.plan.from {
		return tree.Filter(blobs(ctx, git{dir: s.plan.Repo.Root}, s.plan.files, s.now), s.note)
	}
	return func(yield func(tree.Entry, error) bool) {
		w, err := transfer.OpenDir(s.plan.Repo.Root)
		if err != nil {
			yield(tree.Entry{}, err)
			return
		}
		defer w.Close()
		seen := map[string]bool{}
		for _, f := range s.plan.files {
			if ctx.Err() != nil {
				yield(tree.Entry{}, context.Cause(ctx))
				return
			}
			for _, dir := range parents(f.path, seen) {
				if !yield(tree.Directory(dir, w.DirMode(dir)), nil) {
					return
				}
			}
			if !s.send(w, f, yield) {
				return
			}
		}
	}
}

// note remembers a file of a commit that goes out.
func (s *Shipment) note(e *tree.Entry) bool {
	if e.Kind == tree.Dir {
		return true
	}
	i, _ := slices.BinarySearchFunc(s.plan.files, e.Path, func(f file, name string) int { return strings.Compare(f.path, name) })
	f := s.plan.files[i]
	s.clean[f.path] = true
	s.sent[f.path] = Sent{Mode: f.mode, ID: f.id, Size: e.Size, MTime: s.now.UnixNano()}
	return true
}

// tick is more than what two changes of a file may lie apart and leave it with the same time.
const tick = 50 * time.Millisecond

// send yields one file; false ends the stream.
func (s *Shipment) send(w *transfer.Dir, f file, yield func(tree.Entry, error) bool) bool {
	opened := time.Now()
	e, open, err := w.Entry(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		return yield(tree.Entry{}, err)
	}
	sum := newBlobHash(e.Size)
	if e.Kind == tree.Symlink {
		sum = newBlobHash(int64(len(e.Link)))
		io.WriteString(sum, e.Link)
	}
	if open != nil {
		defer open.Close()
		e.Content = io.TeeReader(e.Content, sum)
	}
	modified := e.ModTime.UnixNano()
	if f.mode != 0 { // a whole second needs no record of its own in the stream; git looks at the content
		e.ModTime = e.ModTime.Truncate(time.Second)
	}
	if !yield(e, nil) {
		return false
	}
	id := hex.EncodeToString(sum.Sum(nil))
	s.clean[f.path] = f.mode == modeOf(e) && f.stage == '0' && id == f.id
	s.sent[f.path] = Sent{Mode: modeOf(e), ID: id, Size: e.Size, MTime: modified, Ignored: f.ignored, Fresh: opened.UnixNano()-modified < int64(tick)}
	return true
}

// modeOf is what an index calls the mode of a file.
func modeOf(e tree.Entry) uint32 {
	switch {
	case e.Kind == tree.Symlink:
		return modeSymlink
	case e.Mode&0o100 != 0:
		return modeExecutable
	}
	return modeFile
}

// newBlobHash gives what computes the object id of a blob of size bytes.
func newBlobHash(size int64) hash.Hash {
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", size)
	return h
}

// blobID is the object id of content as a blob.
func blobID(content []byte) string {
	h := newBlobHash(int64(len(content)))
	h.Write(content)
	return hex.EncodeToString(h.Sum(nil))
}

// blobs yields files as git stores them, with the directories above them.
func blobs(ctx context.Context, g git, files []file, at time.Time) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		r, w := io.Pipe()
		defer r.Close()
		var ids strings.Builder
		for _, f := range files {
			fmt.Fprintln(&ids, f.id)
		}
		go func() {
			w.CloseWithError(g.run(ctx, strings.NewReader(ids.String()), w, "cat-file", "--batch", "--buffer"))
		}()
		in, seen := bufio.NewReaderSize(r, 64<<10), map[string]bool{}
		for _, f := range files {
			for _, dir := range parents(f.path, seen) {
				if !yield(tree.Directory(dir, 0o755), nil) {
					return
				}
			}
			e, err := readBlob(f, in, at)
			if !yield(e, err) || err != nil {
				return
			}
			_, err = io.Copy(io.Discard, orEmpty(e.Content)) // what the taker left
			if err == nil {
				_, err = in.Discard(1)
			}
			if err != nil {
				yield(tree.Entry{}, err)
				return
			}
		}
	}
}

// parents gives the directories above name that seen does not hold yet, the outermost first, and notes them there.
func parents(name string, seen map[string]bool) (dirs []string) {
	for i, r := range name {
		if r == '/' && !seen[name[:i]] {
			seen[name[:i]] = true
			dirs = append(dirs, name[:i])
		}
	}
	return dirs
}

func orEmpty(r io.Reader) io.Reader {
	if r == nil {
		return bytes.NewReader(nil)
	}
	return r
}

// readBlob reads the head of one object of git cat-file --batch: "<id> blob <size>". After the entry's content there is a newline.
func readBlob(f file, in *bufio.Reader, at time.Time) (tree.Entry, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return tree.Entry{}, err
	}
	var id, kind string
	var size int64
	if n, _ := fmt.Sscanf(line, "%s %s %d", &id, &kind, &size); n != 3 || id != f.id || kind != "blob" {
		return tree.Entry{}, fmt.Errorf("%s: the repository lacks its content (git says %.100q)", f.path, strings.TrimSpace(line))
	}
	e := tree.Entry{Path: f.path, Kind: tree.File, Mode: f.mode & 0o777, Size: size, ModTime: at, Content: io.LimitReader(in, size)}
	if f.mode != modeSymlink {
		return e, nil
	}
	if size > unix.PathMax {
		return tree.Entry{}, fmt.Errorf("%s: a symbolic link of %d bytes", f.path, size)
	}
	link := make([]byte, size)
	_, err = io.ReadFull(in, link)
	return tree.Entry{Path: f.path, Kind: tree.Symlink, Mode: 0o777, Link: string(link), ModTime: at}, err
}

// Index is the index for the guest, once all entries have been sent: what git remembers of the files is what stats tells by path,
// for those whose content is what the index names. The others git will look at itself.
func (s *Shipment) Index(stats map[string]stat) ([]byte, error) {
	entries := slices.Clone(s.plan.entries)
	for i, e := range entries {
		if st, ok := stats[e.Path]; ok && s.clean[e.Path] {
			entries[i].Stat = st
		}
	}
	return encodeIndex(entries)
}
