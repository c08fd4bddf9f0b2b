package check_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"banger/internal/ext4/check"
)

// Whatever an image holds, the check ends, lists no more than its limit and says the same twice. One byte that is changed
// and changed back leaves no fault.
func FuzzCheck(f *testing.F) {
	var images [][]byte
	paths, _ := filepath.Glob("../read/testdata/*.gz")
	for _, path := range paths {
		packed, err := os.Open(path)
		if err != nil {
			f.Fatal(err)
		}
		unpacked, err := gzip.NewReader(packed)
		if err != nil {
			f.Fatal(err)
		}
		image, err := io.ReadAll(unpacked)
		if err != nil {
			f.Fatal(err)
		}
		packed.Close()
		faults, err := check.Check(bytes.NewReader(image), int64(len(image)), check.Options{})
		if err != nil || len(faults) > 0 {
			f.Fatalf("%s: %v, %v", path, faults, err)
		}
		f.Add(uint8(len(images)), uint32(1024+0x38), []byte{1}, uint32(2048), []byte{0xFF, 0xFF})
		images = append(images, image)
	}
	f.Fuzz(func(t *testing.T, which uint8, at1 uint32, b1 []byte, at2 uint32, b2 []byte) {
		image := bytes.Clone(images[int(which)%len(images)])
		copy(image[int(at1)%len(image):], b1)
		copy(image[int(at2)%len(image):], b2)
		first, err1 := check.Check(bytes.NewReader(image), int64(len(image)), check.Options{})
		second, err2 := check.Check(bytes.NewReader(image), int64(len(image)), check.Options{})
		if !reflect.DeepEqual(first, second) || (err1 == nil) != (err2 == nil) || len(first) > 1001 {
			t.Fatalf("two checks differ: %v, %v", err1, err2)
		}
	})
}
