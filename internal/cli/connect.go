package cli

import (
	"context"

	"banger"
	"banger/api"
	"banger/client"
	"banger/internal/machine"
)

// dial connects to the daemon and starts it when none runs.
func (a *app) dial(ctx context.Context) (*client.Client, error) {
	return client.Dial(ctx, client.Config{})
}

// dialExisting connects to the daemon if one runs.
func (a *app) dialExisting(ctx context.Context) (*client.Client, error) {
	return client.DialExisting(ctx, client.Config{})
}

// machine is the supervisor of a VM. The next command after the death of one waits for the one that takes over.
func (a *app) machine(vm api.VMDetail) machine.Client {
	return machine.Client{Socket: vm.MachineSocket, Runs: func(ctx context.Context) bool {
		now, err := a.show(ctx, string(vm.ID))
		return err == nil && (now.State == banger.StateRunning || now.State == banger.StateStarting)
	}}
}
