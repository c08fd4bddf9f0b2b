package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"banger"
	"banger/api"
)

// maxTold bounds what is kept of one operation's progress for those who ask late.
const maxTold = 256

// operation is one work that runs or has ended, for any number of clients who follow it.
type operation struct {
	work
	log    *slog.Logger
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	info    api.Operation
	cause   error // why it is cancelled
	err     error // once it failed
	told    []told
	count   int           // of what was told
	changed chan struct{} // closed when something is told, and at the end
}

// told is one event. Of what a stage is doing right now only the newest is kept.
type told struct {
	number int
	update bool
	banger.Progress
}

func (o *operation) run(ctx context.Context) {
	info := o.snapshot()
	o.log.InfoContext(ctx, "operation begins", "kind", info.Kind, "subject", info.Subject, "client", info.ClientPID, "detached", info.Detached)
	last, err := o.do(ctx, o.report)
	info = o.end(last, err)
	level := slog.LevelInfo
	if info.State == api.OperationFailed {
		level = slog.LevelWarn
	}
	attrs := []any{"kind", info.Kind, "subject", info.Subject, "state", info.State, "elapsed", info.EndedAt.Sub(info.StartedAt).String()}
	if err != nil {
		attrs = append(attrs, "err", err)
	}
	o.log.Log(ctx, level, "operation ended", attrs...)
}

// report is the work's progress. It waits for nobody.
func (o *operation) report(p banger.Progress) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.info.State != api.OperationRunning {
		return // it was left behind by who does it
	}
	if p.Subject != "" {
		o.info.Subject = p.Subject
	}
	update := !p.Notice && o.stage(p)
	if update {
		o.told = slices.DeleteFunc(o.told, func(t told) bool { return t.update && t.Stage == p.Stage })
	}
	if len(o.told) == maxTold {
		o.told = slices.Delete(o.told, 0, 1)
	}
	o.count++
	o.told = append(o.told, told{number: o.count, update: update, Progress: p})
	o.wake()
}

// stage keeps where p's stage is, and tells whether p is only how far it has come. It is called with the lock held.
func (o *operation) stage(p banger.Progress) (update bool) {
	i := slices.IndexFunc(o.info.Stages, func(s banger.Progress) bool { return s.Stage == p.Stage })
	if i < 0 {
		o.info.Stages = append(o.info.Stages, p)
		return false
	}
	before := o.info.Stages[i]
	if p.Text == "" {
		p.Text = before.Text
	}
	o.info.Stages[i] = p
	return !p.Done && !before.Done
}

// wake is called with the lock held.
func (o *operation) wake() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// end keeps how it ended.
func (o *operation) end(last api.Event, err error) api.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.info.EndedAt, o.do, o.subject = time.Now().UTC(), nil, "" // the request is not kept
	switch {
	case err == nil:
		o.info.State, o.info.Result = api.OperationDone, &last
	case o.cause != nil && (errors.Is(err, banger.ErrInterrupted) || errors.Is(err, context.Canceled)):
		o.info.State = api.OperationCancelled
		fault := &banger.Error{Op: o.info.Kind, Subject: o.info.Subject, Err: o.cause}
		if o.insists {
			fault.Hint = "banger vm list tells what came of it"
		}
		err = fault
	default:
		o.info.State = api.OperationFailed
	}
	if err != nil {
		body := banger.EncodeError(err, o.info.ID)
		o.err, o.info.Error = err, &body
	}
	o.wake()
	return o.info
}

// stop cancels a running operation for the first reason that is given.
func (o *operation) stop(cause *banger.Error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cause == nil && o.info.State == api.OperationRunning {
		o.cause = cause
		o.cancel(cause)
	}
}

// since gives what was told after event number seen, the newest number, what closes when there is more, and whether all was told.
func (o *operation) since(seen int) (news []banger.Progress, newest int, changed <-chan struct{}, ended bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range o.told {
		if t.number > seen {
			news = append(news, t.Progress)
		}
	}
	return news, o.count, o.changed, o.info.State != api.OperationRunning
}

// snapshot is how it is now.
func (o *operation) snapshot() api.Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	info := o.info
	info.Stages = slices.Clone(info.Stages)
	return info
}

// failure is the error of one that failed or was cancelled.
func (o *operation) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

func (o *operation) isRunning() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.info.State == api.OperationRunning
}

// isWanted tells that it runs and nobody has cancelled it.
func (o *operation) isWanted() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.info.State == api.OperationRunning && o.cause == nil
}
