package supervisor

import (
	"context"
	"time"

	"banger/internal/machine"
)

// shutdown ends the run and returns when it has ended: it asks the guest to power off, presses the power button when that
// did not help within half of timeout, and kills the VMM after all of it; at once when timeout is 0. It may be called
// again, with less patience.
func (r *run) shutdown(timeout time.Duration) {
	r.mu.Lock()
	if r.status.Phase != machine.PhaseEnded {
		r.status.Phase = machine.PhaseEnding
	}
	r.mu.Unlock()
	r.requestStop()
	begun := time.Now()
	unreached := time.AfterFunc(timeout, r.giveUp)
	defer unreached.Stop()
	select {
	case <-r.launched:
	case <-r.ended:
		return
	}
	timeout -= time.Since(begun)
	r.mu.Lock()
	b := r.boot
	r.mu.Unlock()
	if timeout > 0 {
		b.powerOff(timeout)
	}
	select {
	case <-b.gone:
	default:
		b.kill()
	}
	<-r.ended
}

// powerOff returns when the VMM has ended or timeout is over.
func (b *boot) powerOff(timeout time.Duration) {
	all, cancel := context.WithTimeout(b.life, timeout)
	defer cancel()
	half, cancelHalf := context.WithTimeout(all, timeout/2)
	defer cancelHalf()
	if b.askGuest(half, timeout/4) {
		select {
		case <-b.gone:
			return
		case <-half.Done():
		}
	}
	if err := b.machine.PowerButton(all); err != nil {
		b.Log.Warn("press the power button", "err", err)
	}
	select {
	case <-b.gone:
	case <-all.Done():
	}
}

// askGuest has the agent power off, once it is there. Grace is for the guest's processes.
func (b *boot) askGuest(ctx context.Context, grace time.Duration) bool {
	for _, there := range []chan struct{}{b.ready, b.greeted} {
		select {
		case <-there:
		case <-b.gone:
			return false
		case <-ctx.Done():
			return false
		}
	}
	b.mu.Lock()
	stream := b.stream
	b.mu.Unlock()
	if err := stream.PowerOff(grace); err != nil {
		b.Log.Warn("ask the guest to power off", "err", err)
		return false
	}
	return true
}
