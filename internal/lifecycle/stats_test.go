package lifecycle

import (
	"errors"
	"os"
	"testing"
	"time"

	"banger"
	"banger/internal/machine"
)

func TestStats(t *testing.T) {
	w := newWorld(t)
	idle := w.mustCreate("idle", false)
	busy := w.mustCreate("busy", true)
	lost := w.mustCreate("lost", true)
	if err := errors.Join(os.MkdirAll(w.dir.VM(busy.ID).Path, 0o700), os.WriteFile(w.dir.VM(busy.ID).Disk(), []byte("x"), 0o600),
		os.Truncate(w.dir.VM(busy.ID).Disk(), 1<<30)); err != nil {
		t.Fatal(err)
	}
	w.awaitWatcher(lost.ID) // which would take up a run that it finds without a supervisor
	use := func(cpu, clock time.Duration) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.runs[busy.ID].use = machine.Stats{VMM: &banger.ProcessUsage{CPU: cpu, ResidentBytes: 1 << 20, Clock: clock}, Streams: machine.Streams{Open: 2, Begun: 9},
			Net: banger.NetTraffic{SentBytes: 7, ReceivedBytes: 8}}
		w.runs[lost.ID].supervisor = false
	}
	use(time.Second, time.Minute)
	before, err := w.Stats(t.Context(), nil)
	if err != nil || len(before.VMs) != 2 || before.VMs[0].Name != "busy" || before.VMs[1].Name != "lost" {
		t.Fatalf("Stats of what runs = %+v, %v", before, err)
	}
	use(4*time.Second, time.Minute+2*time.Second)
	now, err := w.Stats(t.Context(), []string{"lost", "nosuch", "busy", string(busy.ID), "idle"})
	if err != nil || len(now.VMs) != 3 || len(now.Errors) != 1 || !errors.Is(now.Errors[0].Decode(), banger.ErrNotFound) {
		t.Fatalf("Stats by name = %+v, %v", now, err)
	}
	now = now.Since(before)
	got := now.VMs[1]
	if got.Name != "busy" || got.State != banger.StateRunning || got.CPUPercent == nil || *got.CPUPercent != 150 || *got.Streams != 2 ||
		got.Net == nil || *got.Net != (banger.NetTraffic{SentBytes: 7, ReceivedBytes: 8}) ||
		got.VMM.ResidentBytes != 1<<20 || got.Machine == nil || got.MemoryMiB != busy.Spec.MemoryMiB {
		t.Errorf("busy: %+v", got)
	}
	if got.DiskBytes != 1<<30 || got.DiskAllocatedBytes == 0 || got.DiskAllocatedBytes >= 1<<20 {
		t.Errorf("busy's disk: %d bytes, %d allocated", got.DiskBytes, got.DiskAllocatedBytes)
	}
	for _, vm := range []int{0, 2} {
		if got := now.VMs[vm]; got.VMM != nil || got.Machine != nil || got.Streams != nil || got.Net != nil || got.CPUPercent != nil {
			t.Errorf("nobody knows what %s uses: %+v", got.Name, got)
		}
	}
	if now.VMs[2].ID != idle.ID || now.VMs[2].State != banger.StateStopped {
		t.Errorf("idle: %+v", now.VMs[2])
	}
}
