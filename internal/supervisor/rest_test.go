package supervisor

import (
	"runtime/metrics"
	"testing"
	"time"

	"banger/internal/testenv"
)

// What a connection needed goes back to the host some time after its end.
func TestFreeLater(t *testing.T) {
	const size = 64 << 20
	inUse := func() uint64 {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64() + sample[1].Value.Uint64() + sample[2].Value.Uint64()
	}
	ended := FreeLater()
	data := make([]byte, size)
	for i := range data {
		data[i] = 1
	}
	before := inUse()
	if before < size {
		t.Fatalf("%d bytes are in use, want at least %d", before, size)
	}
	data = nil
	ended()
	testenv.WaitFor(t, 30*time.Second, "unused memory to go back to the host", func() bool { return inUse() < before-size/2 })
}
