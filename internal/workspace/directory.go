package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"banger"
	"banger/internal/transfer"
	"banger/internal/tree"
)

// A directory that goes in as files has no repository in the guest: what went in stands in the record alone.

// baseFiles is the commit of the host's files that the guest has changed.
const baseFiles = "base"

// MakeDirectoryPlan decides what of a directory that is in no repository travels: all files. It reads the directory only.
// Errors: ErrNotFound; ErrInvalid for a file; ErrRefused for the root of the host and for a directory that the user's home is in.
func MakeDirectoryPlan(ctx context.Context, name string) (Plan, error) {
	root, err := filepath.Abs(name)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err != nil {
		return Plan{}, &banger.Error{Kind: banger.ErrNotFound, Op: "workspace", Subject: name, Err: err}
	}
	info, err := os.Stat(root)
	if err != nil {
		return Plan{}, &banger.Error{Kind: banger.ErrNotFound, Op: "workspace", Subject: name, Err: err}
	}
	if !info.IsDir() {
		return Plan{}, &banger.Error{Kind: banger.ErrInvalid, Op: "workspace", Subject: name, Err: errors.New("it is a file that is in no repository"), Hint: "banger vm cp"}
	}
	if home, err := os.UserHomeDir(); root == "/" || err == nil && (below(filepath.Clean(home), root) || below(realPath(home), root)) {
		return Plan{}, &banger.Error{Kind: banger.ErrRefused, Op: "workspace", Subject: name, Err: errors.New("all of your files are in it, keys and passwords too"), Hint: "name a directory below it"}
	}
	if _, err := os.Lstat(filepath.Join(root, ".git")); err == nil {
		return Plan{}, &banger.Error{Kind: banger.ErrConflict, Op: "workspace", Subject: name, Err: errors.New("there is a .git, and git takes it for no repository"), Hint: "git -C " + name + " status"}
	}
	p := Plan{Repo: Repo{Root: root}, Directory: true}
	return p, p.takeAll(ctx)
}

func realPath(name string) string {
	if real, err := filepath.EvalSymlinks(name); err == nil {
		return real
	}
	return name
}

// takeAll takes every file below the root, but for repositories' own.
func (p *Plan) takeAll(ctx context.Context) error {
	special := 0
	err := filepath.WalkDir(p.Repo.Root, func(at string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		name, relErr := filepath.Rel(p.Repo.Root, at)
		if err != nil || relErr != nil || name == "." {
			return errors.Join(err, relErr)
		}
		if isDotGit(filepath.Base(name)) {
			p.note("%s stays on the host: prepare that repository by itself for its history", name)
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		switch entry.Type() {
		case fs.ModeDir:
			p.dirs = append(p.dirs, name)
		case 0, fs.ModeSymlink:
			p.files = append(p.files, file{path: name, stage: '0'})
			return checkPath(name)
		default:
			special++
		}
		return nil
	})
	if special > 0 {
		p.note("%d devices, FIFOs and sockets stay on the host", special)
	}
	slices.SortFunc(p.files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	return err
}

// AsFiles makes a plan of a repository one of its files alone, those of its submodules too. Errors: ErrInvalid for options that need a
// repository in the guest.
func (p Plan) AsFiles() (Plan, error) {
	if p.Options.Branch != "" || p.Options.FullHistory {
		return Plan{}, &banger.Error{Kind: banger.ErrInvalid, Err: errors.New("a copy of the files alone has neither branches nor a history"), Hint: "leave out --mode full_copy"}
	}
	flat := Plan{Repo: p.Repo, Options: p.Options, Directory: true, Notices: p.Notices}
	p.addFiles(&flat, "")
	slices.SortFunc(flat.files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	return flat, nil
}

func (p Plan) addFiles(flat *Plan, prefix string) {
	for _, f := range p.files {
		flat.files = append(flat.files, file{path: filepath.Join(prefix, f.path), stage: '0', ignored: f.ignored})
	}
	for _, sub := range p.Subs {
		flat.dirs = append(flat.dirs, filepath.Join(prefix, sub.Path))
		sub.Plan.addFiles(flat, filepath.Join(prefix, sub.Path))
	}
}

// emptyDirs yields the directories that have no file.
func (s *Shipment) emptyDirs() tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		w, err := transfer.OpenDir(s.plan.Repo.Root)
		if err != nil {
			yield(tree.Entry{}, err)
			return
		}
		defer w.Close()
		seen := map[string]bool{}
		for _, f := range s.plan.files {
			parents(f.path, seen)
		}
		for _, dir := range s.plan.dirs {
			if !seen[dir] && !yield(tree.Directory(dir, w.DirMode(dir)), nil) {
				return
			}
		}
	}
}

// noteTimes remembers when the guest's files were last changed: whatever is done to one later shows. Those that came so shortly before
// the last that it might not are compared by content.
func (r Record) noteTimes(ctx context.Context, guest Guest) error {
	times, newest := map[string]int64{}, int64(0)
	for node, err := range guest.walk(ctx, r.GuestPath) {
		if err != nil {
			return err
		}
		times[node.path], newest = node.CTime, max(newest, node.CTime)
	}
	for name, sent := range r.Sent {
		if sent.CTime = times[name]; newest-sent.CTime < int64(tick) {
			sent.CTime = 0
		}
		r.Sent[name] = sent
	}
	return nil
}

// readDirectory compares a guest's directory with what went in, and makes commits of what differs.
func (c *Copy) readDirectory(ctx context.Context, guest Guest, root string) error {
	w := &workState{head: Record{Sent: c.origin.Sent}.contents(), index: map[string]blobRef{}, now: map[string]blobRef{}, raw: map[string]string{}, all: map[string]node{}}
	c.state, c.plain = w, true
	if err := c.walk(ctx, guest, root, w); err != nil {
		return err
	}
	size := int64(0)
	w.unknown = slices.DeleteFunc(w.unknown, func(name string) bool {
		sent, node := c.origin.Sent[name], w.all[name]
		if sent.Ignored || sent.CTime != 0 && sent.CTime == node.CTime && sent.MTime == node.MTime && sent.Size == node.Size && sent.Mode == node.gitMode() {
			w.now[name] = blobRef{sent.Mode, sent.ID}
			return true
		}
		size += node.Size
		return false
	})
	if err := c.dropIgnored(ctx, guest, root, w); err != nil {
		return err
	}
	for _, name := range w.untracked {
		c.Changes.UntrackedBytes += w.all[name].Size
		c.Changes.Untracked = append(c.Changes.Untracked, Change{name, "untracked", false})
	}
	read := slices.Clone(w.unknown)
	if most := c.origin.MaxUntracked; most > 0 {
		if size += c.Changes.UntrackedBytes; size > most {
			return &banger.Error{Kind: banger.ErrRefused, Op: "changed files", Err: fmt.Errorf("they have %s, more than %s", banger.FormatSize(size), banger.FormatSize(most)), Hint: "copy them out: banger vm cp"}
		}
		read = append(read, w.untracked...)
	}
	return c.storeDirectory(ctx, guest, root, w, read)
}

func (c *Copy) storeDirectory(ctx context.Context, guest Guest, root string, w *workState, read []string) error {
	im := newImporter(ctx, c.g)
	for e, err := range guest.read(ctx, root, read) {
		if err == nil {
			var ref blobRef
			if ref, _, err = im.blob(e, converter{}); err == nil && ref.mode != 0 {
				w.now[e.Path] = ref
			}
		}
		if err != nil {
			return errors.Join(err, im.abort())
		}
	}
	c.compare(w)
	base, err := c.hostBlobs(im)
	if err != nil {
		return errors.Join(err, im.abort())
	}
	if len(c.Changes.Tracked) > 0 || len(c.Changes.Untracked) > 0 && c.origin.MaxUntracked > 0 {
		c.writeFileCommits(im, w, base)
	}
	if err := im.end(); err != nil {
		return fmt.Errorf("keep the changes: %w", err)
	}
	return c.readCommits(ctx)
}

// hostBlobs takes the host's files that the guest has changed, as they are now.
func (c *Copy) hostBlobs(im *importer) (map[string]blobRef, error) {
	base := map[string]blobRef{}
	if c.origin.Repo == "" {
		return base, nil
	}
	w, err := transfer.OpenDir(c.origin.Repo)
	if err != nil {
		return base, nil // it has gone; the files are saved without it
	}
	defer w.Close()
	for _, change := range slices.Concat(c.Changes.Tracked, c.Changes.Untracked) {
		e, open, err := w.Entry(change.Path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		ref, _, err := im.blob(e, converter{})
		if open != nil {
			open.Close()
		}
		if err != nil {
			return nil, err
		}
		base[change.Path] = ref
	}
	return base, nil
}

func (c *Copy) writeFileCommits(im *importer, w *workState, base map[string]blobRef) {
	im.commit(baseFiles, "files of the host that the guest has changed", "")
	for name, ref := range base {
		im.modify(name, ref)
	}
	im.commit(All, "changes of the guest", "refs/work/"+baseFiles)
	for _, change := range slices.Concat(c.Changes.Tracked, c.Changes.Untracked) {
		if ref, there := w.now[change.Path]; there {
			im.modify(change.Path, ref)
		} else {
			im.remove(change.Path)
		}
	}
}
