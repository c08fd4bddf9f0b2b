package vmm

import (
	"runtime"
	"testing"
)

// Two measurements agree to 1 in 1,000: a guest's clock that is off by more drifts visibly within seconds.
func TestTSCKHz(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skipf("needs amd64")
	}
	first, second := TSCKHz(), TSCKHz()
	if low, high := min(first, second), max(first, second); low < 100_000 || high > 10_000_000 || (high-low)*1000 > high {
		t.Errorf("TSCKHz = %d, then %d", first, second)
	}
}
