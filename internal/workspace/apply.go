package workspace

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/transfer"
	"banger/internal/tree"
)

// Applied is what Apply did, or would do, to the host's work tree.
type Applied struct {
	Written   []string `json:"written"`   // below the root
	Removed   []string `json:"removed"`   // likewise
	Conflicts []string `json:"conflicts"` // changed on both sides
}

// Apply brings the files of the host's work tree to what the guest has, in so far as the guest has changed them since they went in.
// HEAD, index and refs stay. When any of these files has been changed on the host too, nothing is done. Errors: ErrConflict with the
// list in what it returns.
func (c *Copy) Apply(ctx context.Context, dryRun bool) (Applied, error) {
	done := Applied{[]string{}, []string{}, []string{}}
	now, err := c.files(ctx)
	if err != nil {
		return done, err
	}
	w, err := transfer.OpenDir(c.origin.Repo)
	if err != nil {
		return done, err
	}
	defer w.Close()
	write, touched := map[string]blobRef{}, c.touched(now)
	rules, err := textRules(ctx, c.origin.attributes(), touched)
	if err != nil {
		return done, err
	}
	for _, name := range touched {
		guest, inGuest := now[name]
		host, stored, err := blobOf(w, name, rules)
		if err != nil {
			return done, err
		}
		sent, wentIn := c.origin.Sent[name]
		was := blobRef{}
		if wentIn && !sent.Absent {
			was = blobRef{sent.Mode, sent.ID}
		}
		switch {
		case stored == guest:
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
		if err := w.Remove(name); err != nil {
			return done, err
		}
	}
	return done, spaceIn(c.origin.Repo, c.write(ctx, done.Written, write, rules))
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
	if c.plain {
		return c.state.now, nil
	}
	id := c.Head(true)
	if id == "" {
		return now, nil
	}
	return now, c.g.each(ctx, func(entry string) error {
		if f, err := parseTreeEntry(entry); err == nil && f.mode != modeSubmodule && checkPath(f.path) == nil {
			now[f.path] = blobRef{f.mode, f.id}
		}
		return nil
	}, "ls-tree", "-r", "-z", "--full-tree", id)
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

// blobOf gives what a tree would call a file of the work tree, as it is and as git stores it; zero for what is not there.
func blobOf(w *transfer.Dir, name string, rules map[string]textRule) (raw, stored blobRef, err error) {
	e, open, err := w.Entry(name)
	if errors.Is(err, fs.ErrNotExist) {
		return blobRef{}, blobRef{}, nil
	}
	if err != nil {
		return blobRef{}, blobRef{}, err
	}
	if open != nil {
		defer open.Close()
	}
	if rule, ok := rules[name]; ok && e.Kind == tree.File && e.Size <= maxText {
		text := make([]byte, e.Size)
		_, err := io.ReadFull(orEmpty(e.Content), text)
		return blobRef{modeOf(e), blobID(text)}, blobRef{modeOf(e), blobID(rule.toBlob(text, false))}, err
	}
	h := newBlobHash(max(e.Size, int64(len(e.Link))))
	if open != nil {
		_, err = io.Copy(h, e.Content)
	} else {
		_, err = io.WriteString(h, e.Link)
	}
	raw = blobRef{modeOf(e), hex.EncodeToString(h.Sum(nil))}
	return raw, raw, err
}

// write writes files with the content that the copy has: all of them or, as far as no later step can fail, none.
func (c *Copy) write(ctx context.Context, names []string, refs map[string]blobRef, rules map[string]textRule) error {
	if len(names) == 0 {
		return nil
	}
	files := make([]file, len(names))
	for i, name := range names {
		files[i] = file{path: name, mode: refs[name].mode, id: refs[name].id}
	}
	_, err := transfer.Write(ctx, transfer.Place{Dir: c.origin.Repo}, transfer.Origin{Dir: true}, asFiles(blobs(ctx, c.g, files, time.Now()), rules), transfer.Options{})
	return err
}

// asFiles gives blobs the form that they have in the work tree.
func asFiles(src tree.Source, rules map[string]textRule) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		for e, err := range src {
			if rule, ok := rules[e.Path]; ok && err == nil && e.Kind == tree.File && e.Size <= maxText {
				text := make([]byte, e.Size)
				if _, err = io.ReadFull(orEmpty(e.Content), text); err == nil {
					text = rule.toFile(text)
					e.Size, e.Content = int64(len(text)), bytes.NewReader(text)
				}
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}
