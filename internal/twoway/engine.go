package twoway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"banger"
)

// Config says what an engine keeps alike.
type Config struct {
	Host, Guest Side
	Base        *Base
	// Sent is what went into the guest before the first watch, by path.
	Sent map[string]Sent
	// Excluded gives those of paths that are not kept alike. A path that ends in a slash is a directory: what is below it is excluded too.
	Excluded func(ctx context.Context, paths []string) (map[string]bool, error)
	// Accept are paths whose changes in the guest are never held back, nor what is below them.
	Accept []string
	// Deletions lets a side lose most of its files because the other one has.
	Deletions bool
	// Tell is told what happens. It must not wait for the engine.
	Tell func(Event)
	Now  func() time.Time // optional: time.Now
}

// Event is what a person may want to know.
type Event struct {
	Time   time.Time `json:"time"`              // when it was done
	Event  string    `json:"event"`             // "ready", "written", "removed", "conflict", "revived", "held" or "left_out"
	Path   string    `json:"path,omitempty"`    // below the root; absent: of all
	From   string    `json:"from,omitempty"`    // the side whose version it is: "host" or "guest"
	KeptAs string    `json:"kept_as,omitempty"` // path of the version that gave way
	Reason string    `json:"reason,omitempty"`  // why it is held back or left out

	Seen State `json:"-"` // of a file that is held back, for [Engine.Accept]
}

// Events.
const (
	Ready    = "ready"    // all files are alike, for the first time
	Written  = "written"  // a file went to the other side
	Removed  = "removed"  // a file was removed on the other side
	Conflict = "conflict" // both versions are kept
	Revived  = "revived"  // one side has removed a file that the other has changed: it is back
	HeldBack = "held"     // a change of the guest waits to be accepted
	LeftOut  = "left_out" // a path that can't be kept alike
)

// Sides of an event.
const (
	HostSide  = "host"
	GuestSide = "guest"
)

// Engine keeps two sides alike. Only Accept may be called while another method runs.
type Engine struct {
	Config
	dirty  map[string]bool
	all    bool
	nested map[string]bool // directories with a repository of their own
	told   map[string]Event
	lost   map[string]*deletions // by side

	mu       sync.Mutex
	accepted map[string]State
	renewed  []string // accepted paths to look at again
	wake     chan struct{}
}

// NewEngine makes one that has not looked at anything yet.
func NewEngine(c Config) *Engine {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Engine{Config: c, dirty: map[string]bool{}, all: true, nested: map[string]bool{}, told: map[string]Event{}, lost: map[string]*deletions{}, accepted: map[string]State{}, wake: make(chan struct{}, 1)}
}

const (
	settle = 50 * time.Millisecond  // after a change, for others that come with it
	again  = 250 * time.Millisecond // before what could not be done is tried again
)

// Run keeps the sides alike until ctx ends or a side does. Errors: ErrInterrupted; ErrUnavailable when the guest is gone; ErrRefused when
// most of the files would go.
func (e *Engine) Run(ctx context.Context) error {
	for ready := false; ; {
		unfinished, err := e.Round(ctx)
		if ctx.Err() != nil {
			return &banger.Error{Kind: banger.ErrInterrupted, Op: "watch", Err: context.Cause(ctx)}
		}
		if err != nil {
			return err
		}
		if !ready && !unfinished {
			ready = true
			e.tell(Event{Event: Ready})
		}
		if err := e.await(ctx, unfinished); err != nil {
			return err
		}
	}
}

// await waits until there is something to do.
func (e *Engine) await(ctx context.Context, unfinished bool) error {
	var retry <-chan time.Time
	if unfinished {
		retry = time.After(again)
	}
	select {
	case <-e.Host.Changed():
	case <-e.Guest.Changed():
	case <-e.wake:
	case <-retry:
	case <-ctx.Done():
		return &banger.Error{Kind: banger.ErrInterrupted, Op: "watch", Err: context.Cause(ctx)}
	}
	select {
	case <-time.After(settle):
	case <-ctx.Done():
	}
	return nil
}

// Accept lets what the guest has at a path go to the host, as it was seen.
func (e *Engine) Accept(at string, seen State) {
	e.mu.Lock()
	e.accepted[at] = seen
	e.renewed = append(e.renewed, at)
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *Engine) mayPass(at string, seen State) bool {
	if !Held(at) {
		return true
	}
	for _, p := range e.Config.Accept {
		if below(at, p) {
			return true
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	accepted, ok := e.accepted[at]
	return ok && accepted == seen
}

func below(at, dir string) bool { return at == dir || strings.HasPrefix(at, dir+"/") }

func (e *Engine) tell(ev Event) {
	ev.Time = e.Now().UTC()
	e.Tell(ev)
}

// tellOnce tells what stays as it is only once.
func (e *Engine) tellOnce(ev Event) {
	if e.told[ev.Path] != ev {
		e.told[ev.Path] = ev
		e.tell(ev)
	}
}

// collect takes what may have changed since the last round.
func (e *Engine) collect() error {
	for _, side := range []Side{e.Host, e.Guest} {
		paths, all, err := side.Take()
		if err != nil {
			return err
		}
		e.all = e.all || all
		for _, at := range paths {
			e.dirty[at] = true
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, at := range e.renewed {
		e.dirty[at] = true
	}
	e.renewed = nil
	return nil
}

// Round looks at what may have changed and does what follows. unfinished tells that another round has work to do.
func (e *Engine) Round(ctx context.Context) (unfinished bool, err error) {
	if err := e.collect(); err != nil {
		return false, err
	}
	dirty, all := e.dirty, e.all
	e.dirty, e.all = map[string]bool{}, false
	r := &round{Engine: e, ctx: ctx, full: all}
	if err := errors.Join(r.run(dirty), e.Base.save()); err != nil {
		for at := range dirty { // nothing of it is forgotten by who goes on all the same
			e.dirty[at] = true
		}
		e.all = e.all || all
		return false, err
	}
	return len(e.dirty) > 0 || e.all, nil
}

// candidates gives the paths to decide about, sorted: those that have changed, and what is or was below them.
func (r *round) candidates(dirty map[string]bool) ([]string, error) {
	found := map[string]bool{}
	dirs := []string{"."}
	if !r.full {
		for at := range dirty {
			if path.Base(at) == ".git" && at != ".git" {
				r.leaveRepository(path.Dir(at))
			}
		}
		names, err := r.wanted(slices.Collect(maps.Keys(dirty)), nil)
		if err != nil {
			return nil, err
		}
		if dirs, err = r.directories(names); err != nil {
			return nil, err
		}
		for _, at := range names {
			found[at] = true
		}
	}
	files, err := r.discover(dirs)
	if err != nil {
		return nil, err
	}
	for _, at := range files {
		found[at] = true
	}
	var before []string
	for at := range r.Base.states {
		if !found[at] && (r.full || dirtyAbove(dirty, at)) {
			before = append(before, at)
		}
	}
	before, err = r.wanted(before, nil)
	list := append(slices.Collect(maps.Keys(found)), before...)
	slices.Sort(list)
	return list, err
}

func dirtyAbove(dirty map[string]bool, at string) bool {
	for ; at != "."; at = path.Dir(at) {
		if dirty[at] {
			return true
		}
	}
	return false
}

// directories gives those of paths that are a directory on a side and are kept alike.
func (r *round) directories(names []string) ([]string, error) {
	host, guest, err := r.look(names)
	if err != nil {
		return nil, err
	}
	isDir := map[string]bool{}
	var dirs []string
	for i, at := range names {
		if host[i].Kind == Dir || guest[i].Kind == Dir {
			isDir[at] = true
			dirs = append(dirs, at)
		}
	}
	return r.wanted(dirs, isDir)
}

// discover lists directories and those below them on both sides, and gives the files.
func (r *round) discover(level []string) (files []string, err error) {
	for len(level) > 0 {
		isDir := map[string]bool{}
		for _, side := range []Side{r.Host, r.Guest} {
			children, err := side.List(r.ctx, level)
			if err != nil {
				return nil, err
			}
			for _, c := range children {
				if path.Base(c.Path) == ".git" && path.Dir(c.Path) != "." {
					r.leaveRepository(path.Dir(c.Path))
				}
				isDir[c.Path] = isDir[c.Path] || c.Dir
			}
		}
		names, err := r.wanted(slices.Sorted(maps.Keys(isDir)), isDir)
		if err != nil {
			return nil, err
		}
		level = nil
		for _, at := range names {
			files = append(files, at) // a directory may have been a file
			if isDir[at] {
				level = append(level, at)
			}
		}
		if len(files) > MaxFiles {
			return nil, tooMany("both sides")
		}
	}
	return files, nil
}

// leaveRepository leaves out a directory below the root that is a repository of its own.
func (e *Engine) leaveRepository(dir string) {
	if !e.nested[dir] {
		e.nested[dir] = true
		e.tellOnce(Event{Event: LeftOut, Path: dir, Reason: "a repository of its own"})
	}
}

// wanted leaves out what is not kept alike. isDir tells which of paths are directories.
func (r *round) wanted(paths []string, isDir map[string]bool) ([]string, error) {
	var ask []string
	for _, at := range paths {
		if !valid(at) || r.inNested(at) {
			continue
		}
		if isDir[at] {
			at += "/"
		}
		ask = append(ask, at)
	}
	if len(ask) == 0 {
		return nil, nil
	}
	excluded, err := r.Excluded(r.ctx, ask)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, at := range ask {
		if !excluded[at] {
			names = append(names, strings.TrimSuffix(at, "/"))
		}
	}
	return names, nil
}

func (e *Engine) inNested(at string) bool {
	for ; len(e.nested) > 0 && at != "."; at = path.Dir(at) {
		if e.nested[at] {
			return true
		}
	}
	return false
}

// refusedDeletions is the error when most of a side's files would go.
func refusedDeletions(side string, n, of int) error {
	return &banger.Error{Kind: banger.ErrRefused, Op: "watch", Err: fmt.Errorf("%d of %d files are gone on the other side: they stay on the %s", n, of, side),
		Hint: "if they are to go: --allow-deletions; if not, put them back there"}
}
