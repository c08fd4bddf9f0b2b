package supervisor

import (
	"runtime"
	"runtime/debug"
	"time"
)

// restAfter is how long nothing is to end before unused memory goes back to the host.
const restAfter = 2 * time.Second

// FreeLater gives what is called whenever something has ended for which this process needed memory: once no more has for a while, it goes
// back to the host. A supervisor idles nearly always, and works best with a heap that is not kept small.
func FreeLater() func() {
	timer := time.AfterFunc(restAfter, freeMemory)
	return func() { timer.Reset(restAfter) }
}

func freeMemory() {
	runtime.GC() // what is in a sync.Pool outlives one collection
	debug.FreeOSMemory()
}

// Processors is how many of this computer's processors a supervisor uses at once: half of them, for the guest needs the others. With each one
// that is free another thread wakes up for a packet on its way through the network, and takes longer than the packet.
func Processors() int { return max(1, runtime.GOMAXPROCS(0)/2) }
