package supervisor

import (
	"context"
	"errors"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// clockChanges tells each time this computer's clock is set, or goes on after a sleep, until ctx ends. It costs nothing in between: the
// kernel cancels a timer that never rings.
func clockChanges(ctx context.Context) (<-chan struct{}, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	timer := os.NewFile(uintptr(fd), "timerfd")
	arm := func() error {
		never := unix.ItimerSpec{Value: unix.Timespec{Sec: math.MaxInt32 * 100}}
		return os.NewSyscallError("timerfd_settime", unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &never, nil))
	}
	if err := arm(); err != nil {
		timer.Close()
		return nil, err
	}
	changes := make(chan struct{})
	go func() {
		defer close(changes)
		defer timer.Close()
		defer context.AfterFunc(ctx, func() { timer.SetReadDeadline(time.Unix(1, 0)) })()
		for {
			_, err := timer.Read(make([]byte, 8))
			if !errors.Is(err, unix.ECANCELED) || ctx.Err() != nil || arm() != nil {
				return
			}
			select {
			case changes <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return changes, nil
}

// keepClock tells the guest the time when it may have lost it.
func (b *boot) keepClock() {
	changes, err := b.ClockChanges(b.life)
	if err != nil {
		b.Log.Warn("watch the clock", "err", err)
		return
	}
	for range changes {
		b.mu.Lock()
		stream := b.stream
		b.mu.Unlock()
		if stream == nil || !b.isReady() {
			continue // the guest is told when it says hello
		}
		ctx, cancel := context.WithTimeout(b.life, killTimeout)
		_, err := stream.Identify(ctx, b.identity())
		cancel()
		b.note("this computer's clock was set or has slept: the guest has been told the time", "err", err)
	}
}
