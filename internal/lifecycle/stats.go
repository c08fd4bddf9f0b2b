package lifecycle

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"

	"banger"
	"banger/api"
)

// Stats tells what the VMs that refs name use, each once, in their order; without refs, all that run. It asks all supervisors
// at once and waits for none of them longer than [statusTimeout].
func (m *Manager) Stats(ctx context.Context, refs []string) (api.Stats, error) {
	stats := api.Stats{At: m.Now().UTC(), VMs: []api.VMStats{}}
	vms, err := m.toMeasure(ctx, refs, &stats)
	if err != nil {
		return stats, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	stats.VMs = make([]api.VMStats, len(vms))
	var group sync.WaitGroup
	for i, vm := range vms {
		group.Go(func() { stats.VMs[i] = m.measure(ctx, vm) })
	}
	group.Wait()
	return stats, nil
}

// toMeasure finds the VMs. What names none is an error in stats.
func (m *Manager) toMeasure(ctx context.Context, refs []string, stats *api.Stats) (vms []banger.VM, err error) {
	if len(refs) == 0 {
		list, err := m.Store.List(ctx)
		for _, vm := range list {
			if isActive(vm.State) {
				vms = append(vms, vm)
			}
		}
		return vms, err
	}
	seen := map[banger.VMID]bool{}
	for _, ref := range refs {
		vm, err := m.Store.Get(ctx, ref)
		if errors.Is(err, banger.ErrNotFound) || errors.Is(err, banger.ErrInvalid) {
			stats.Errors = append(stats.Errors, banger.EncodeError(err, ""))
			continue
		}
		if err != nil {
			return nil, err
		}
		if !seen[vm.ID] {
			vms = append(vms, vm)
		}
		seen[vm.ID] = true
	}
	return vms, nil
}

func (m *Manager) measure(ctx context.Context, vm banger.VM) api.VMStats {
	stats := api.VMStats{ID: vm.ID, Name: vm.Spec.Name, State: vm.State, VCPU: vm.Spec.VCPU, MemoryMiB: vm.Spec.MemoryMiB}
	if info, err := os.Stat(m.Dir.VM(vm.ID).Disk()); err == nil {
		stats.DiskBytes, stats.DiskAllocatedBytes = info.Size(), info.Sys().(*syscall.Stat_t).Blocks*512
	}
	if !isActive(vm.State) {
		return stats
	}
	if vm.State == banger.StateRunning {
		stats.Uptime = max(0, m.Now().Sub(vm.StartedAt))
	}
	run, err := m.Machines.Stats(ctx, vm.ID)
	if err != nil {
		m.Log.DebugContext(ctx, "ask what a run uses", "vm", vm.ID, "err", err)
		return stats
	}
	stats.VMM, stats.Machine, stats.Net, stats.Streams = run.VMM, &run.Machine, &run.Net, &run.Streams.Open
	return stats
}
