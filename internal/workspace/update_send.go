package workspace

import (
	"context"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/transfer"
	"banger/internal/tree"
)

// Begun is the record for while an update is on its way: whatever of it arrives is known as the host's.
func (u *Update) Begun() Record {
	r := u.record
	r.Coming = Manifest{}
	for _, f := range u.ship.plan.files {
		r.Coming[f.path] = Sent{Mode: u.host[f.path].mode, ID: u.host[f.path].id}
	}
	for _, name := range u.removed {
		r.Coming[name] = Sent{Absent: true}
	}
	if u.ship.pack.path != "" {
		r.Packs = append(slices.Clone(r.Packs), u.ship.pack.name()+".pack")
	}
	if u.rules.keepFirst || !u.whole {
		return r
	}
	r.Subs = map[string]Record{}
	for _, sub := range u.subs {
		r.Subs[u.below(sub.ship)] = sub.Begun()
	}
	return r
}

// Send carries an update out: all of it, or nothing. sent is told of the bytes of files. It gives the record for the host.
// Errors: ErrConflict when the guest has changed since it was looked at.
func (u *Update) Send(ctx context.Context, guest Guest, sent func(bytes int64)) (Record, error) {
	root := u.record.GuestPath
	change := transfer.Change{Path: []byte(root), Aside: []byte(".git")}
	if u.record.Directory {
		change.Aside = nil
	}
	if err := guest.Change(ctx, change, u.steps(), counted(u.source(ctx), sent)); err != nil {
		return Record{}, err
	}
	for _, ship := range u.allFresh() {
		if err := ship.sendIndexes(ctx, guest, guestPath(root, ship.prefix)); err != nil {
			return Record{}, &banger.Error{Op: "send to", Subject: root, Err: err}
		}
	}
	record := u.done()
	if record.Directory {
		if err := record.noteTimes(ctx, guest); err != nil {
			return Record{}, err
		}
	}
	return record, nil
}

func (u *Update) allFresh() []*Shipment {
	list := slices.Clone(u.fresh)
	for _, sub := range u.subs {
		list = append(list, sub.allFresh()...)
	}
	return list
}

// source yields what comes: objects before what names them, the names last.
func (u *Update) source(ctx context.Context) tree.Source {
	var sources []tree.Source
	for _, sub := range u.subs {
		sources = append(sources, tree.Under(u.below(sub.ship), sub.source(ctx)))
	}
	for _, ship := range u.fresh {
		sources = append(sources, tree.Under(u.below(ship), ship.Entries(ctx)))
	}
	return u.ship.modes(tree.Concat(append(sources, u.objects(), u.ship.files(ctx), u.names())...))
}

// below is where a submodule's root lies below the update's.
func (u *Update) below(sub *Shipment) string {
	return strings.TrimPrefix(strings.TrimPrefix(sub.prefix, u.ship.prefix), "/")
}

func (u *Update) objects() tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		for _, ending := range []string{".pack", ".idx"} {
			if !u.ship.sendPack(ending, yield) {
				return
			}
		}
		if ends := u.ship.pack.shallow; len(ends) > 0 && !slices.Equal(ends, slices.Sorted(slices.Values(u.c.refs.ends))) {
			yield(u.text("shallow", strings.Join(ends, "\n")+"\n"), nil)
		}
	}
}

func (u *Update) text(name, text string) tree.Entry {
	e := tree.Literal(".git/"+name, 0o644, []byte(text))
	e.ModTime = u.ship.now
	return e
}

// names yields the index and the refs, when the files have been sent.
func (u *Update) names() tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		if u.record.Directory {
			u.ship.emptyDirs()(yield)
			return
		}
		if u.index {
			index, err := u.newIndex()
			if !yield(u.text("index", string(index)), err) {
				return
			}
		}
		seen := map[string]bool{".git": true}
		for _, ref := range u.set {
			for _, dir := range parents(".git/"+ref.name, seen) {
				if !yield(tree.Directory(dir, 0o755), nil) {
					return
				}
			}
			if !yield(u.text(ref.name, ref.text), nil) {
				return
			}
		}
	}
}

// newIndex is the guest's new one. What it remembers of files that did not come is what the old one did.
func (u *Update) newIndex() ([]byte, error) {
	entries := u.entries()
	for i, e := range entries {
		if _, written := u.ship.sent[e.Path]; written {
			entries[i].Stat = stat{}
		}
	}
	return encodeIndex(entries)
}

// steps say of all that is written over, goes, or has to stay what it is meanwhile, how it was.
func (u *Update) steps() (steps []transfer.Step) {
	prefix := u.ship.prefix
	step := func(nodes map[string]node, name, at string, remove bool) {
		s := transfer.Step{Path: []byte(path.Join(prefix, at)), Remove: remove}
		if node, ok := nodes[name]; ok {
			s.Was = &node.Node
		}
		steps = append(steps, s)
	}
	for _, f := range u.ship.plan.files {
		step(u.c.state.all, f.path, f.path, false)
	}
	for _, name := range u.removed {
		step(u.c.state.all, name, name, true)
	}
	if u.record.Directory {
		return steps
	}
	names := []string{"HEAD", "HEAD.lock", "packed-refs", "shallow"}
	if u.index {
		names = append(names, "index", "index.lock")
	}
	for _, ref := range u.set {
		names = append(names, ref.name)
	}
	if u.ship.pack.path != "" { // there when an update was cut off by the end of the machine
		names = append(names, "objects/pack/"+u.ship.pack.name()+".pack", "objects/pack/"+u.ship.pack.name()+".idx")
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		step(u.c.meta, name, ".git/"+name, name == "shallow" && len(u.ship.pack.shallow) == 0) // the whole history is there
	}
	for _, sub := range u.subs {
		steps = append(steps, sub.steps()...)
	}
	return steps
}

// done is the record once all is in the guest.
func (u *Update) done() Record {
	r := u.Begun()
	if r.Coming = nil; !u.whole {
		return r
	}
	r.Head, r.Branch, r.PreparedAt = u.ship.plan.Start, u.ship.plan.branch(), time.Now().UTC()
	r.Sent = u.sent()
	if u.rules.keepFirst {
		r.Subs = u.record.Subs
		return r
	}
	r.Subs = map[string]Record{}
	for _, sub := range u.subs {
		r.Subs[u.below(sub.ship)] = sub.done()
	}
	for _, ship := range u.fresh {
		r.Subs[u.below(ship)] = ship.record(guestPath(u.record.GuestPath, u.below(ship)))
	}
	return r
}

// sent is what the guest has of the host by now.
func (u *Update) sent() Manifest {
	sent := Manifest{}
	if u.rules.keepFirst { // what is no part of the commits went in all the same
		maps.Copy(sent, u.record.Sent)
		for _, name := range u.removed {
			delete(sent, name)
		}
	}
	for name, ref := range u.host {
		old, was := u.record.Sent[name]
		switch fresh, written := u.ship.sent[name]; {
		case written:
			sent[name] = fresh
		case was && (u.kept[name] || !old.Absent && ref == blobRef{old.Mode, old.ID}):
			sent[name] = old
		case !u.kept[name]: // the guest had it by itself
			node := u.c.state.all[name]
			sent[name] = Sent{Mode: ref.mode, ID: ref.id, Size: node.Size, MTime: node.MTime}
		}
	}
	for _, e := range u.ship.plan.entries {
		if _, ok := sent[e.Path]; e.Skip && !ok {
			sent[e.Path] = Sent{Mode: e.Mode, ID: e.ID, Absent: true}
		}
	}
	return sent
}
