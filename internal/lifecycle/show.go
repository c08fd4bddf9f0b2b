package lifecycle

import (
	"context"
	"time"

	"banger"
	"banger/internal/api"
)

// statusTimeout bounds how long Show waits for a supervisor: a listing must not hang on one.
const statusTimeout = time.Second

// List gives every VM, oldest first. It waits for no operation.
func (m *Manager) List(ctx context.Context) ([]banger.VM, error) { return m.Store.List(ctx) }

// Show gives one VM by name, id or unique prefix of an id.
func (m *Manager) Show(ctx context.Context, ref string) (api.VMDetail, error) {
	vm, err := m.Store.Get(ctx, ref)
	if err != nil {
		return api.VMDetail{}, err
	}
	return m.Detail(ctx, vm), nil
}

// Detail adds what a VM's run tells.
func (m *Manager) Detail(ctx context.Context, vm banger.VM) api.VMDetail {
	home := m.Dir.VM(vm.ID)
	detail := api.VMDetail{VM: vm, Dir: home.Path, MachineSocket: home.MachineSocket()}
	if !isActive(vm.State) {
		return detail
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	if status, err := m.Machines.Status(ctx, vm.ID); err == nil {
		detail.Phase, detail.Timings = string(status.Phase), status.Timings
	}
	handles, supervisor, vmm, err := m.Machines.Handles(vm.ID)
	if err != nil {
		return detail
	}
	detail.PIDs = map[string]int{}
	if supervisor {
		detail.PIDs["banger-machine"] = handles.Supervisor.PID
	}
	if vmm {
		detail.PIDs["vmm"] = handles.VMM.PID
	}
	return detail
}
