package vmm

import "time"

// rdtsc reads the time stamp counter.
func rdtsc() uint64

// tscWindow is how long TSCKHz measures.
const tscWindow = 20 * time.Millisecond

// TSCKHz measures how fast the host's time stamp counter runs, in kHz, against the monotonic clock. It takes 20 ms; the
// answer holds until the host boots again.
func TSCKHz() uint64 {
	startTime, startTSC := readClocks()
	time.Sleep(tscWindow)
	endTime, endTSC := readClocks()
	perSecond := float64(endTSC-startTSC) / endTime.Sub(startTime).Seconds()
	return uint64(perSecond/1000 + 0.5)
}

// readClocks reads both clocks at one moment: of several tries the one that was interrupted least.
func readClocks() (at time.Time, tsc uint64) {
	const tries = 20
	best := time.Duration(1<<63 - 1)
	for range tries {
		before := time.Now()
		counter := rdtsc()
		if gap := time.Since(before); gap < best {
			best, at, tsc = gap, before.Add(gap/2), counter
		}
	}
	return at, tsc
}
