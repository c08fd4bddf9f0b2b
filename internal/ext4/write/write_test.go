package write_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/ext4/write"
	"banger/internal/testenv"
	"banger/internal/tree"
)

func of(entries ...tree.Entry) tree.Source {
	return func(yield func(tree.Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func TestFirst(t *testing.T) {
	for _, size := range []int64{8 << 20, 33 << 20, 136 << 20, 257 << 20, 1 << 30, 8 << 30, 64 << 30} {
		for _, fit := range []bool{false, true} {
			for _, rg := range []uint32{0, 64} {
				p := filepath.Join(t.TempDir(), "x")
				res, err := write.CreateFile(context.Background(), p, write.Options{SizeBytes: size, Fit: fit, ReservedGDT: rg, Label: "hi", Time: time.Now()},
					of(tree.Entry{Path: "a/b/c", Kind: tree.File, Mode: 0o644, Size: 5, Content: strings.NewReader("hello")},
						tree.Entry{Path: "a/l", Kind: tree.Symlink, Link: strings.Repeat("x", 100)},
						tree.Entry{Path: "dev", Kind: tree.CharDevice, Major: 300, Minor: 70000},
					))
				if err != nil {
					t.Errorf("%d %v %d: %v", size, fit, rg, err)
					continue
				}
				t.Log(size, fit, rg, res)
				testenv.CheckExt4(t, p)
			}
		}
	}
}
