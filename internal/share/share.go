// Package share lets everyone who asks for the same long work at the same time wait for one doing of it.
package share

import (
	"context"
	"maps"
	"slices"
	"sync"

	"banger"
)

// Group is works that each give a T. The zero value is ready for use.
type Group[T any] struct {
	mu   sync.Mutex
	jobs map[string]*job[T] // by key
}

// job is one work and everyone who waits for it.
type job[T any] struct {
	cancel  context.CancelFunc
	done    chan struct{}
	result  T // once done
	err     error
	waiting map[int]banger.ProgressFunc // under Group.mu
	next    int
	last    banger.Progress // what a late waiter hears first
}

// Do does work for all who ask for it by the same key at the same time. A caller whose ctx ends leaves the work to the others; the
// last one to leave ends it and returns when it has ended. op is for errors.
// Errors: those of work; ErrInterrupted when ctx ends.
func (g *Group[T]) Do(ctx context.Context, op, key string, progress banger.ProgressFunc, work func(context.Context, banger.ProgressFunc) (T, error)) (T, error) {
	j, leave := g.join(ctx, key, progress, work)
	defer leave()
	select {
	case <-j.done:
		return j.result, j.err
	case <-ctx.Done():
		var none T
		return none, &banger.Error{Kind: banger.ErrInterrupted, Op: op, Err: context.Cause(ctx)}
	}
}

// join takes part in a job and starts it when nobody has yet: its context has the values of who did.
func (g *Group[T]) join(ctx context.Context, key string, progress banger.ProgressFunc, work func(context.Context, banger.ProgressFunc) (T, error)) (j *job[T], leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	j = g.jobs[key]
	if j == nil {
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		j = &job[T]{cancel: cancel, done: make(chan struct{}), waiting: map[int]banger.ProgressFunc{}}
		if g.jobs == nil {
			g.jobs = map[string]*job[T]{}
		}
		g.jobs[key] = j
		go g.run(ctx, key, j, work)
	} else if j.last.Stage != "" {
		progress.Report(j.last)
	}
	ticket := j.next
	j.next++
	j.waiting[ticket] = progress
	return j, func() { g.leave(key, j, ticket) }
}

// leave waits for a job that it ends: its caller must find nothing left. Nobody joins a job that is being ended.
func (g *Group[T]) leave(key string, j *job[T], ticket int) {
	g.mu.Lock()
	delete(j.waiting, ticket)
	last := len(j.waiting) == 0
	if last && g.jobs[key] == j {
		delete(g.jobs, key)
	}
	g.mu.Unlock()
	if last {
		j.cancel()
		<-j.done
	}
}

func (g *Group[T]) run(ctx context.Context, key string, j *job[T], work func(context.Context, banger.ProgressFunc) (T, error)) {
	defer j.cancel()
	j.result, j.err = work(ctx, func(p banger.Progress) { g.tell(j, p) })
	g.mu.Lock()
	if g.jobs[key] == j {
		delete(g.jobs, key)
	}
	g.mu.Unlock()
	close(j.done)
}

// tell reports to everyone who waits.
func (g *Group[T]) tell(j *job[T], p banger.Progress) {
	g.mu.Lock()
	if !p.Notice {
		j.last = p
	}
	waiting := slices.Collect(maps.Values(j.waiting))
	g.mu.Unlock()
	for _, progress := range waiting {
		progress.Report(p)
	}
}
