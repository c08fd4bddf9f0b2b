package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"banger"
	"banger/internal/proc"
	"banger/internal/transfer"
	"banger/internal/tree"
)

// Change is a path of a guest's work tree that is not as its HEAD says.
type Change struct {
	Path string `json:"path"` // below the root
	What string `json:"what"` // "added", "modified", "deleted"
	Sent bool   `json:"sent"` // it is as it went in: the host has it
}

// Changes is what a guest's work tree has that no commit of it has.
type Changes struct {
	Tracked        []Change `json:"tracked"`         // sorted by path
	Untracked      []Change `json:"untracked"`       // neither tracked nor ignored, sorted
	UntrackedBytes int64    `json:"untracked_bytes"` // content of all untracked files
	Staged         bool     `json:"staged"`          // the index differs from HEAD
}

// blobRef is a file's content and mode as a tree names them.
type blobRef struct {
	mode uint32
	id   string
}

// workState is what is found out about a work tree, step by step.
type workState struct {
	head, index map[string]blobRef
	now         map[string]blobRef // content on the disk, as far as it is known
	raw         map[string]string  // object ids of files that are stored in another form than they have
	unknown     []string           // tracked paths whose content must be read
	untracked   []string
	all         map[string]node // whatever lies in the work tree, nested repositories too
	ignores     []string        // .gitignore files
}

// readChanges compares the guest's work tree with its HEAD and makes commits of what differs.
func (c *Copy) readChanges(ctx context.Context, guest Guest, root string) error {
	n := len(c.index)
	w := &workState{head: make(map[string]blobRef, n), index: make(map[string]blobRef, n), now: make(map[string]blobRef, n), raw: map[string]string{}, all: make(map[string]node, n)}
	c.state = w
	if err := c.readHead(ctx, w); err != nil {
		return err
	}
	if err := c.walk(ctx, guest, root, w); err != nil {
		return err
	}
	if err := c.dropIgnored(ctx, guest, root, w); err != nil {
		return err
	}
	for _, name := range w.untracked {
		node := w.all[name]
		c.Changes.UntrackedBytes += node.Size
		sent, ok := c.origin.Sent[name]
		c.Changes.Untracked = append(c.Changes.Untracked, Change{name, "untracked", ok && sent.Size == node.Size && sent.MTime == node.MTime && sent.Mode == node.gitMode()})
	}
	read := slices.Clone(w.unknown)
	var changed int64
	for _, name := range read {
		if changed += w.all[name].Size; changed > maxChanged {
			return &banger.Error{Kind: banger.ErrRefused, Op: "changed files", Err: fmt.Errorf("they have more than %s", banger.FormatSize(maxChanged)), Hint: "copy them out: banger vm cp"}
		}
	}
	if c.origin.MaxUntracked > 0 {
		if c.Changes.UntrackedBytes > c.origin.MaxUntracked {
			return &banger.Error{Kind: banger.ErrRefused, Op: "untracked files", Err: fmt.Errorf("they have %s, more than %s", banger.FormatSize(c.Changes.UntrackedBytes), banger.FormatSize(c.origin.MaxUntracked)),
				Hint: "let .gitignore name what is not worth keeping, or copy it out: banger vm cp"}
		}
		read = append(read, w.untracked...)
	}
	return c.store(ctx, guest, root, w, read)
}

// readHead lists the tree of HEAD and the index. A HEAD whose commit is not there counts as none.
func (c *Copy) readHead(ctx context.Context, w *workState) error {
	if c.refs.head != "" && slices.Contains(c.lacking, c.refs.head) {
		c.note("HEAD is %s, which the guest does not have: all files count as new", c.refs.head)
		c.refs.head = ""
	}
	if c.refs.head != "" {
		if err := c.g.each(ctx, func(entry string) error {
			if f, err := parseTreeEntry(entry); err == nil {
				if e := c.entry(f.path); e != nil && e.ID == f.id { // as most are: one text in memory instead of two
					f.path, f.id = e.Path, e.ID
				}
				w.head[f.path] = blobRef{f.mode, f.id}
			}
			return nil
		}, "ls-tree", "-r", "-z", "--full-tree", c.refs.head); err != nil {
			return err
		}
	}
	for _, e := range c.index {
		if e.Stage <= 1 || w.index[e.Path].id == "" {
			w.index[e.Path] = blobRef{e.Mode, e.ID}
		}
	}
	if maps.Equal(w.head, w.index) { // nothing is staged: one list in memory instead of two
		w.head = w.index
	}
	return nil
}

// find gives where a path is in the index, the first stage of a conflict.
func (c *Copy) find(name string) (at int, found bool) {
	return slices.BinarySearchFunc(c.index, name, func(e indexEntry, name string) int { return strings.Compare(e.Path, name) })
}

// entry finds a path in the index, the last stage of a conflict; nil is for none.
func (c *Copy) entry(name string) *indexEntry {
	at, found := c.find(name)
	if !found {
		return nil
	}
	for at+1 < len(c.index) && c.index[at+1].Path == name {
		at++
	}
	return &c.index[at]
}

// walk looks at the work tree.
func (c *Copy) walk(ctx context.Context, guest Guest, root string, w *workState) error {
	var names []string
	for node, err := range guest.walk(ctx, root, ".git", transfer.ChangeStaging) {
		if err != nil {
			return err
		}
		if node.path == transfer.ChangeStaging {
			continue
		}
		if e := c.entry(node.path); e != nil {
			node.path = e.Path // one text in memory instead of two
		}
		w.all[node.path] = node
		if nested, ok := strings.CutSuffix(node.path, "/.git"); ok {
			c.Nested = append(c.Nested, nested)
		}
		if node.gitMode() != 0 && node.path != ".git" {
			names = append(names, node.path)
		}
	}
	slices.Sort(names)
	nested := setOf(c.Nested)
	for _, name := range slices.Compact(names) { // a guest may say a thing twice
		if inside(nested, name) {
			continue
		}
		node, e := w.all[name], c.entry(name)
		_, inHead := w.head[name]
		if err := checkPath(name); err != nil {
			c.note("left out: %v", err)
			continue
		}
		switch {
		case e != nil && node.unchanged(*e, c.written):
			w.now[name] = blobRef{e.Mode, e.ID}
		case e != nil || inHead:
			w.unknown = append(w.unknown, name)
		default:
			w.untracked = append(w.untracked, name)
		}
		if filepath.Base(name) == ".gitignore" && node.Kind == tree.File && node.Size <= maxExclude && len(w.ignores) < maxIgnores {
			w.ignores = append(w.ignores, name)
		}
	}
	for i, e := range c.index { // sparse checkouts leave files out, submodules are looked at by themselves
		if i+1 < len(c.index) && c.index[i+1].Path == e.Path {
			continue // another stage of a conflict
		}
		if node, there := w.all[e.Path]; e.Skip && (!there || node.gitMode() == 0) || e.Mode == modeSubmodule {
			w.now[e.Path] = blobRef{e.Mode, e.ID}
		}
	}
	return nil
}

func (c *Copy) inNested(name string) bool { return inside(setOf(c.Nested), name) }

// inside tells whether a path is one of dirs or lies below one.
func inside(dirs map[string]bool, name string) bool {
	if len(dirs) == 0 {
		return false
	}
	for ; name != "."; name = path.Dir(name) {
		if dirs[name] {
			return true
		}
	}
	return false
}

// dropIgnored takes the ignored files out of the untracked ones. git decides, in a work tree that has the guest's .gitignore
// files and nothing else.
func (c *Copy) dropIgnored(ctx context.Context, guest Guest, root string, w *workState) error {
	if len(w.untracked) == 0 {
		return nil
	}
	dir := filepath.Join(c.dir, "ignores")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	in, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer in.Close()
	slices.Sort(w.ignores)
	for e, err := range guest.read(ctx, root, w.ignores) {
		if err != nil {
			return err
		}
		text, err := io.ReadAll(io.LimitReader(orEmpty(e.Content), maxExclude))
		if err != nil {
			return err
		}
		if e.Kind != tree.File || !slices.Contains(w.ignores, e.Path) {
			continue
		}
		if err := errors.Join(in.MkdirAll(filepath.Dir(e.Path), 0o700), in.WriteFile(e.Path, text, 0o600)); err != nil {
			return err
		}
	}
	var out bytes.Buffer
	g := git{dir: dir, env: append(slices.Clone(c.g.env), "GIT_WORK_TREE="+dir)}
	err = g.run(ctx, strings.NewReader(strings.Join(w.untracked, "\x00")+"\x00"), &out, "-c", "core.bare=false", "-c", "core.excludesFile=/dev/null",
		"check-ignore", "--no-index", "--stdin", "-z")
	if exit, ok := errors.AsType[*proc.ExitError](err); ok && exit.Status == 1 {
		return nil // none is ignored
	}
	if err != nil {
		return err
	}
	ignored := map[string]bool{}
	for name := range strings.SplitSeq(out.String(), "\x00") {
		ignored[name] = true
	}
	w.untracked = slices.DeleteFunc(w.untracked, func(name string) bool { return ignored[name] })
	return nil
}

// store reads what is not known yet into the copy and makes the commits.
func (c *Copy) store(ctx context.Context, guest Guest, root string, w *workState, read []string) error {
	convert, err := c.newConverter(ctx, w, read)
	if err != nil {
		return err
	}
	im := newImporter(ctx, c.g)
	for e, err := range guest.read(ctx, root, read) {
		if err == nil {
			var ref blobRef
			var raw string
			if ref, raw, err = im.blob(e, convert); err == nil && ref.mode != 0 {
				w.now[e.Path], w.raw[e.Path] = ref, raw
			}
		}
		if err != nil {
			return errors.Join(err, im.abort())
		}
	}
	staged, err := c.stagedBlobs(ctx, w)
	if err != nil {
		return errors.Join(err, im.abort())
	}
	c.compare(w)
	if c.Changes.Staged || len(c.Changes.Tracked) > 0 || len(c.Changes.Untracked) > 0 && c.origin.MaxUntracked > 0 {
		c.writeCommits(im, w, staged)
	}
	if err := im.end(); err != nil {
		return fmt.Errorf("keep the work tree's changes: %w", err)
	}
	return c.readCommits(ctx)
}

// stagedBlobs gives the paths of the index that differ from HEAD, without those whose content is not there.
func (c *Copy) stagedBlobs(ctx context.Context, w *workState) (map[string]blobRef, error) {
	differ := map[string]blobRef{}
	var ids []string
	for name, ref := range w.index {
		if ref != w.head[name] && checkPath(name) == nil {
			differ[name] = ref
			if ref.mode != modeSubmodule {
				ids = append(ids, ref.id)
			}
		}
	}
	lacking, err := c.missing(ctx, ids)
	gone := setOf(lacking)
	maps.DeleteFunc(differ, func(_ string, ref blobRef) bool { return gone[ref.id] })
	return differ, err
}

// compare lists what differs from HEAD.
func (c *Copy) compare(w *workState) {
	tracked := slices.Collect(maps.Keys(w.head))
	for name, ref := range w.index {
		was, inHead := w.head[name]
		if !inHead {
			tracked = append(tracked, name)
		}
		c.Changes.Staged = c.Changes.Staged || ref != was
	}
	for name := range w.head {
		_, inIndex := w.index[name]
		c.Changes.Staged = c.Changes.Staged || !inIndex && len(c.index) > 0
	}
	slices.Sort(tracked)
	for _, name := range tracked {
		was, inHead := w.head[name]
		is, there := w.now[name]
		what := ""
		switch {
		case !inHead && there:
			what = "added"
		case inHead && !there && !c.inNested(name):
			what = "deleted"
		case inHead && there && was != is:
			what = "modified"
		}
		if what != "" {
			if raw := w.raw[name]; raw != "" {
				is.id = raw // as it went in
			}
			c.Changes.Tracked = append(c.Changes.Tracked, Change{name, what, c.asSent(name, is, there)})
		}
	}
}

// asSent tells whether a tracked path is as it went in.
func (c *Copy) asSent(name string, is blobRef, there bool) bool {
	sent, ok := c.origin.Sent[name]
	if !there { // went in as deleted, unless the guest has another HEAD by now
		return !ok && len(c.origin.Sent) > 0 && c.refs.head == c.origin.Base
	}
	return ok && sent.Mode == is.mode && sent.ID == is.id
}
