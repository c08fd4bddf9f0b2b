package lifecycle

import (
	"context"
	"time"

	"banger"
	"banger/api"
)

// statusTimeout bounds how long Show waits for a supervisor: a listing must not hang on one.
const statusTimeout = time.Second

// List gives every VM, oldest first, without the console's end of its last run: there may be a thousand VMs. It waits for no operation.
func (m *Manager) List(ctx context.Context) ([]banger.VM, error) {
	list, err := m.Store.List(ctx)
	for _, vm := range list {
		if vm.Exit != nil {
			vm.Exit.Console = "" // each record was read for this list
		}
	}
	return list, err
}

// Resolve finds out what each of refs stands for, all at one moment.
func (m *Manager) Resolve(ctx context.Context, refs []string) ([]api.ResolvedVM, error) {
	list, err := m.Store.Resolve(ctx, refs)
	if err != nil {
		return nil, err
	}
	resolved := make([]api.ResolvedVM, len(list))
	for i, one := range list {
		resolved[i] = api.ResolvedVM{Ref: refs[i], ID: one.ID, Name: one.Name}
		if one.Err != nil {
			body := banger.EncodeError(one.Err, "")
			resolved[i].Error = &body
		}
	}
	return resolved, nil
}

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
	detail := api.VMDetail{VM: vm, Dir: home.Path, MachineSocket: home.MachineSocket(), User: m.User(vm)}
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
