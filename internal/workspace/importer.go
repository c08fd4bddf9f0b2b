package workspace

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"banger/internal/tree"
)

// Commits that are made of a work tree's changes.
const (
	Worktree  = "worktree"  // of tracked files, in the form of a stash: its parents are HEAD, the index and, if there is one, Untracked
	Untracked = "untracked" // of untracked files alone, without a parent
	All       = "all"       // of both, on HEAD
	staged    = "index"     // the index, on HEAD
)

// importer feeds git fast-import.
type importer struct {
	pipe *io.PipeWriter
	w    *bufio.Writer
	done chan error
	err  error // of the first write that failed
}

func newImporter(ctx context.Context, g git) *importer {
	r, w := io.Pipe()
	im := &importer{pipe: w, w: bufio.NewWriterSize(w, 64<<10), done: make(chan error, 1)}
	go func() {
		err := g.run(ctx, r, io.Discard, "-c", "core.bigFileThreshold=32m", "fast-import", "--quiet", "--done", "--date-format=raw")
		r.CloseWithError(err)
		im.done <- err
	}()
	return im
}

func (im *importer) printf(format string, args ...any) {
	if im.err == nil {
		_, im.err = fmt.Fprintf(im.w, format, args...)
	}
}

// blob stores the content of an entry and gives what a tree calls it; mode 0 for what no tree can have. raw is the object id of what is
// stored in another form than the entry has.
func (im *importer) blob(e tree.Entry, by converter) (ref blobRef, raw string, err error) {
	content, size := orEmpty(e.Content), e.Size
	switch e.Kind {
	case tree.Symlink:
		content, size = strings.NewReader(e.Link), int64(len(e.Link))
	case tree.File:
		if content, size, raw, err = by.convert(e.Path, content, size); err != nil {
			return blobRef{}, "", err
		}
	default:
		return blobRef{}, "", nil
	}
	h := newBlobHash(size)
	im.printf("blob\ndata %d\n", size)
	if im.err != nil {
		return blobRef{}, "", im.err
	}
	if n, err := io.Copy(io.MultiWriter(h, im.w), io.LimitReader(content, size)); err != nil {
		return blobRef{}, "", err
	} else if n != size {
		return blobRef{}, "", fmt.Errorf("%q: %w", e.Path, io.ErrUnexpectedEOF)
	}
	im.printf("\n")
	return blobRef{modeOf(e), hex.EncodeToString(h.Sum(nil))}, raw, im.err
}

// commit begins a commit; parents that are "" are left out.
func (im *importer) commit(name, message, first string, merges ...string) {
	im.printf("commit refs/work/%s\ncommitter banger <banger@localhost> %d +0000\ndata %d\n%s\n", name, time.Now().Unix(), len(message), message)
	if first != "" {
		im.printf("from %s\n", first)
	}
	for _, parent := range merges {
		if parent != "" {
			im.printf("merge %s\n", parent)
		}
	}
}

func (im *importer) modify(name string, ref blobRef) {
	im.printf("M %o %s %s\n", ref.mode, ref.id, quotePath(name))
}

func (im *importer) remove(name string) { im.printf("D %s\n", quotePath(name)) }

// quotePath writes a path as fast-import reads it.
func quotePath(name string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(name) + `"`
}

// end waits until everything is stored.
func (im *importer) end() error {
	im.printf("done\n")
	if im.err == nil {
		im.err = im.w.Flush()
	}
	im.pipe.CloseWithError(im.err)
	if err := <-im.done; err != nil {
		return err
	}
	return im.err
}

// abort gives up; fast-import keeps nothing then.
func (im *importer) abort() error {
	im.pipe.CloseWithError(io.ErrUnexpectedEOF)
	<-im.done
	return nil
}

// writeCommits makes the commits of changes that the copy has the content of.
func (c *Copy) writeCommits(im *importer, w *workState, differ map[string]blobRef) {
	head := c.refs.head
	im.commit(staged, "index of the guest", head)
	for _, name := range slices.Sorted(maps.Keys(differ)) {
		im.modify(name, differ[name])
	}
	for name := range w.head {
		if _, ok := w.index[name]; !ok && len(c.index) > 0 {
			im.remove(name)
		}
	}
	var untracked []string
	for _, change := range c.Changes.Untracked {
		if _, ok := w.now[change.Path]; ok {
			untracked = append(untracked, change.Path)
		}
	}
	third := ""
	if len(untracked) > 0 {
		third = "refs/work/" + Untracked
		im.commit(Untracked, "untracked files of the guest", "")
		for _, name := range untracked {
			im.modify(name, w.now[name])
		}
	}
	tracked := func() {
		for _, change := range c.Changes.Tracked {
			if change.What == "deleted" {
				im.remove(change.Path)
			} else {
				im.modify(change.Path, w.now[change.Path])
			}
		}
	}
	if head != "" {
		im.commit(Worktree, "work tree of the guest", head, "refs/work/"+staged, third)
	} else { // no commit yet: the index stands in for HEAD
		im.commit(Worktree, "work tree of the guest", "refs/work/"+staged, third)
	}
	tracked()
	im.commit(All, "changes of the guest", head)
	tracked()
	for _, name := range untracked {
		im.modify(name, w.now[name])
	}
}

// readCommits finds the commits that were made.
func (c *Copy) readCommits(ctx context.Context) error {
	text, err := c.g.output(ctx, "for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", "refs/work/")
	for line := range strings.Lines(text) {
		if name, id, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != staged {
			c.Commits[name] = id
		}
	}
	return err
}
