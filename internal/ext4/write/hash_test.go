package write_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/internal/ext4"
	"banger/internal/ext4/write"
	"banger/internal/testenv"
	"banger/internal/tree"
)

// colliding gives names of 200 bytes of which each shares its hash with another one: as many as there are among so many.
func colliding(seed [16]byte, among int) (names []string) {
	name := func(i uint64) string { return fmt.Sprintf("%0200d", i) }
	hashed := make([]uint64, among) // the hash, then the number
	for i := range hashed {
		hash, _ := ext4.HashHalfMD4(name(uint64(i)), seed)
		hashed[i] = uint64(hash)<<32 | uint64(i)
	}
	slices.Sort(hashed)
	for i, h := range hashed {
		if i > 0 && hashed[i-1]>>32 == h>>32 || i+1 < among && hashed[i+1]>>32 == h>>32 {
			names = append(names, name(h&(1<<32-1)))
		}
	}
	return names
}

// Where names with the same hash are in two blocks, the index says so, and the kernel looks into both.
func TestNamesWithTheSameHash(t *testing.T) {
	opts := options(64 << 20)
	names := colliding(opts.HashSeed, 1<<20)
	if len(names) < 300 {
		t.Fatalf("%d names", len(names))
	}
	image, _ := create(t, opts, tree.Concat(tree.Of(dir("d")), numbered(len(names), func(i int) tree.Entry { return file("d/"+names[i], "") })))
	f, _ := open(t, image)
	index := make([]byte, 4096)
	if _, err := f.ReadAt(index, firstEntry(t, image, "d")-24); err != nil {
		t.Fatal(err)
	}
	continued := 0
	for i := range int(binary.LittleEndian.Uint16(index[34:])) {
		if i > 0 && index[32+8*i]&1 == 1 {
			continued++
		}
	}
	if continued == 0 {
		t.Error("no hash goes on in the next block")
	}
	fsys := openFS(t, image)
	for _, name := range names {
		if _, err := fsys.Lookup("d/"+name, false); err != nil {
			t.Fatal(err)
		}
	}
	finds(t, image, "d", len(names), func(i int) string { return names[i] })
}

// More names than two levels of index lead to. Their entries have one inode, so that memory suffices.
func TestTooLargeDirectory(t *testing.T) {
	testenv.RequireTier(t, "soak") // four million names
	const links = 64_000
	most := 507 * 510 * 15 // of 255 bytes
	src := func(yield func(tree.Entry, error) bool) {
		for i := range most + most/10 {
			e := file(fmt.Sprintf("d/%0255d", i), "")
			if i%links > 0 {
				e = link(e.Path, fmt.Sprintf("d/%0255d", i/links*links))
			}
			if !yield(e, nil) {
				return
			}
		}
	}
	image := filepath.Join(t.TempDir(), "image")
	_, err := write.CreateFile(t.Context(), image, options(16<<30), src)
	if !errors.Is(err, banger.ErrInvalid) || !strings.Contains(err.Error(), "two levels") {
		t.Errorf("%v", err)
	}
	wantGone(t, image)
}
