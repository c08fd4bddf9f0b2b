package workspace

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/tree"
)

// Applied is what Apply did, or would do, to the host's work tree.
type Applied struct {
	Written   []string `json:"written"`
	Removed   []string `json:"removed"`
	Conflicts []string `json:"conflicts"` // changed on both sides
}

// Apply brings the files of the host's work tree to what the guest has, in so far as the guest has changed them since they went in.
// HEAD, index and refs stay. When any of these files has been changed on the host too, nothing is done. Errors: ErrConflict with the
// list in what it returns.
func (c *Copy) Apply(ctx context.Context, dryRun bool) (Applied, error) {
	var done Applied
	now, err := c.files(ctx)
	if err != nil {
		return done, err
	}
	w, err := openWorktree(c.origin.Repo)
	if err != nil {
		return done, err
	}
	defer w.close()
	write := map[string]blobRef{}
	for _, name := range c.touched(now) {
		guest, inGuest := now[name]
		host, err := w.blob(name)
		if err != nil {
			return done, err
		}
		sent, wentIn := c.origin.Sent[name]
		was := blobRef{}
		if wentIn && !sent.Absent {
			was = blobRef{sent.Mode, sent.ID}
		}
		switch {
		case host == guest:
		case host != was:
			done.Conflicts = append(done.Conflicts, name)
		case inGuest:
			write[name] = guest
			done.Written = append(done.Written, name)
		default:
			done.Removed = append(done.Removed, name)
		}
	}
	if len(done.Conflicts) > 0 {
		return done, &banger.Error{Kind: banger.ErrConflict, Op: "apply to", Subject: c.origin.Repo,
			Err:  fmt.Errorf("%d files have changed on both sides: %s", len(done.Conflicts), some(done.Conflicts)),
			Hint: "pull into a branch and merge it: banger workspace pull --branch NAME"}
	}
	if dryRun {
		return done, nil
	}
	for _, name := range done.Removed { // first: a file may become a directory
		if err := w.remove(name); err != nil {
			return done, err
		}
	}
	return done, spaceIn(c.origin.Repo, c.write(ctx, w, done.Written, write))
}

// some names the first few.
func some(names []string) string {
	const most = 5
	text := strings.Join(names[:min(len(names), most)], ", ")
	if len(names) > most {
		text += ", …"
	}
	return text
}

// files gives the files that the guest has, ignored ones left out.
func (c *Copy) files(ctx context.Context) (map[string]blobRef, error) {
	now := map[string]blobRef{}
	id := c.Head(true)
	if id == "" {
		return now, nil
	}
	text, err := c.g.output(ctx, "ls-tree", "-r", "-z", "--full-tree", id)
	for entry := range strings.SplitSeq(strings.TrimSuffix(text, "\x00"), "\x00") {
		if f, err := parseTreeEntry(entry); err == nil && f.mode != modeSubmodule && checkPath(f.path) == nil {
			now[f.path] = blobRef{f.mode, f.id}
		}
	}
	return now, err
}

// touched lists what the guest has otherwise than it went in.
func (c *Copy) touched(now map[string]blobRef) []string {
	names := map[string]bool{}
	for name, ref := range now {
		if sent, ok := c.origin.Sent[name]; !ok || ref != (blobRef{sent.Mode, sent.ID}) {
			names[name] = true
		}
	}
	for name, sent := range c.origin.Sent {
		if _, ok := now[name]; !ok && !sent.Ignored && !sent.Absent && !c.inNested(name) {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// blob gives what a tree would call a file of the work tree; zero for what is not there.
func (w *worktree) blob(name string) (blobRef, error) {
	e, f, err := w.entry(name)
	if errors.Is(err, fs.ErrNotExist) {
		return blobRef{}, nil
	}
	if err != nil {
		return blobRef{}, err
	}
	h := newBlobHash(max(e.Size, int64(len(e.Link))))
	if f != nil {
		defer f.Close()
		_, err = io.Copy(h, &exactly{r: f, rest: e.Size})
	} else {
		_, err = io.WriteString(h, e.Link)
	}
	return blobRef{modeOf(e), hex.EncodeToString(h.Sum(nil))}, err
}

// write writes files with the content that the copy has.
func (c *Copy) write(ctx context.Context, w *worktree, names []string, refs map[string]blobRef) error {
	if len(names) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, pipe := io.Pipe()
	defer r.Close()
	files := make([]file, len(names))
	var ids strings.Builder
	for i, name := range names {
		files[i] = file{path: name, mode: refs[name].mode, id: refs[name].id}
		fmt.Fprintln(&ids, files[i].id)
	}
	go func() {
		pipe.CloseWithError(c.g.run(ctx, strings.NewReader(ids.String()), pipe, "cat-file", "--batch", "--buffer"))
	}()
	in := bufio.NewReaderSize(r, 64<<10)
	for _, f := range files {
		e, err := readBlob(f, in, time.Now())
		if err == nil {
			err = w.put(e)
		}
		if err == nil {
			_, err = in.Discard(1)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
	}
	return nil
}

// dir opens the directory of a path, made if need be.
func (w *worktree) dir(name string, create bool) (int, error) {
	dir := path.Dir(name)
	fd, err := w.open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if !create || !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	above, err := w.dir(dir, true)
	if err != nil {
		return -1, err
	}
	defer unix.Close(above)
	if err := unix.Mkdirat(above, path.Base(dir), 0o777); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return w.open(dir, unix.O_PATH|unix.O_DIRECTORY)
}

// put writes one file or link: beside its place first, so that it is never there in part.
func (w *worktree) put(e tree.Entry) (err error) {
	dir, err := w.dir(e.Path, true)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	random := make([]byte, 6)
	_, _ = rand.Read(random) // never fails: crypto/rand
	temp := ".banger-" + hex.EncodeToString(random)
	defer func() {
		if err != nil {
			_ = unix.Unlinkat(dir, temp, 0)
		}
	}()
	if e.Kind == tree.Symlink {
		if err := unix.Symlinkat(e.Link, dir, temp); err != nil {
			return err
		}
	} else if err := writeAt(dir, temp, e); err != nil {
		return err
	}
	return unix.Renameat(dir, temp, dir, path.Base(e.Path))
}

func writeAt(dir int, name string, e tree.Entry) error {
	mode := uint32(0o666)
	if e.Mode&0o100 != 0 {
		mode = 0o777
	}
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	n, err := io.Copy(f, orEmpty(e.Content))
	if err == nil && n != e.Size {
		err = io.ErrUnexpectedEOF
	}
	return errors.Join(err, f.Close())
}

// remove removes a file, and directories above that are empty then.
func (w *worktree) remove(name string) error {
	dir, err := w.dir(name, false)
	if err != nil {
		return err
	}
	err = unix.Unlinkat(dir, path.Base(name), 0)
	unix.Close(dir)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	for above := path.Dir(name); above != "."; above = path.Dir(above) {
		dir, err := w.dir(above, false)
		if err != nil {
			return nil
		}
		err = unix.Unlinkat(dir, path.Base(above), unix.AT_REMOVEDIR)
		unix.Close(dir)
		if err != nil {
			return nil // not empty
		}
	}
	return nil
}
