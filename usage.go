package banger

import "time"

// ProcessUsage is what a process uses.
type ProcessUsage struct {
	CPU           time.Duration `json:"cpu_ns"`         // of all its threads so far
	ResidentBytes int64         `json:"resident_bytes"` // of the host's memory, shared pages included
	Clock         time.Duration `json:"clock_ns"`       // CLOCK_MONOTONIC of the host when it was read: the difference of two means something
}

// Share is how much of one processor was used since before: 1 is all of it, 0 also when no time has passed or before is of
// another process.
func (u ProcessUsage) Share(before ProcessUsage) float64 {
	if u.Clock <= before.Clock || u.CPU < before.CPU {
		return 0
	}
	return float64(u.CPU-before.CPU) / float64(u.Clock-before.Clock)
}
