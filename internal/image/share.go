package image

import (
	"context"
	"maps"
	"slices"

	"banger"
)

// job is one image being made for everyone who waits for it.
type job struct {
	cancel  context.CancelFunc
	done    chan struct{}
	image   banger.Image // once done
	err     error
	waiting map[int]banger.ProgressFunc // under Manager.mu
	next    int
	last    banger.Progress // what a late waiter hears first
}

// share does work for all who ask for it by the same key at the same time. It ends early when all of them have left. op is for errors.
func (m *Manager) share(ctx context.Context, op, key string, progress banger.ProgressFunc,
	work func(context.Context, banger.ProgressFunc) (banger.Image, error)) (banger.Image, error) {
	j, leave := m.join(key, progress, work)
	defer leave()
	select {
	case <-j.done:
		return j.image, j.err
	case <-ctx.Done():
		return banger.Image{}, &banger.Error{Kind: banger.ErrInterrupted, Op: op, Err: ctx.Err()}
	}
}

// join takes part in a job and starts it when nobody has yet.
func (m *Manager) join(key string, progress banger.ProgressFunc, work func(context.Context, banger.ProgressFunc) (banger.Image, error)) (j *job, leave func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j = m.jobs[key]
	if j == nil {
		ctx, cancel := context.WithCancel(context.Background())
		j = &job{cancel: cancel, done: make(chan struct{}), waiting: map[int]banger.ProgressFunc{}}
		m.jobs[key] = j
		go m.run(ctx, key, j, work)
	} else if j.last.Stage != "" {
		progress.Report(j.last)
	}
	ticket := j.next
	j.next++
	j.waiting[ticket] = progress
	return j, func() { m.leave(key, j, ticket) }
}

// leave waits for a job that it ends: its caller must find nothing left. Nobody joins a job that is being ended.
func (m *Manager) leave(key string, j *job, ticket int) {
	m.mu.Lock()
	delete(j.waiting, ticket)
	last := len(j.waiting) == 0
	if last && m.jobs[key] == j {
		delete(m.jobs, key)
	}
	m.mu.Unlock()
	if last {
		j.cancel()
		<-j.done
	}
}

func (m *Manager) run(ctx context.Context, key string, j *job, work func(context.Context, banger.ProgressFunc) (banger.Image, error)) {
	defer j.cancel()
	j.image, j.err = work(ctx, func(p banger.Progress) { m.tell(j, p) })
	m.mu.Lock()
	if m.jobs[key] == j {
		delete(m.jobs, key)
	}
	m.mu.Unlock()
	close(j.done)
}

// tell reports to everyone who waits.
func (m *Manager) tell(j *job, p banger.Progress) {
	m.mu.Lock()
	j.last = p
	waiting := slices.Collect(maps.Values(j.waiting))
	m.mu.Unlock()
	for _, progress := range waiting {
		progress.Report(p)
	}
}
