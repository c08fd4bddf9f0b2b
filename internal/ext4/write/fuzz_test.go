package write_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"banger"
	"banger/internal/ext4/write"
	"banger/internal/testenv"
	"banger/internal/tree"
)

const maxScript = 4096

// judgeScript makes an image of the geometry and the tree that script chooses; it must hold just what the model has. It
// tells whether there was room for it.
func judgeScript(t testing.TB, image string, choices []byte) (made bool) {
	t.Helper()
	s := script(choices)
	opts := options([]int64{16 << 20, 8 << 20, 33 << 20, 130 << 20, 300 << 20, 2 << 30}[s.intn(6)] + int64(s.intn(3))*12_345)
	opts.Fit = s.intn(2) == 1
	opts.ReservedGDT = []uint32{0, 0, 1, 64}[s.intn(4)]
	opts.InodeRatio = []int64{0, 0, 8192, 65536}[s.intn(4)]
	opts.JournalBlocks = []int32{0, 0, -1, 1024}[s.intn(4)]
	m := newModel()
	src := func(yield func(tree.Entry, error) bool) {
		for len(s) > 0 {
			if e, text := s.entry(); m.apply(e, text) && !yield(e, nil) {
				return
			}
		}
	}
	result, err := write.CreateFile(t.Context(), image, opts, src)
	if err != nil {
		if !errors.Is(err, banger.ErrInvalid) {
			t.Error(err)
		}
		wantGone(t, image)
		return false
	}
	defer os.Remove(image)
	if info, err := os.Stat(image); err != nil || info.Size() != result.SizeBytes {
		t.Errorf("%v, %v, want %d bytes", info, err, result.SizeBytes)
	}
	judge(t, image)
	testenv.SameLines(t, content(t, image), testenv.TreeLines(t, dated(m.source()), true))
	return true
}

func FuzzWrite(f *testing.F) {
	for seed := range uint64(12) {
		f.Add(randomScript(seed, 400))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, choices []byte) {
		if len(choices) <= maxScript {
			judgeScript(t, filepath.Join(dir, strconv.Itoa(os.Getpid())), choices)
		}
	})
}

func randomScript(seed uint64, most int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, r.IntN(most))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestRandomTrees judges images of random trees and geometries: 20,000 in make soak. BANGER_SOAK_CASES and BANGER_SOAK_SEED
// change how many and which.
func TestRandomTrees(t *testing.T) {
	cases, first := 150, uint64(1)
	switch os.Getenv("BANGER_TIER") {
	case "smoke":
		cases = 1500
	case "soak":
		cases, first = 20_000, uint64(time.Now().UnixNano())
	}
	if n, err := strconv.Atoi(os.Getenv("BANGER_SOAK_CASES")); err == nil {
		cases = n
	}
	if n, err := strconv.ParseUint(os.Getenv("BANGER_SOAK_SEED"), 10, 64); err == nil {
		first = n
	}
	t.Logf("%d cases from BANGER_SOAK_SEED=%d on", cases, first)
	const batch = 250
	var next, made atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for n := next.Add(batch) - batch; n < int64(cases) && !t.Failed(); n = next.Add(batch) - batch {
				t.Run(strconv.FormatInt(n, 10), func(t *testing.T) {
					image := filepath.Join(t.TempDir(), "image")
					for i := n; i < min(n+batch, int64(cases)) && !t.Failed(); i++ {
						seed := first + uint64(i)
						if judgeScript(t, image, randomScript(seed, maxScript)) {
							made.Add(1)
						}
						if t.Failed() {
							t.Logf("again with BANGER_SOAK_CASES=1 BANGER_SOAK_SEED=%d", seed)
						}
					}
				})
			}
		})
	}
	workers.Wait()
	t.Logf("%d images", made.Load())
	if made.Load() < int64(cases)/3 {
		t.Errorf("only %d of %d trees had room", made.Load(), cases)
	}
}
