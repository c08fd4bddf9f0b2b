package guestagent

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/ext4/write"
	"banger/internal/tree"
)

// What the agent reads of a file system is what its writer wrote; a file is as large as a device.
func TestBlocksOf(t *testing.T) {
	for _, size := range []int64{64 << 20, 8 << 30, 1 << 40, 15 << 40} {
		path := filepath.Join(t.TempDir(), "disk")
		if _, err := write.CreateFile(context.Background(), path, write.Options{SizeBytes: size}, tree.Of()); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		super := make([]byte, superSize)
		_, err = file.ReadAt(super, superOffset)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		now, fits, err := blocksOf(super, uint64(size)+3*4096+1)
		if err != nil || now != uint64(size)/4096 || fits != now+3 {
			t.Errorf("%d bytes: %d blocks now, %d fit, %v", size, now, fits, err)
		}
		if grown, err := growDisk(path, t.TempDir()); grown || err != nil {
			t.Errorf("%d bytes: growDisk of a full file system = %v, %v, want nothing done", size, grown, err)
		}
		os.Remove(path)
	}
	if _, _, err := blocksOf(make([]byte, superSize), 1); err == nil {
		t.Error("zeros are a file system")
	}
}
