package share

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"banger"
)

// world counts the doings of one work, which goes on until it is let go or ended.
type world struct {
	group  Group[int]
	begun  int
	ended  int // cut off
	finish chan struct{}
}

func (w *world) ask(ctx context.Context, progress banger.ProgressFunc) (int, error) {
	return w.group.Do(ctx, "do it", "key", progress, func(ctx context.Context, progress banger.ProgressFunc) (int, error) {
		w.begun++
		n := w.begun
		progress.Report(banger.Progress{Stage: "work", Bytes: int64(n)})
		select {
		case <-w.finish:
			return n, nil
		case <-ctx.Done():
			w.ended++
			return 0, ctx.Err()
		}
	})
}

// asker is one caller.
type asker struct {
	leave  context.CancelFunc
	done   chan struct{}
	result int
	err    error
	heard  []banger.Progress
}

func (w *world) newAsker(t *testing.T) *asker {
	ctx, cancel := context.WithCancel(t.Context())
	a := &asker{leave: cancel, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.result, a.err = w.ask(ctx, func(p banger.Progress) { a.heard = append(a.heard, p) })
	}()
	synctest.Wait()
	return a
}

func TestDoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{finish: make(chan struct{})}
		first, second, third := w.newAsker(t), w.newAsker(t), w.newAsker(t)
		first.leave() // the one that began it
		<-first.done
		if !errors.Is(first.err, banger.ErrInterrupted) || w.ended != 0 {
			t.Errorf("who left got %v, and %d works ended", first.err, w.ended)
		}
		close(w.finish)
		for _, a := range []*asker{second, third} {
			<-a.done
			if a.result != 1 || a.err != nil || len(a.heard) == 0 {
				t.Errorf("who stayed got %d, %v and heard %v", a.result, a.err, a.heard)
			}
		}
		if w.begun != 1 {
			t.Errorf("it was done %d times", w.begun)
		}
		if again, err := w.ask(t.Context(), nil); again != 2 || err != nil {
			t.Errorf("later it gave %d, %v, want it done anew", again, err)
		}
	})
}

func TestDoLastLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{finish: make(chan struct{})}
		first, second := w.newAsker(t), w.newAsker(t)
		first.leave()
		<-first.done
		second.leave()
		<-second.done
		if w.ended != 1 { // when the last one returns, the work has ended
			t.Errorf("%d works ended, want 1", w.ended)
		}
		close(w.finish)
		if again, err := w.ask(t.Context(), nil); again != 2 || err != nil {
			t.Errorf("later it gave %d, %v, want it done anew", again, err)
		}
	})
}
