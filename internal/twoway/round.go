package twoway

import (
	"context"
	"errors"
	"path"
	"slices"
	"time"

	"banger"
)

// round is one pass of an engine.
type round struct {
	*Engine
	ctx  context.Context
	full bool // all paths are looked at
}

// move is what is to be done about one path.
type move struct {
	at          string
	verdict     verdict
	revived     bool
	host, guest State
}

func (m move) source() State {
	if m.verdict == toHost {
		return asFile(m.guest)
	}
	return asFile(m.host)
}

func (r *round) run(dirty map[string]bool) error {
	paths, err := r.candidates(dirty)
	if err != nil {
		return err
	}
	moves, err := r.moves(paths)
	if err != nil {
		return err
	}
	if err := r.checkDeletions(moves); err != nil {
		return err
	}
	for _, m := range slices.Backward(moves) { // files below before what is to be in the place of their directory
		if m.source().Kind == None {
			if err := r.remove(m); err != nil {
				return err
			}
		}
	}
	for _, m := range moves {
		if m.source().Kind != None {
			if err := r.copy(m); err != nil {
				return err
			}
		}
	}
	if r.full && len(r.dirty) == 0 && !r.all {
		r.Base.completed()
	}
	return nil
}

// moves decides about paths.
func (r *round) moves(paths []string) (moves []move, err error) {
	host, guest, err := r.look(paths)
	if err != nil {
		return nil, err
	}
	for i, at := range paths {
		base, known := r.Base.states[at]
		if sent, ok := r.Sent[at]; ok && !known && !r.Base.complete {
			base = seeded(sent, host[i], guest[i])
		}
		m := move{at: at, host: host[i].State, guest: guest[i].State}
		m.verdict, m.revived = decide(base, m.host, m.guest)
		if isRules(at) && m.host != base && !r.full {
			r.all = true
		}
		switch {
		case m.verdict == agreed:
			r.Base.agree(at, asFile(m.host))
			delete(r.told, at)
		case m.verdict == left:
			r.tellOnce(Event{Event: LeftOut, Path: at, Reason: "no regular file, too large, or not readable"})
		case m.verdict == toHost && !r.mayPass(at, asFile(m.guest)):
			r.tellOnce(Event{Event: HeldBack, Path: at, From: GuestSide, Seen: asFile(m.guest), Reason: "programs of the host run it or obey it by themselves"})
		default:
			moves = append(moves, m)
		}
	}
	return moves, nil
}

// look gives the states of paths on both sides.
func (r *round) look(paths []string) (host, guest []Found, err error) {
	if len(paths) == 0 {
		return nil, nil, nil
	}
	blobs := len(r.Sent) > 0 && !r.Base.complete
	if host, err = r.Host.Look(r.ctx, paths, blobs); err == nil {
		guest, err = r.Guest.Look(r.ctx, paths, blobs)
	}
	return host, guest, err
}

const (
	fewFiles       = 10 // may always go
	deletionWindow = 30 * time.Second
)

// deletions counts the files that a side has lost of late.
type deletions struct {
	since time.Time
	n     int
}

// checkDeletions refuses that most of the files of a side go, at once or one after another.
func (r *round) checkDeletions(moves []move) error {
	if r.Deletions {
		return nil
	}
	files := 0
	for _, s := range r.Base.states {
		if s.Kind != None {
			files++
		}
	}
	for v, side := range map[verdict]string{toHost: HostSide, toGuest: GuestSide} {
		n := 0
		for _, m := range moves {
			if m.verdict == v && m.source().Kind == None {
				n++
			}
		}
		before := r.lost[side]
		if before == nil || r.Now().Sub(before.since) > deletionWindow {
			before = &deletions{since: r.Now()}
			r.lost[side] = before
		}
		if all := files + before.n; n > 0 && n+before.n > max(fewFiles, all/2) {
			return refusedDeletions(side, n+before.n, all)
		}
		before.n += n
	}
	return nil
}

// target is where a move goes.
func (r *round) target(m move) (from, to Side, source, side string, there State) {
	if m.verdict == toHost {
		return r.Guest, r.Host, GuestSide, HostSide, m.host
	}
	return r.Host, r.Guest, HostSide, GuestSide, m.guest
}

func (r *round) put(m move, side string, there State) Put {
	return Put{Path: m.at, Expect: there, Keep: conflictName(m.at, side, r.Now()), Always: m.verdict == bothKept}
}

func (r *round) remove(m move) error {
	_, to, source, side, there := r.target(m)
	result, err := to.Remove(r.ctx, r.put(m, side, there))
	if err != nil {
		return r.leave(m, err)
	}
	r.tellKept(m.at, source, result)
	if result.Outcome != Done {
		r.dirty[m.at] = true
		return nil
	}
	r.Base.agree(m.at, State{})
	r.changed(m, side)
	r.tell(Event{Event: Removed, Path: m.at, From: source})
	return nil
}

func (r *round) copy(m move) error {
	from, to, source, side, there := r.target(m)
	item, content, err := from.Read(r.ctx, m.at)
	if err != nil {
		return r.leave(m, err)
	}
	if item.Kind == None { // it has gone meanwhile
		r.dirty[m.at] = true
		return content.Close()
	}
	result, err := to.Write(r.ctx, r.put(m, side, there), item, content)
	if closing := content.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return r.leave(m, err)
	}
	r.tellKept(m.at, source, result)
	switch result.Outcome {
	case Done:
		r.Base.agree(m.at, result.State)
		r.changed(m, side)
		if event := Written; m.verdict != bothKept {
			if m.revived {
				event = Revived
			}
			r.tell(Event{Event: event, Path: m.at, From: source})
		}
	case Stale:
		r.dirty[m.at] = true
	case Clash:
		return r.clash(m, from, to, source, side)
	}
	return nil
}

// isRules tells a file that says what is ignored.
func isRules(at string) bool { return path.Base(at) == ".gitignore" }

// changed has all looked at again when the rules about what is ignored change.
func (r *round) changed(m move, side string) {
	if isRules(m.at) && side == HostSide {
		r.all = true
	}
	delete(r.told, m.at)
}

func (r *round) tellKept(at, winner string, result Result) {
	if result.Kept != "" {
		r.dirty[result.Kept] = true
		r.tell(Event{Event: Conflict, Path: at, From: winner, KeptAs: result.Kept})
	}
}

// clash makes way where one side has a file and the other a directory at the same path: the file gets another name.
func (r *round) clash(m move, from, to Side, source, side string) error {
	r.dirty[m.at] = true
	places := append(ancestors(m.at), m.at)
	states, err := to.Look(r.ctx, places, false)
	if err != nil {
		return err
	}
	for i, at := range places {
		switch kind := states[i].Kind; {
		case at == m.at && kind == Dir: // with something in it
			return r.aside(m, from, at, source)
		case at != m.at && (kind == File || kind == Link):
			return r.aside(m, to, at, side)
		}
	}
	return nil // it has changed meanwhile
}

// aside gives a file another name, because the other side has a directory there.
func (r *round) aside(m move, side Side, at, name string) error {
	if name == HostSide && !r.mayPass(at, State{}) {
		delete(r.dirty, m.at)
		r.tellOnce(Event{Event: LeftOut, Path: at, Reason: "it is a file here and a directory in the guest"})
		return nil
	}
	kept, err := side.Aside(r.ctx, at, conflictName(at, name, r.Now()))
	if err != nil {
		return r.leave(m, err)
	}
	r.dirty[at] = true
	r.tellKept(at, otherSide(name), Result{Kept: kept})
	return nil
}

func otherSide(side string) string {
	if side == HostSide {
		return GuestSide
	}
	return HostSide
}

// ancestors gives the directories that a path lies in, below the root.
func ancestors(at string) (dirs []string) {
	for dir := path.Dir(at); dir != "."; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
	}
	return dirs
}

// leave goes on after an error that concerns one path.
func (r *round) leave(m move, err error) error {
	if r.ctx.Err() != nil || !errors.Is(err, banger.ErrRefused) && !errors.Is(err, banger.ErrInvalid) && !errors.Is(err, banger.ErrNotFound) {
		return err
	}
	r.tellOnce(Event{Event: LeftOut, Path: m.at, Reason: err.Error()})
	return nil
}
