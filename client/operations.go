package client

import (
	"context"

	"banger"
	"banger/api"
)

// Detach starts what one of the streaming routes does and gives the operation, which goes on without us. req is the route's body. What
// the daemon refuses at once is an error.
func (c *Client) Detach(ctx context.Context, route string, req any) (api.Operation, error) {
	last, err := c.events(ctx, route, "", param(api.DetachParam, true), req, nil)
	if err != nil || last.Operation == nil {
		return api.Operation{}, err
	}
	return *last.Operation, nil
}

// Operations gives those that run and the last of those that ended, oldest first.
func (c *Client) Operations(ctx context.Context) ([]api.Operation, error) {
	return get[[]api.Operation](ctx, c, api.RouteOperationList, "")
}

// ShowOperation gives one operation by its id or the beginning of it.
func (c *Client) ShowOperation(ctx context.Context, ref string) (api.Operation, error) {
	return get[api.Operation](ctx, c, api.RouteOperationShow, ref)
}

// WaitOperation reports an operation's progress from its beginning and gives what it made. Its error is ours. Cancelling ctx ends the
// waiting only.
func (c *Client) WaitOperation(ctx context.Context, ref string, progress banger.ProgressFunc) (api.Event, error) {
	return c.events(ctx, api.RouteOperationFollow, ref, nil, nil, progress)
}

// CancelOperation ends an operation and returns when what it made is undone. Errors: ErrConflict when it ended otherwise, or can't be
// cancelled.
func (c *Client) CancelOperation(ctx context.Context, ref string) (api.Operation, error) {
	return get[api.Operation](ctx, c, api.RouteOperationCancel, ref)
}
