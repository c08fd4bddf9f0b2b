package write_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"banger/internal/testenv"
	"banger/internal/tree"
)

// Data goes around what is reserved, wherever in a buffer that begins and whatever the buffers have grown to by then: group
// 1 has a copy of the superblock 128 MiB into the file system, and the journal before the data has many sizes.
func TestDataGoesAroundMetadata(t *testing.T) {
	opts := options(200 << 20)
	opts.Fit = true
	small, text := pattern(1100<<10), pattern(130<<20)
	for _, tc := range []struct {
		name  string
		large string
		step  int32 // blocks
	}{{"solid", text, 256}, {"with holes", text[:110<<20] + riddled(20<<20), 600}} {
		entries := func() tree.Source { return tree.Of(root(), file("small", small), file("large", tc.large)) }
		want := testenv.TreeLines(t, dated(entries()), true)
		for opts.JournalBlocks = 1024; opts.JournalBlocks < 1024+6*256; opts.JournalBlocks += tc.step {
			t.Run(fmt.Sprintf("%s %d", tc.name, opts.JournalBlocks), func(t *testing.T) {
				image, _ := create(t, opts, entries())
				testenv.SameLines(t, content(t, image), want)
			})
		}
	}
}

// riddled gives content of runs of data and of zeros, few and many blocks long.
func riddled(size int) string {
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	for b.Len() < size {
		b.WriteString(pattern(1 + r.IntN(4096<<r.IntN(9))))
		b.WriteString(strings.Repeat("\x00", r.IntN(4096<<r.IntN(8))))
	}
	return b.String()[:size]
}
