package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/api"
)

func newTestOperation() *operation {
	return &operation{log: slog.New(slog.DiscardHandler), cancel: func(error) {}, changed: make(chan struct{}), info: api.Operation{State: api.OperationRunning}}
}

// Whoever looks, and however seldom, hears of each begin, notice and end in order, and last of how far a stage has come.
func TestFollowers(t *testing.T) {
	for seed := range int64(200) {
		rng := rand.New(rand.NewSource(seed))
		o := newTestOperation()
		var all []string // what everyone must hear
		begun := map[string]bool{}
		type follower struct {
			seen  int
			heard []string
			last  map[string]string
		}
		followers := []*follower{{last: map[string]string{}}, {last: map[string]string{}}, {last: map[string]string{}}}
		look := func(f *follower) {
			news, now, _, _ := o.since(f.seen)
			for _, p := range news {
				if p.Bytes > 0 {
					f.last[p.Stage] = fmt.Sprint(p.Bytes)
				} else {
					f.heard = append(f.heard, fmt.Sprint(p.Stage, p.Text, p.Notice, p.Done))
				}
			}
			f.seen = now
		}
		last := map[string]string{}
		for i := range 1 + rng.Intn(maxTold-10) {
			p := banger.Progress{Stage: string(rune('a' + rng.Intn(3)))}
			switch n := rng.Intn(6); {
			case n == 0:
				p.Notice, p.Text = true, fmt.Sprint(i)
			case !begun[p.Stage]:
				begun[p.Stage] = true
			case n == 1:
				p.Done, begun[p.Stage] = true, false
			default:
				p.Bytes = int64(i + 1)
				last[p.Stage] = fmt.Sprint(p.Bytes)
			}
			if p.Bytes == 0 {
				all = append(all, fmt.Sprint(p.Stage, p.Text, p.Notice, p.Done))
			}
			o.report(p)
			for _, f := range followers[:2] {
				if rng.Intn(4) == 0 {
					look(f)
				}
			}
		}
		o.end(api.Event{}, nil)
		for i, f := range followers {
			look(f)
			if !slices.Equal(f.heard, all) || fmt.Sprint(f.last) != fmt.Sprint(last) {
				t.Fatalf("seed %d: follower %d heard %v and %v, want %v and %v", seed, i, f.heard, f.last, all, last)
			}
		}
	}
}

func TestRunningAreBounded(t *testing.T) {
	all := operations{}
	for range maxRunning {
		all.all = append(all.all, newTestOperation())
	}
	if _, err := all.start(api.Operation{Kind: "create vm"}, work{subject: "x"}); !errors.Is(err, banger.ErrUnavailable) {
		t.Errorf("one more = %v, want unavailable", err)
	}
	if err := all.close(false); !errors.Is(err, banger.ErrConflict) || !strings.Contains(err.Error(), "10000 operations are running: ") || len(err.Error()) > 200 {
		t.Errorf("close = %.300v, want a short conflict", err)
	}
	for _, o := range all.all {
		o.end(api.Event{}, nil)
	}
	all.forget()
	if len(all.all) != maxEnded {
		t.Errorf("%d that ended are remembered, want %d", len(all.all), maxEnded)
	}
}

func TestToldIsBounded(t *testing.T) {
	o := newTestOperation()
	for i := range 10 * maxTold {
		o.report(banger.Progress{Stage: "a", Text: fmt.Sprint(i), Notice: true})
		o.report(banger.Progress{Stage: "b", Bytes: int64(i)})
	}
	news, count, _, _ := o.since(0)
	if len(news) != maxTold || count != 20*maxTold || news[len(news)-1].Bytes != 10*maxTold-1 {
		t.Errorf("%d events of %d are kept, the last %+v, want the newest %d", len(news), count, news[len(news)-1], maxTold)
	}
	if stages := o.snapshot().Stages; len(stages) != 1 {
		t.Errorf("stages %+v, want b alone", stages)
	}
	o.end(api.Event{}, context.Canceled)
	o.report(banger.Progress{Stage: "late"})
	if _, after, _, ended := o.since(0); after != count || !ended {
		t.Errorf("an operation that ended tells of %d events, want %d", after, count)
	}
	if info := o.snapshot(); info.State != api.OperationFailed {
		t.Errorf("state %s of one that nobody cancelled, want failed", info.State)
	}
}
