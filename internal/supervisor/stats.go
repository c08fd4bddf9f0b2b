package supervisor

import (
	"errors"

	"banger"
	"banger/internal/machine"
)

// streaming counts a stream of a client until ended is called.
func (r *run) streaming() (ended func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams.Open++
	r.streams.Begun++
	return func() {
		defer r.rest()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.streams.Open--
	}
}

// stats reads what the run uses right now.
func (r *run) stats() (stats machine.Stats, err error) {
	r.mu.Lock()
	handles := r.handles
	stats.Streams = r.streams
	r.mu.Unlock()
	stats.Net = r.network.stack.Traffic()
	if stats.Machine, err = handles.Supervisor.Usage(); err != nil {
		return stats, err
	}
	usage, err := handles.VMM.Usage()
	if errors.Is(err, banger.ErrNotFound) {
		return stats, nil
	}
	stats.VMM = &usage
	return stats, err
}
