package store

import "sync"

// changes tells those who wait that a record has changed.
type changes struct {
	mu   sync.Mutex
	next chan struct{} // closed at the next change; nil: nobody waits
}

// Changed gives a channel that is closed at the next change of any VM's record. Who waits for something asks for the channel
// first and looks then.
func (s *Store) Changed() <-chan struct{} {
	s.changes.mu.Lock()
	defer s.changes.mu.Unlock()
	if s.changes.next == nil {
		s.changes.next = make(chan struct{})
	}
	return s.changes.next
}

// tell wakes those who wait once a change is on the disk.
func (c *changes) tell(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && c.next != nil {
		close(c.next)
		c.next = nil
	}
}
