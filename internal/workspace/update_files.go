package workspace

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"banger/internal/transfer"
	"banger/internal/tree"
)

// rules say how a file is judged.
type rules struct {
	base      map[string]blobRef // what the guest had of the host
	other     map[string]blobRef // what is the host's too
	keepFirst bool               // what the host has not changed since base stays, whatever the guest has
	force     bool               // work in the guest is in the host's repository by now
}

// contents gives what the files were that went in.
func (r Record) contents() map[string]blobRef {
	files := make(map[string]blobRef, len(r.Sent))
	for name, sent := range r.Sent {
		if !sent.Absent {
			files[name] = blobRef{sent.Mode, sent.ID}
		}
	}
	return files
}

// contents gives what the files of a plan are. Those that look as they did when they were sent are not read again.
func (p Plan) contents(ctx context.Context, sent Manifest) (map[string]blobRef, error) {
	files := make(map[string]blobRef, len(p.files))
	if p.from {
		for _, f := range p.files {
			files[f.path] = blobRef{f.mode, f.id}
		}
		return files, nil
	}
	w, err := transfer.OpenDir(p.Repo.Root)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	for _, f := range p.files {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		ref, err := blobAsSent(w, f.path, sent[f.path])
		if err != nil {
			return nil, err
		}
		if ref != (blobRef{}) {
			files[f.path] = ref
		}
	}
	return files, nil
}

// blobAsSent is blobOf for a file that may be as it was sent.
func blobAsSent(w *transfer.Dir, name string, sent Sent) (blobRef, error) {
	n, err := w.Node(name)
	if err == nil && n != nil && n.Kind == tree.File && sent.ID != "" && !sent.Fresh && n.Size == sent.Size && n.MTime == sent.MTime && (node{Node: *n}).gitMode() == sent.Mode {
		return blobRef{sent.Mode, sent.ID}, nil
	}
	raw, _, err := blobOf(w, name, nil)
	return raw, err
}

// files decides about each file.
func (u *Update) files(ctx context.Context, guest Guest, blocked *Blocked) error {
	names := slices.Sorted(maps.Keys(u.host))
	for name := range u.rules.base {
		if _, ok := u.host[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	now, err := u.guestFiles(ctx, guest, names)
	if err != nil {
		return err
	}
	u.kept = map[string]bool{}
	saved := map[string]bool{} // what the copy has of the guest's
	for _, change := range slices.Concat(u.c.Changes.Tracked, u.c.Changes.Untracked) {
		saved[change.Path] = true
	}
	var write []string
	for _, name := range names {
		host, is := u.host[name], now[name]
		switch u.rules.judge(host, is, u.rules.base[name], u.rules.other[name], u.pending(name, is), saved[name]) {
		case leave:
		case keep:
			u.kept[name] = true
			u.Kept = append(u.Kept, path.Join(u.ship.prefix, name))
		case block:
			blocked.Files = append(blocked.Files, path.Join(u.ship.prefix, name))
		case replace:
			if host == (blobRef{}) {
				u.removed = append(u.removed, name)
				u.Removed = append(u.Removed, path.Join(u.ship.prefix, name))
			} else {
				write = append(write, name)
				u.Written = append(u.Written, path.Join(u.ship.prefix, name))
			}
		}
	}
	u.inTheWay(write, blocked)
	u.ship.plan.files = slices.DeleteFunc(slices.Clone(u.ship.plan.files), func(f file) bool {
		_, found := slices.BinarySearch(write, f.path)
		return !found
	})
	return nil
}

// What becomes of a file in the guest.
const (
	leave = iota // it is as it is to be
	keep
	replace
	block
)

func (r rules) judge(host, is, base, other blobRef, pending, saved bool) int {
	switch {
	case host == is:
		return leave
	case is == base && !r.keepFirst, pending:
		return replace
	case host == base && (r.keepFirst || is != other):
		return keep
	case is == base, is == other, r.force && saved:
		return replace
	}
	return block
}

// pending tells what an update that was cut off has brought.
func (u *Update) pending(name string, is blobRef) bool {
	sent, ok := u.record.Coming[name]
	return ok && (sent.Absent && is == (blobRef{}) || !sent.Absent && is == blobRef{sent.Mode, sent.ID})
}

// guestFiles gives what the guest has at paths; those that git did not tell of are read.
func (u *Update) guestFiles(ctx context.Context, guest Guest, names []string) (map[string]blobRef, error) {
	w, now := u.c.state, make(map[string]blobRef, len(names))
	var read []string
	for _, name := range names {
		ref, known := w.now[name]
		node, there := w.all[name]
		switch {
		case known && there:
			now[name] = u.asFile(name, ref, node)
		case there && node.gitMode() != 0:
			if _, inHead := w.head[name]; u.host[name] == u.rules.base[name] && !inHead {
				now[name] = u.host[name] // whatever it is, it stays
			} else {
				read = append(read, name)
			}
		}
	}
	for e, err := range guest.read(ctx, u.record.GuestPath, read) {
		if err != nil {
			return nil, err
		}
		h := newBlobHash(max(e.Size, int64(len(e.Link))))
		content := orEmpty(e.Content)
		if e.Kind == tree.Symlink {
			content = strings.NewReader(e.Link)
		}
		if _, err := io.Copy(h, content); err != nil {
			return nil, err
		}
		now[e.Path] = blobRef{modeOf(e), hex.EncodeToString(h.Sum(nil))}
	}
	return now, nil
}

// asFile gives a tracked file as it lies there, which for ends of lines may be otherwise than git stores it.
func (u *Update) asFile(name string, ref blobRef, node node) blobRef {
	if raw := u.c.state.raw[name]; raw != "" {
		return blobRef{ref.mode, raw}
	}
	sent, ok := u.record.Sent[name]
	if ok && ref == u.c.state.index[name] && sent.Mode == ref.mode && sent.Size == node.Size && time.Unix(0, sent.MTime).Truncate(time.Second).UnixNano() == node.MTime {
		return blobRef{sent.Mode, sent.ID} // git says that it is as it was
	}
	return ref
}

// inTheWay finds what the guest has where a file or a directory is to come and that does not go.
func (u *Update) inTheWay(write []string, blocked *Blocked) {
	all, goes := slices.Sorted(maps.Keys(u.c.state.all)), map[string]bool{}
	for _, name := range u.removed {
		goes[name] = true
	}
	found := map[string]bool{}
	for _, name := range write {
		for above := path.Dir(name); above != "."; above = path.Dir(above) {
			if node, ok := u.c.state.all[above]; ok && node.Kind != tree.Dir && !goes[above] {
				found[above] = true
			}
		}
		node, ok := u.c.state.all[name]
		if !ok || node.gitMode() != 0 {
			continue
		}
		if node.Kind != tree.Dir {
			found[name] = true
		}
		from, _ := slices.BinarySearch(all, name+"/")
		for _, below := range all[from:] {
			if !strings.HasPrefix(below, name+"/") {
				break
			}
			if u.c.state.all[below].Kind != tree.Dir && !goes[below] {
				found[below] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		blocked.Files = append(blocked.Files, path.Join(u.ship.prefix, name))
	}
}

// staged looks for content that only the guest's index has and that the new one would not have.
func (u *Update) staged(ctx context.Context, blocked *Blocked) error {
	if u.rules.force {
		return nil
	}
	type content struct{ path, id string }
	next := make(map[content]bool, len(u.ship.plan.entries))
	for _, e := range u.entries() {
		next[content{e.Path, e.ID}] = true
	}
	own := map[string][]string{}
	var ids strings.Builder
	for _, e := range u.c.index {
		if e.Mode == modeSubmodule || next[content{e.Path, e.ID}] || u.rules.base[e.Path].id == e.ID || u.c.state.now[e.Path].id == e.ID && u.kept[e.Path] || u.c.state.head[e.Path].id == e.ID {
			continue
		}
		own[e.ID] = append(own[e.ID], e.Path)
		fmt.Fprintln(&ids, e.ID)
	}
	if len(own) == 0 {
		return nil
	}
	text, err := git{dir: u.ship.plan.Repo.Root}.feed(ctx, ids.String(), "cat-file", "--batch-check=%(objectname)")
	for line := range strings.Lines(text) {
		id, lacking := strings.CutSuffix(line, " missing\n")
		if !lacking {
			continue
		}
		for _, name := range own[id] {
			if name = path.Join(u.ship.prefix, name); !slices.Contains(blocked.Staged, name) {
				blocked.Staged = append(blocked.Staged, name)
			}
		}
	}
	return err
}

// entries is the index that the guest is to have: the host's, but for what has changed in the guest only.
func (u *Update) entries() []indexEntry {
	head := u.c.state.head
	entries := make([]indexEntry, 0, len(u.ship.plan.entries))
	planned := make(map[string]bool, len(u.ship.plan.entries))
	for _, e := range u.ship.plan.entries {
		planned[e.Path] = true
		was, there := indexEntry{}, false
		if at, found := u.c.find(e.Path); found && u.c.index[at].Stage == 0 {
			was, there = u.c.index[at], true
		}
		inHead := head[e.Path]
		switch {
		case u.kept[e.Path] && there && inHead != blobRef{was.Mode, was.ID}:
			e = was // staged there
		case u.kept[e.Path] && !there && inHead != (blobRef{}):
			continue // git rm, there
		case u.kept[e.Path] && there && was.Skip:
			e.Skip = true
		case there && was.Mode == e.Mode && was.ID == e.ID && e.Stage == 0:
			e.Stat = was.Stat
		}
		entries = append(entries, e)
	}
	for _, e := range u.c.index { // git add, there
		_, there := u.c.state.all[e.Path]
		if _, inHead := head[e.Path]; e.Stage == 0 && there && !planned[e.Path] && !inHead && !slices.Contains(u.removed, e.Path) {
			entries = append(entries, e)
		}
	}
	return entries
}
