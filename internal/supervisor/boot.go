package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"banger"
	"banger/internal/channel"
	"banger/internal/guest"
	"banger/internal/machine"
	"banger/internal/vmm"
)

// What a guest can make us do is bounded.
const (
	maxTimings  = 32                     // steps of its boot
	maxNotes    = 200                    // lines in the log
	streamPause = 100 * time.Millisecond // between two events streams
)

// boot is one VMM of a run and the guest in it.
type boot struct {
	*run
	events  *guest.Events
	life    context.Context // ends with close
	cancel  context.CancelFunc
	work    sync.WaitGroup
	machine vmm.Machine
	gone    chan struct{} // closed when the VMM has ended and its console is read
	ready   chan struct{} // closed when the guest is
	readied func()        // closes ready
	greeted chan struct{} // closed when there is a stream: after ready when the VMM was taken over
	greets  func()        // closes greeted

	mu      sync.Mutex
	stream  *guest.EventStream // the newest
	timings []banger.Timing    // of the host's side
	begun   time.Time          // when the VMM had been started
	notes   int                // lines in the log that the guest caused
	used    bool               // a stream has made the guest ready
}

// newBoot listens to the guest's events, which a guest may send as soon as there is one.
func (r *run) newBoot() (*boot, error) {
	listener, err := channel.Listen(r.dir.GuestPortSocket(channel.PortEvents))
	if err != nil {
		return nil, err
	}
	b := &boot{run: r, events: guest.NewEvents(listener), begun: time.Now(), gone: make(chan struct{}), ready: make(chan struct{}), greeted: make(chan struct{})}
	b.readied = sync.OnceFunc(func() { close(b.ready) })
	b.greets = sync.OnceFunc(func() { close(b.greeted) })
	b.life, b.cancel = context.WithCancel(context.Background())
	b.work.Go(b.greet)
	b.work.Go(b.keepClock)
	return b, nil
}

// own begins to serve the machine.
func (b *boot) own(m vmm.Machine) {
	b.machine = m
	b.mu.Lock()
	b.begun = time.Now()
	b.mu.Unlock()
	b.work.Go(b.serveNetwork)
	copied := make(chan struct{})
	b.work.Go(func() {
		defer close(copied)
		b.keepConsole(m.Console())
	})
	b.work.Go(func() {
		m.Wait()
		<-copied
		close(b.gone)
	})
}

// keepConsole reads the console to its end whatever becomes of the ring: an unread console blocks the guest.
func (b *boot) keepConsole(console io.Reader) {
	if _, err := io.Copy(b.ring, console); err != nil {
		b.Log.Warn("write console ring", "err", err)
		_, _ = io.Copy(io.Discard, console)
	}
}

// close ends what belongs to the boot; the VMM is gone.
func (b *boot) close() {
	b.cancel()
	b.events.Close()
	b.mu.Lock()
	stream := b.stream
	b.mu.Unlock()
	if stream != nil {
		stream.Close()
	}
	b.work.Wait()
}

// timed adds a step of the host's side.
func (b *boot) timed(step string, since time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timings = append(b.timings, banger.Timing{Side: "host", Step: step, Elapsed: time.Since(since)})
}

// watch returns when the VMM has ended. A guest that is not ready within deadline (0: never mind) is killed.
func (b *boot) watch(deadline time.Duration) banger.Exit {
	if deadline > 0 {
		timer := time.NewTimer(deadline)
		defer timer.Stop()
		select {
		case <-b.ready:
			timer.Stop()
		case <-b.gone:
		case <-timer.C:
			return b.late(deadline)
		}
	}
	<-b.gone
	return b.exit(b.machine.Wait())
}

func (b *boot) late(deadline time.Duration) banger.Exit {
	b.kill()
	<-b.gone
	end := b.machine.Wait()
	if end.Cause == banger.ExitKilled {
		end = vmm.Exit{Cause: banger.ExitNoBoot, Detail: fmt.Sprintf("the guest was not ready within %v", deadline)}
	}
	return b.exit(end)
}

func (b *boot) kill() {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	if err := b.machine.Kill(ctx); err != nil {
		b.Log.Error("kill the VMM", "err", err)
	}
}

func (b *boot) isReady() bool {
	select {
	case <-b.ready:
		return true
	default:
		return false
	}
}

// answered is a guest that had been ready when its last supervisor died.
func (b *boot) answered() {
	b.readied()
	b.run.mu.Lock()
	b.status.Phase, b.readyAt = machine.PhaseReady, time.Now()
	b.run.mu.Unlock()
	b.settle()
}

// note logs what a guest does, until it has done too much of it.
func (b *boot) note(text string, args ...any) {
	b.mu.Lock()
	b.notes++
	silent := b.notes > maxNotes
	b.mu.Unlock()
	if !silent && b.life.Err() == nil {
		b.Log.Info(text, args...)
	}
}

// greet takes the events streams of the guest. A new one ends the one before.
func (b *boot) greet() {
	foreign := sync.OnceFunc(func() { b.say("the guest speaks another version of banger's protocol") })
	for {
		stream, err := b.events.Accept(b.life)
		switch {
		case errors.Is(err, banger.ErrUnsupported):
			foreign()
			b.note("greet the guest", "err", err)
		case err != nil:
			if b.life.Err() == nil {
				b.Log.Error("wait for the guest's events", "err", err)
			}
			return
		default:
			b.take(stream)
		}
		select {
		case <-time.After(streamPause):
		case <-b.life.Done():
			return
		}
	}
}

func (b *boot) take(stream *guest.EventStream) {
	b.mu.Lock()
	old := b.stream
	b.stream = stream
	b.mu.Unlock()
	b.greets()
	if old != nil {
		old.Close()
	}
	b.work.Go(func() { b.listen(stream) })
	b.work.Go(func() { b.identify(stream) })
}

// listen takes events as they come: unread ones would stop the guest's answers.
func (b *boot) listen(stream *guest.EventStream) {
	defer stream.Close()
	for {
		event, err := stream.Next(b.life)
		switch {
		case err != nil:
			b.note("the guest's events end", "reason", escape(err.Error(), maxDetail))
			return
		case event.System != nil:
			state := escape(event.System.State, maxName)
			b.note("the image's init has come up", "state", state)
			b.initState(state)
		case event.Going != nil:
			b.note("the guest is going down", "reboot", event.Going.Reboot)
		}
	}
}

// identify tells the guest who it is. The first time completes the boot.
func (b *boot) identify(stream *guest.EventStream) {
	asked := time.Now()
	ready, err := stream.Identify(b.life, b.identity())
	if err != nil {
		b.note("identify the guest", "err", escape(err.Error(), maxDetail))
		stream.Close()
		return
	}
	b.mu.Lock()
	first := !b.used
	b.used = true
	timings := append(b.timings[:len(b.timings):len(b.timings)],
		banger.Timing{Side: "host", Step: "guest says hello", Elapsed: asked.Sub(b.begun)},
		banger.Timing{Side: "host", Step: "identify", Elapsed: time.Since(asked)})
	b.mu.Unlock()
	b.readied()
	if first {
		b.markReady(stream.Hello(), append(timings, guestTimings(ready.Timings)...))
		b.work.Go(b.signIn)
		b.recordReady()
	}
}

// signIn spares the first command the wait for it. Then all is done that a start needs memory for.
func (b *boot) signIn() {
	if _, err := b.link.get(b.life); err != nil {
		b.note("sign in to the guest", "err", escape(err.Error(), maxDetail))
	}
	b.rest()
}

// guestTimings makes what a guest says fit for a person's terminal.
func guestTimings(list []banger.Timing) []banger.Timing {
	timings := make([]banger.Timing, 0, min(len(list), maxTimings))
	for _, t := range list[:min(len(list), maxTimings)] {
		timings = append(timings, banger.Timing{Side: "guest", Step: escape(t.Step, maxName), Elapsed: t.Elapsed})
	}
	return timings
}
