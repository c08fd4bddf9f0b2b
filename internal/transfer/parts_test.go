package transfer

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"

	"banger/internal/tree"
)

// TestAppendNode compares with what encoding/json makes of the same.
func TestAppendNode(t *testing.T) {
	edges := []int64{0, 1, -1, 7, 0o7777, math.MaxInt32, math.MaxUint32, math.MaxInt64, math.MinInt64}
	random := rand.New(rand.NewPCG(1, 2))
	pick := func() int64 { return edges[random.IntN(len(edges))] }
	for range 2000 {
		n := Node{Path: make([]byte, random.IntN(70)), Kind: tree.Kind(pick()), Mode: uint32(pick()), UID: uint32(pick()), GID: uint32(pick()), Ino: uint64(pick()), Size: pick(), MTime: pick(), CTime: pick()}
		for i := range n.Path {
			n.Path[i] = byte(random.Uint32())
		}
		want, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(appendNode(nil, n)); got != string(want) {
			t.Fatalf("%s\nwant\n%s", got, want)
		}
	}
}
