//go:build !amd64

package vmm

// TSCKHz is 0: guests of this architecture need no time stamp counter's frequency.
func TSCKHz() uint64 { return 0 }
