package proc

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"banger"
)

func TestUsage(t *testing.T) {
	self, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	before, err := self.Usage()
	if err != nil || before.ResidentBytes < 1<<20 || before.Clock <= 0 {
		t.Fatalf("Usage = %+v, %v", before, err)
	}
	after := before
	for after.CPU < before.CPU+5*clockTick { // by working
		if after, err = self.Usage(); err != nil {
			t.Fatal(err)
		}
	}
	if share := after.Share(before); share <= 0 || share > 64 {
		t.Errorf("Share = %v of a busy process, between %+v and %+v", share, before, after)
	}
	other := self
	other.StartTime++
	if _, err := other.Usage(); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("Usage of one that had this id before = %v, want ErrNotFound", err)
	}
	other = self
	other.BootID = "another boot"
	if _, err := other.Usage(); !errors.Is(err, banger.ErrNotFound) {
		t.Errorf("Usage of one of another boot = %v, want ErrNotFound", err)
	}
}

func TestHostTime(t *testing.T) {
	first, err := HostTime()
	if err != nil || first.BootID == "" || first.SinceBoot <= 0 {
		t.Fatalf("HostTime = %+v, %v", first, err)
	}
	if second, err := HostTime(); err != nil || second.BootID != first.BootID || second.SinceBoot < first.SinceBoot {
		t.Errorf("HostTime = %+v, %v, after %+v", second, err, first)
	}
}

// The fields are found whatever the name is.
func FuzzParseStat(f *testing.F) {
	self, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(self, uint64(7), uint64(8), uint64(9))
	f.Add([]byte("1 (a) b) S 1"), uint64(1), uint64(2), uint64(3))
	f.Add([]byte("1 (a) S"+strings.Repeat(" -1", 30)), uint64(0), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, name []byte, user, started, resident uint64) {
		if _, err := parseStat(name); err != nil && !errors.Is(err, banger.ErrCorrupt) {
			t.Errorf("parseStat(%q): %v has no kind", name, err)
		}
		want := stat{user: user >> 1, system: 5, started: started >> 1, resident: int64(resident >> 1)}
		text := fmt.Appendf(nil, "1 (%s) S%s %d 5%s %d 5 %d 0 0", name, strings.Repeat(" 5", 10), want.user, strings.Repeat(" 5", 6), want.started, want.resident)
		if got, err := parseStat(text); err != nil || got != want {
			t.Errorf("parseStat(%q) = %+v, %v, want %+v", text, got, err, want)
		}
	})
}
