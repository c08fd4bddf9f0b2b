package read_test

import (
	"io"
	"testing"

	"banger/internal/testenv"
)

// Lists and reads this computer's /usr/share from an image: many small files and some large.
func BenchmarkReadTree(b *testing.B) {
	image := testenv.Mke2fs(b, 4<<30, "-t", "ext4", "-b", "4096", "-d", "/usr/share")
	buf := make([]byte, 1<<20)
	for b.Loop() {
		fsys := open(b, image)
		var total int64
		for e, err := range fsys.Source(".") {
			if err != nil {
				b.Fatal(err)
			}
			for e.Content != nil {
				n, err := e.Content.Read(buf)
				total += int64(n)
				if err == io.EOF {
					break
				} else if err != nil {
					b.Fatal(err)
				}
			}
		}
		b.SetBytes(total)
	}
}
