package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"banger"
)

// admit puts a VM into state starting, by change, if the memory of all that run stays within what is allowed. One VM is looked at
// at a time, for as long as it takes to read and write a record: two that start at once can't both take what is left.
// Errors: ErrRefused, which names those to stop.
func (m *Manager) admit(ctx context.Context, vm banger.VM, overcommit bool, change func(*banger.VM) error) (banger.VM, error) {
	release, err := m.claims.take(ctx, admission)
	if err != nil {
		return vm, err
	}
	defer release()
	if err := m.fits(ctx, vm, vm.Spec.MemoryMiB, overcommit); err != nil {
		return vm, err
	}
	return m.Store.Update(ctx, vm.ID, change)
}

// admission is what admit claims; no VM has this id.
const admission = banger.VMID("admission")

// fits tells whether a VM may have so much memory beside what runs. Before an operation it is advice that saves work: admit decides.
func (m *Manager) fits(ctx context.Context, vm banger.VM, memoryMiB int, overcommit bool) error {
	limit := m.Defaults.MaxMemoryMiB
	if limit == 0 || overcommit {
		return nil
	}
	list, err := m.Store.List(ctx)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(other banger.VM) bool { return !isActive(other.State) || other.ID == vm.ID })
	used := 0
	for _, other := range list {
		used += other.Spec.MemoryMiB
	}
	if used+memoryMiB <= limit {
		return nil
	}
	return tooMuchMemory(list, used, memoryMiB, limit)
}

// tooMuchMemory says what runs, and which of it would have to stop: the fewest.
func tooMuchMemory(running []banger.VM, used, wanted, limit int) error {
	refused := &banger.Error{Kind: banger.ErrRefused, Err: fmt.Errorf("it has %d MiB of memory, and all that run may have %d MiB together (vm.max_memory)", wanted, limit)}
	if wanted > limit {
		refused.Hint = "give it less memory, or add --overcommit"
		return refused
	}
	slices.SortStableFunc(running, func(a, b banger.VM) int { return b.Spec.MemoryMiB - a.Spec.MemoryMiB })
	var runs, stop []string
	for _, vm := range running {
		runs = append(runs, fmt.Sprintf("%s (%d MiB)", vm.Spec.Name, vm.Spec.MemoryMiB))
		if used+wanted > limit {
			stop = append(stop, vm.Spec.Name)
			used -= vm.Spec.MemoryMiB
		}
	}
	refused.Err = fmt.Errorf("%w; there run %s", refused.Err, strings.Join(runs, ", "))
	refused.Hint = "banger vm stop " + strings.Join(stop, " ") + ", or add --overcommit"
	return refused
}
