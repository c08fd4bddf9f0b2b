package write_test

import (
	"fmt"
	"testing"

	"banger/internal/testenv"
	"banger/internal/tree"
)

// Data goes around what is reserved, wherever in a buffer that begins and whatever the buffers have grown to by then: group
// 1 has a copy of the superblock 128 MiB into the file system, and the journal before the data has many sizes.
func TestDataGoesAroundMetadata(t *testing.T) {
	opts := options(200 << 20)
	opts.Fit = true
	small, large := pattern(1100<<10), pattern(130<<20)
	entries := func() tree.Source { return tree.Of(root(), file("small", small), file("large", large)) }
	want := testenv.TreeLines(t, dated(entries()), true)
	for opts.JournalBlocks = 1024; opts.JournalBlocks < 1024+6*256; opts.JournalBlocks += 256 {
		t.Run(fmt.Sprint(opts.JournalBlocks), func(t *testing.T) {
			image, _ := create(t, opts, entries())
			testenv.SameLines(t, content(t, image), want)
		})
	}
}
