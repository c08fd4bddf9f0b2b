package workspace

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"banger"
	"banger/internal/transfer"
	"banger/internal/tree"
)

// Send puts a shipment into a running guest as the directory dest, which must not be there or be empty: all of it, or nothing.
// begin keeps the record of what comes: it is called when all has been sent and nothing of it is at its place yet, and an error of it is the
// end of the sending. sent is told of the bytes of files. What is returned is the record once all is there, with what the guest says of
// its files. Errors: ErrConflict when something is there.
func (s *Shipment) Send(ctx context.Context, guest Guest, dest string, begin func(Record) error, sent func(bytes int64)) (Record, error) {
	there, err := s.occupied(ctx, guest, dest)
	if err != nil {
		return Record{}, err
	}
	put, src := transfer.Put{Path: []byte(dest), Origin: transfer.Origin{Name: []byte(path.Base(dest)), Dir: true}, Parents: true}, counted(s.Entries(ctx), sent)
	if there {
		put.Origin.Name = nil
	} else {
		src = tree.Under(path.Base(dest), src)
	}
	last := func(yield func(tree.Entry, error) bool) {
		if err := begin(s.record(dest)); err != nil {
			yield(tree.Entry{}, err)
		}
	}
	if err := guest.Bring(ctx, put, tree.Concat(src, last)); err != nil {
		return Record{}, &banger.Error{Op: "send to", Subject: dest, Err: err}
	}
	record := s.record(dest)
	if s.plan.Directory {
		err = record.noteTimes(ctx, guest)
	} else {
		err = s.sendIndexes(ctx, guest, dest)
	}
	if err != nil {
		return Record{}, &banger.Error{Op: "send to", Subject: dest, Err: err}
	}
	return record, nil
}

// record is what the host remembers of a shipment and its submodules.
func (s *Shipment) record(dest string) Record {
	r := Record{Workspace: banger.Workspace{GuestPath: dest, HostPath: s.plan.Repo.Root, Name: path.Base(s.plan.Repo.Root), Head: s.plan.Start, Branch: s.plan.branch(),
		PreparedAt: time.Now().UTC(), Directory: s.plan.Directory, Readonly: s.plan.Readonly}, Sent: s.sent}
	if s.pack.path != "" {
		r.Packs = []string{s.pack.name() + ".pack"}
	}
	for _, sub := range s.subs {
		if r.Subs == nil {
			r.Subs = map[string]Record{}
		}
		name := sub.plan.subPath(s)
		r.Subs[name] = sub.record(guestPath(dest, name))
	}
	return r
}

// occupied tells whether dest is there, as an empty directory.
func (s *Shipment) occupied(ctx context.Context, guest Guest, dest string) (bool, error) {
	for node, err := range guest.walk(ctx, dest) {
		if errors.Is(err, banger.ErrNotFound) {
			return false, nil
		}
		if err == nil {
			err = &banger.Error{Kind: banger.ErrConflict, Op: "send to", Subject: dest, Err: fmt.Errorf("it is there already and has %.100q in it", node.path),
				Hint: "choose another --guest-path"}
		}
		return false, err
	}
	return true, nil
}

// counted tells of each file that goes by.
func counted(src tree.Source, sent func(int64)) tree.Source {
	return tree.Filter(src, func(e *tree.Entry) bool {
		if sent != nil {
			sent(e.Size)
		}
		return true
	})
}

// sendIndexes sends what git remembers of the files, now that they are in the guest, in place of the indexes that came with them.
func (s *Shipment) sendIndexes(ctx context.Context, guest Guest, root string) error {
	stats := map[string]stat{}
	for node, err := range guest.walk(ctx, root, ".git") {
		if err != nil {
			return err
		}
		stats[node.path] = node.stat()
	}
	index, err := s.Index(stats)
	if err != nil {
		return err
	}
	e := tree.Literal("index", 0o644, index)
	e.ModTime = time.Now()
	put := transfer.Put{Path: []byte(guestPath(root, ".git", "index")), Origin: transfer.Origin{Name: []byte("index")}}
	if err := guest.Bring(ctx, put, s.modes(tree.Of(e))); err != nil {
		return err
	}
	for _, sub := range s.subs {
		if err := sub.sendIndexes(ctx, guest, guestPath(root, sub.plan.subPath(s))); err != nil {
			return err
		}
	}
	return nil
}
