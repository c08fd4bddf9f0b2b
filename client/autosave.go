package client

import (
	"context"
	"io"

	"banger"
	"banger/api"
)

// Autosaves gives the work of deleted VMs, the oldest first.
func (c *Client) Autosaves(ctx context.Context) ([]banger.Autosave, error) {
	return get[[]banger.Autosave](ctx, c, api.RouteSaveList, "")
}

// AutosaveLanded notes that the refs of an autosave are in the host's repository.
func (c *Client) AutosaveLanded(ctx context.Context, id string) (banger.Autosave, error) {
	return get[banger.Autosave](ctx, c, api.RouteSaveLanded, id)
}

// PruneAutosaves removes old ones and gives those.
func (c *Client) PruneAutosaves(ctx context.Context, req api.PruneSavesRequest) ([]banger.Autosave, error) {
	return ask[[]banger.Autosave](ctx, c, api.RouteSavePrune, "", req)
}

// ReadParts lists or reads files of a VM that does not run by name. What is sent and what comes is in the format in which banger copies
// files, which is its own and may change. The VM can't start until the answer is closed.
func (c *Client) ReadParts(ctx context.Context, ref string, request io.Reader) (io.ReadCloser, error) {
	resp, err := c.do(ctx, api.RouteVMParts, ref, nil, request)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
