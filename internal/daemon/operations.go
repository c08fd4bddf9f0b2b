package daemon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"banger"
	"banger/api"
)

const (
	// maxRunning bounds the operations at one time: one command may stop that many VMs.
	maxRunning = api.MaxRefs
	// maxNamed bounds those that an error names.
	maxNamed = 4
	// maxEnded is how many operations that ended are remembered.
	maxEnded = 100
	// maxSubject bounds the object's name in bytes: a reference may be anything.
	maxSubject = 256
)

// Why an operation is cancelled, beside errEnding.
var (
	errCancelled = &banger.Error{Kind: banger.ErrInterrupted, Err: errors.New("it was cancelled")}
	errLeft      = &banger.Error{Kind: banger.ErrInterrupted, Err: errors.New("its client left")}
)

// work is what a request asks for, decoded: nothing of the request is needed to do it.
type work struct {
	subject string
	insists bool // goes on when its client leaves, and can't be cancelled
	do      func(ctx context.Context, progress banger.ProgressFunc) (api.Event, error)
}

// operations are those that run, and the last of those that ended.
type operations struct {
	log *slog.Logger

	mu      sync.Mutex   // before that of an operation
	all     []*operation // oldest first
	closed  bool         // none begins any more
	running sync.WaitGroup
}

// newOperationID makes "op-" and eight digits.
func newOperationID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand
	return "op-" + hex.EncodeToString(b[:])
}

// start begins w beside its client. Errors: ErrUnavailable when too many run, or the daemon ends.
func (s *operations) start(info api.Operation, w work) (*operation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch running := s.list((*operation).isRunning); {
	case s.closed:
		return nil, &banger.Error{Op: info.Kind, Subject: w.subject, Err: errEnding}
	case len(running) >= maxRunning:
		return nil, &banger.Error{Kind: banger.ErrUnavailable, Op: info.Kind, Subject: w.subject, Err: fmt.Errorf("%d operations run already", len(running)), Hint: "banger ops list"}
	}
	info.Subject, info.State, info.StartedAt = strings.ToValidUTF8(w.subject[:min(len(w.subject), maxSubject)], ""), api.OperationRunning, time.Now().UTC()
	ctx, cancel := context.WithCancelCause(banger.WithOperation(context.Background(), info.ID))
	o := &operation{work: w, log: s.log, cancel: cancel, info: info, changed: make(chan struct{})}
	s.all = append(s.all, o)
	s.running.Go(func() {
		defer cancel(nil)
		o.run(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.forget()
	})
	return o, nil
}

// forget drops the oldest of those that ended, but for some. It is called with the lock held.
func (s *operations) forget() {
	over := len(s.all) - len(s.list((*operation).isRunning)) - maxEnded
	s.all = slices.DeleteFunc(s.all, func(o *operation) bool {
		if over <= 0 || o.isRunning() {
			return false
		}
		over--
		return true
	})
}

// list gives those that pass, oldest first. It is called with the lock held.
func (s *operations) list(pass func(*operation) bool) (found []*operation) {
	for _, o := range s.all {
		if pass(o) {
			found = append(found, o)
		}
	}
	return found
}

// get finds an operation by its id or the beginning of it, with or without "op-". Errors: ErrNotFound; ErrInvalid when several begin so.
func (s *operations) get(ref string) (*operation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	prefix := "op-" + strings.TrimPrefix(ref, "op-")
	found := s.list(func(o *operation) bool { return strings.HasPrefix(o.info.ID, prefix) })
	fault := &banger.Error{Kind: banger.ErrNotFound, Op: "operation", Subject: fmt.Sprintf("%q", ref), Hint: "banger ops list --all; the daemon forgets old ones, and all when it ends"}
	switch {
	case len(found) == 0 || prefix == "op-":
		return nil, fault
	case len(found) > 1:
		var ids []string
		for _, o := range found[:min(len(found), 3)] {
			ids = append(ids, o.info.ID)
		}
		fault.Kind, fault.Err, fault.Hint = banger.ErrInvalid, errors.New("several ids begin so: "+strings.Join(ids, ", ")), "give more digits"
		return nil, fault
	}
	return found[0], nil
}

// count gives how many run.
func (s *operations) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.list((*operation).isRunning))
}

// snapshots tells of all operations, oldest first.
func (s *operations) snapshots() []api.Operation {
	s.mu.Lock()
	all := slices.Clone(s.all)
	s.mu.Unlock()
	list := []api.Operation{}
	for _, o := range all {
		list = append(list, o.snapshot())
	}
	return list
}

// close keeps operations from beginning. Unless forced it is refused while some run that nobody has cancelled. Errors: ErrConflict.
func (s *operations) close(force bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := s.list((*operation).isWanted)
	if !force && len(wanted) > 0 {
		return &banger.Error{Kind: banger.ErrConflict, Op: "stop the daemon", Err: errors.New(runningText(wanted)),
			Hint: "wait for the end (banger ops wait), or use --force: what is being made is undone then"}
	}
	s.closed = true
	return nil
}

// runningText names some of the operations in list.
func runningText(list []*operation) string {
	var names []string
	for _, o := range list[:min(len(list), maxNamed)] {
		info := o.snapshot()
		names = append(names, strings.TrimSpace(info.ID+" "+info.Kind+" "+info.Subject))
	}
	text := strings.Join(names, ", ")
	switch {
	case len(list) == 1:
		return "an operation is running: " + text
	case len(list) > len(names):
		text += ", …"
	}
	return fmt.Sprintf("%d operations are running: %s", len(list), text)
}

// drain returns when none runs any more; it cancels those that still do when ctx ends, and leaves those that are not undone
// within patience.
func (s *operations) drain(ctx context.Context, patience time.Duration) {
	_ = s.close(true)
	none := make(chan struct{})
	go func() {
		s.running.Wait()
		close(none)
	}()
	select {
	case <-none:
		return
	case <-ctx.Done():
	}
	s.mu.Lock()
	left := s.list((*operation).isRunning)
	s.mu.Unlock()
	for _, o := range left {
		o.stop(errEnding)
	}
	select {
	case <-none:
	case <-time.After(patience):
		s.log.Warn("operations that are not undone in time are left to the next start", "operations", len(left))
	}
}
