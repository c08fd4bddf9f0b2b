package cli

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// signals gives every signal that asks banger to end to the handler in charge.
type signals struct {
	mu     sync.Mutex
	handle func(os.Signal)
	ch     chan os.Signal
}

func watchSignals(handle func(os.Signal)) *signals {
	s := &signals{handle: handle, ch: make(chan os.Signal, 8)}
	signal.Notify(s.ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		for sig := range s.ch {
			s.mu.Lock()
			handle := s.handle
			s.mu.Unlock()
			handle(sig)
		}
	}()
	return s
}

// redirect puts another handler in charge until restore is called.
func (s *signals) redirect(handle func(os.Signal)) (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.handle
	s.handle = handle
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.handle = before
	}
}

func (s *signals) stop() {
	signal.Stop(s.ch)
	close(s.ch)
}
