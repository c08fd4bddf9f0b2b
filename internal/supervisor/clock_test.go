package supervisor

import (
	"context"
	"testing"
	"time"

	"banger/internal/channel"
)

// A guest is told the time again when this computer's clock was set or has slept.
func TestFollowClock(t *testing.T) {
	w := newWorld(t, agent)
	changes := make(chan struct{})
	defer close(changes)
	w.clock = func(context.Context) (<-chan struct{}, error) { return changes, nil }
	w.start(t.Context())
	w.ready()
	first := <-w.identified
	changes <- struct{}{}
	var again channel.Identify
	select {
	case again = <-w.identified:
	case <-time.After(patience):
		t.Fatal("the guest is told nothing")
	}
	if !again.Clock.After(first.Clock) || again.HostName != first.HostName || again.HostKey != first.HostKey {
		t.Errorf("after the change the guest is told %v, first %v", again, first)
	}
}

func TestClockChangesEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	changes, err := clockChanges(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case _, ok := <-changes:
		if ok {
			t.Error("a change though nobody set the clock")
		}
	case <-time.After(patience):
		t.Error("it goes on after the end of its context")
	}
}
