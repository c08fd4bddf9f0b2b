package client

import (
	"context"

	"banger"
	"banger/api"
)

// ResolveVMs finds out what each of refs stands for, all at one moment.
func (c *Client) ResolveVMs(ctx context.Context, refs []string) ([]api.ResolvedVM, error) {
	return ask[[]api.ResolvedVM](ctx, c, api.RouteVMResolve, "", api.ResolveRequest{Refs: refs})
}

// RestartVM stops a VM as StopVM does and starts it again. One that does not run is started.
func (c *Client) RestartVM(ctx context.Context, ref string, req api.RestartRequest, progress banger.ProgressFunc) (api.VMDetail, error) {
	return c.stream(ctx, api.RouteVMRestart, ref, nil, req, progress)
}

// KillVM ends a VM's run at once with signal KILL; another signal is sent to its VMM.
func (c *Client) KillVM(ctx context.Context, ref, signal string, progress banger.ProgressFunc) (api.VMDetail, error) {
	return c.stream(ctx, api.RouteVMKill, ref, nil, api.KillRequest{Signal: signal}, progress)
}

// RenameVM gives a VM another name, and its guest another host name.
func (c *Client) RenameVM(ctx context.Context, ref, name string, progress banger.ProgressFunc) (api.VMDetail, error) {
	return c.stream(ctx, api.RouteVMRename, ref, nil, api.RenameRequest{Name: name}, progress)
}

// SetNet changes what a VM's network reaches, of a running one at once.
func (c *Client) SetNet(ctx context.Context, ref string, change banger.NetChange) (banger.VM, error) {
	return ask[banger.VM](ctx, c, api.RouteVMNet, ref, change)
}

// SetWorkspace records what has gone into a VM.
func (c *Client) SetWorkspace(ctx context.Context, ref string, ws banger.Workspace) (banger.VM, error) {
	return ask[banger.VM](ctx, c, api.RouteVMWorkspace, ref, ws)
}

// WaitVM returns when a VM has come to what is waited for: "stopped", "running", "error" or "deleted". It gives the VM's record then.
// Errors: ErrUnavailable when the daemon ends meanwhile.
func (c *Client) WaitVM(ctx context.Context, ref, what string) (api.VMDetail, error) {
	return ask[api.VMDetail](ctx, c, api.RouteVMWait, ref, api.WaitRequest{For: what})
}

// SetVM changes what a VM is, or with DryRun tells what that would come to. Errors: ErrConflict for what is impossible.
func (c *Client) SetVM(ctx context.Context, ref string, req api.SetRequest) (api.SetResult, error) {
	return ask[api.SetResult](ctx, c, api.RouteVMSet, ref, req)
}
